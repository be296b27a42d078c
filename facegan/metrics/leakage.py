"""The similarity by which near-copies of photos are left out when images are made, in thousands a second.

    s(x, y) = max over mirrored, shifted, blurred x of the correlation of band(x) and band(y),
    band = G(1 px) - G(2 px) at 64 x 64 px, the border cut, every second pixel kept (32 x 32)

The leakage gate lays images on photos before it compares them (`facegan.metrics.registered`), which sees more and takes
longer. Pure functions over arrays; nothing loops over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float32]

SIDE_PX = 64
INNER, OUTER = 1.0, 2.0  # sigmas of the band, px at SIDE_PX
BORDER_PX, SHIFT_PX, BLURS = 4, 2, (0.0, 1.0, 2.0)


def grey(pixels: np.ndarray) -> Floats:
    """(N, H, W, C) uint8 -> (N, SIDE_PX, SIDE_PX) float32 in 0..255, by area where larger."""
    size = (SIDE_PX, SIDE_PX)

    def convert(image: np.ndarray) -> np.ndarray:
        grey_image = Image.fromarray(image.squeeze()).convert("L")
        resampling = Image.Resampling.BOX if min(grey_image.size) >= SIDE_PX else Image.Resampling.BICUBIC
        return np.asarray(grey_image if grey_image.size == size else grey_image.resize(size, resampling), np.float32)

    return np.stack([convert(image) for image in pixels]) if len(pixels) else np.empty((0, *size), np.float32)


def band(images: Floats, blur: float = 0.0) -> Floats:
    """The band of grey images (N, SIDE_PX, SIDE_PX), blurred before by `blur` px."""
    inner, outer = (float(np.hypot(sigma, blur)) for sigma in (INNER, OUTER))
    return gaussian_filter(images, (0, inner, inner)) - gaussian_filter(images, (0, outer, outer))


def _window(field: Floats, dy: int = 0, dx: int = 0) -> Floats:
    """Unit, mean-free rows (N, d) of every second pixel within the border, moved by (dy, dx)."""
    low, high = BORDER_PX, SIDE_PX - BORDER_PX
    rows = field[:, low + dy : high + dy : 2, low + dx : high + dx : 2].reshape(len(field), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


def _variants(images: Floats) -> Iterator[Floats]:
    """Rows of the images as they are, mirrored, shifted and blurred: all combinations."""
    steps = range(-SHIFT_PX, SHIFT_PX + 1)
    for blur in BLURS:
        field = band(images, blur)
        for oriented in (field, field[:, :, ::-1]):
            yield from (_window(oriented, dy, dx) for dy in steps for dx in steps)


def similarity(images: Floats, others: Floats) -> Floats:
    """s of each image with its partner: two (N, SIDE_PX, SIDE_PX) stacks -> (N,) in -1..1."""
    rows = _window(band(images))
    return np.max([np.einsum("nd,nd->n", rows, other) for other in _variants(others)], axis=0)


def closest(
    images: Floats, photos: Floats, allowed: Callable[[slice, slice], np.ndarray] | None = None, block: int = 2048
) -> tuple[Floats, NDArray[np.int64]]:
    """The highest s of each image with any photo, and which: (N,) float32 in -1..1 and (N,) int64.

    `allowed(rows, columns)` gives the bool (rows, columns) of the pairs that count, None: all. An image without
    any gets -1. Memory grows with the block alone.
    """
    best, best_index = np.full(len(images), -1, np.float32), np.zeros(len(images), np.int64)
    for start in range(0, len(images), block):
        image_rows = slice(start, min(start + block, len(images)))
        rows = _window(band(images[image_rows]))
        for first in range(0, len(photos), block):
            photo_rows = slice(first, min(first + block, len(photos)))
            score = np.full((len(rows), photo_rows.stop - first), -1, np.float32)
            for other in _variants(photos[photo_rows]):
                np.maximum(score, rows @ other.T, out=score)
            if allowed is not None:
                score = np.where(allowed(image_rows, photo_rows), score, -1)
            highest = score.max(axis=1)
            is_higher = highest > best[image_rows]
            best_index[image_rows] = np.where(is_higher, first + score.argmax(axis=1), best_index[image_rows])
            best[image_rows] = np.maximum(highest, best[image_rows])
    return best, best_index


def nearest_other(photos: Floats, person: np.ndarray) -> Floats:
    """The highest s of each photo with another photo of the same person (N,); -1 for an only photo."""

    def allowed(rows: slice, columns: slice) -> np.ndarray:
        same_person = person[rows][:, None] == person[columns][None]
        is_other = np.arange(rows.start, rows.stop)[:, None] != np.arange(columns.start, columns.stop)[None]
        return np.asarray(same_person & is_other)

    return closest(photos, photos, allowed)[0]


def summary(alike: Floats, level: float) -> dict[str, Any]:
    """{people, matched, rate}: how many of the people reach `level` with any other; `alike` as from likeness."""
    matched = int((alike.max(axis=1) >= level).sum()) if alike.size else 0
    return {"people": len(alike), "matched": matched, "rate": matched / max(len(alike), 1)}
