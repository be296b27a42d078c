"""Tiny grey thumbnails of images, and their correlations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

SIDE = 16  # px
BLOCK = 2048  # thumbnails compared at once


def shrink(images: Iterable[np.ndarray], count: int = -1) -> np.ndarray:
    """Grey SIDE x SIDE thumbnails of (H, W, C) uint8 images: (N, SIDE^2) uint8. `count`, which is N, saves memory."""
    small = (
        np.asarray(Image.fromarray(i.squeeze()).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
        for i in images
    )
    return np.fromiter(small, np.dtype((np.uint8, SIDE * SIDE)), count)


def standardized(small: np.ndarray) -> np.ndarray:
    """Thumbnails (N, SIDE^2) uint8 with mean 0 and length 1 each, so that products are correlations: float32."""
    stack = small.astype(np.float32)
    stack -= stack.mean(axis=1, keepdims=True)
    stack /= np.maximum(np.linalg.norm(stack, axis=1, keepdims=True), 1e-6)
    return stack


def thumbnails(images: Iterable[np.ndarray]) -> np.ndarray:
    """Grey thumbnails of (H, W, C) uint8 images, mean 0 and length 1 each: (N, SIDE^2) float32."""
    return standardized(shrink(images))


def mirrored(small: np.ndarray) -> np.ndarray:
    """Thumbnails (N, SIDE^2), left and right exchanged."""
    return small.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(small.shape)


def mirror_parts(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of standardized thumbnails that mirroring keeps and negates: (N, SIDE^2 / 2) float32 each.

    With a = (e, o) and b = (e', o'): a.b = e.e' + o.o', and a.mirrored(b) = e.e' - o.o'.
    """
    stack = standardized(small).reshape(-1, SIDE, SIDE)
    left, right = stack[:, :, : SIDE // 2], stack[:, :, : SIDE // 2 - 1 : -1]
    even, odd = left + right, left - right
    half = np.float32(math.sqrt(0.5))
    shape = len(small), SIDE * SIDE // 2
    return even.reshape(shape) * half, odd.reshape(shape) * half


def correlations(small: np.ndarray, rows_i: np.ndarray, rows_j: np.ndarray) -> np.ndarray:
    """The correlations (n,) float64 of thumbnails `rows_i` (n,) with `rows_j` (n,), mirrored where that is larger."""
    values = np.empty(len(rows_i))
    for start in range(0, len(rows_i), BLOCK):
        first, second = (
            standardized(small[rows[start : start + BLOCK]]).astype(np.float64) for rows in (rows_i, rows_j)
        )
        values[start : start + BLOCK] = np.maximum((first * second).sum(1), (first * mirrored(second)).sum(1))
    return np.minimum(values, 1)
