"""The photos of the train people, as controls and augmenters get them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrainPhotos:
    """The real train photos: `pixels` (N, H, W, C) uint8 or what reads like it, `person` (N,) int64, an index of
    `names`; `group` (N,) str is what the manifest's column has of each, '' where nothing, None where it is not asked.
    """

    pixels: np.ndarray
    person: np.ndarray
    names: list[str]
    group: np.ndarray | None = None

    def picture(self, row: int) -> np.ndarray:
        """One photo, (H, W, C) uint8."""
        return np.asarray(self.pixels[row : row + 1])[0]

    def mirrored(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Photos (n, H, W, C) uint8, half of them mirrored, by chance."""
        pixels = np.asarray(self.pixels[rows])
        flipped = rng.random(len(pixels)) < 0.5
        return np.where(flipped[:, None, None, None], pixels[:, :, ::-1], pixels)
