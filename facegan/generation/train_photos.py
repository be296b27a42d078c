"""The photos of the train people, as controls and augmenters get them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrainPhotos:
    """The real train photos: `pixels` (N, H, W, C) uint8 or what reads like it, `person` (N,) int64, an index of
    `names`."""

    pixels: np.ndarray
    person: np.ndarray
    names: list[str]

    def picture(self, row: int) -> np.ndarray:
        """One photo, (H, W, C) uint8."""
        return np.asarray(self.pixels[row : row + 1])[0]
