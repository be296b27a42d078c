"""How good a face's picture is, as one number in [0, 1] from sharpness, exposure and pose. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIGMA = 1 / 64  # of the side: 1.75 px at 112 px, 1 px at 64 px
HALF_SHARP = 0.05  # response at which sharpness is a half
DARK, BRIGHT = 5, 250  # a pixel at or beyond is clipped
GOOD_MEAN = (0.25, 0.75)  # of the range: a face within is neither too dark nor too bright


@dataclass(frozen=True)
class Quality:
    """Each in [0, 1]; pose is None where no landmarks are known. `score` is their geometric mean."""

    sharpness: float
    exposure: float
    pose: float | None

    @property
    def score(self) -> float:
        """The geometric mean of what is known: one bad part cannot hide behind the others."""
        parts = [self.sharpness, self.exposure] + ([] if self.pose is None else [self.pose])
        return math.prod(parts) ** (1 / len(parts))


def measure(pixels: NDArray[np.uint8], landmarks: Sequence[float] | None = None) -> Quality:
    """The quality of a stored face: pixels (H, W) or (H, W, C) uint8; landmarks ten numbers in its px, or None."""
    return Quality(sharpness(pixels), exposure(pixels), pose(landmarks))


def central_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The inner three quarters of a picture, grey, 0 to 255: corners are background, or black from the warp."""
    grey = pixels.astype(np.float32)
    if grey.ndim == 3:
        grey = grey @ np.array([0.299, 0.587, 0.114], np.float32) if grey.shape[2] == 3 else grey[:, :, 0]
    height, width = grey.shape
    return grey[height // 8 : height - height // 8, width // 8 : width - width // 8]


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """r / (r + 0.05), with r the variance of the Laplacian over the variance of the grey values.

    The Laplacian is taken at a scale of 1/64 of the side and normalised by it (sigma^2 L * G_sigma), so that neither
    the stored size nor light and contrast play a part; a plane surface has 0. Noise counts as sharp. Sources:
    Pech-Pacheco et al. 2000, ICPR (variance of the Laplacian); Lindeberg 1998, IJCV 30(2) (scale normalisation).
    """
    grey = central_grey(pixels)
    sigma = SIGMA * max(pixels.shape[:2])
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    response = sigma**2 * cv2.Laplacian(smooth, cv2.CV_32F, borderType=cv2.BORDER_REFLECT_101)
    variance = float(grey.var())
    if variance < 1:  # less than one grey level: nothing to see
        return 0.0
    ratio = float(response.var()) / variance
    return ratio / (ratio + HALF_SHARP)


def exposure(pixels: NDArray[np.uint8]) -> float:
    """(1 - share of clipped pixels) times how near the mean is to the middle of the range.

    Clipped: 5 or less, 250 or more. The mean counts 1 from a quarter to three quarters of the range and falls to 0 at
    its ends.
    """
    grey = central_grey(pixels)
    clipped = float(((grey <= DARK) | (grey >= BRIGHT)).mean())
    mean = float(grey.mean()) / 255
    mean_score = min(1.0, mean / GOOD_MEAN[0], (1 - mean) / (1 - GOOD_MEAN[1]))
    return (1 - clipped) * mean_score


def pose(landmarks: Sequence[float] | None) -> float | None:
    """1 for a frontal face, 0 where the nose lies over an eye: how far the nose is from half way between the eyes.

    A proxy of yaw, along the line of the eyes, so that a tilted head costs nothing. None where eyes or nose are not
    known.
    """
    if landmarks is None:
        return None
    left, right, nose = np.asarray(landmarks, np.float64).reshape(5, 2)[:3]
    axis = right - left
    length = float(axis @ axis)
    if not math.isfinite(length + float(nose.sum())) or length == 0:
        return None
    return max(0.0, 1 - abs(2 * float((nose - (left + right) / 2) @ axis) / length))
