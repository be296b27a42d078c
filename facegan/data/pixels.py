"""Arithmetic on the pixels of one picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def to_uint8(values: np.ndarray) -> NDArray[np.uint8]:
    """Grey values to uint8: rounded to the nearest, halves to the even one, cut at 0 and 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def blurred(picture: Floats, sigma_px: float) -> Floats:
    """A picture (H, W, C) float32 under a Gaussian blur, the edge's pixels going on."""
    soft = cv2.GaussianBlur(picture, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft, np.float32).reshape(picture.shape)


def resized(picture: np.ndarray, side_px: int) -> np.ndarray:
    """A square picture (side, side, C) uint8 or float32 at another side: means of areas where smaller, else linear."""
    how = cv2.INTER_AREA if side_px < len(picture) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=how)).reshape(side_px, side_px, -1)
