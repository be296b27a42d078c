"""Whose photo takes part in another person's."""

from __future__ import annotations

import numpy as np

from facegan.generation.train_photos import TrainPhotos


def stranger(photos: TrainPhotos, photo: int, rng: np.random.Generator, usable: np.ndarray | None = None) -> int:
    """A random photo (its row) of a random other person than `photo` shows, among those `usable` (N,) bool."""
    others = np.flatnonzero((photos.person != photos.person[photo]) & (True if usable is None else usable))
    person = rng.choice(np.unique(photos.person[others]))
    return int(rng.choice(others[photos.person[others] == person]))
