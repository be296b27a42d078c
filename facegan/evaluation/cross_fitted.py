"""Embeddings that are right for few people: fitted in seconds, and never on the people whom they compare.

Pixels, HOG and LBP of grey photos, each by principal axes and within-class whitening (WCCN, Hatch, Kajarekar and Stolcke
2006), mirror images added. The people are dealt into folds, and those of a fold are seen by what was fitted on the
others alone: train people are then as new to it as anybody else, so that their likeness to themselves and to strangers
is what it is for people whom nothing has learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facegan.metrics.leakage import SIDE_PX, Floats
from facegan.metrics.verification import unit_rows

FOLDS, AXES, SHRINKAGE = 5, 300, 1.0
CELL_PX, ORIENTATIONS, CLIP = 8, 9, 0.2


def pixels(photos: Floats) -> Floats:
    """(N, 64, 64) -> rows (N, 4096), each less its mean and over its deviation."""
    flat = photos.reshape(len(photos), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (flat.std(axis=1, keepdims=True) + 1e-3), np.float32)


def _cells(values: Floats) -> Floats:
    """Sums over cells of CELL_PX: (N, 64, 64) -> (N, 8, 8)."""
    count = SIDE_PX // CELL_PX
    return np.asarray(values.reshape(-1, count, CELL_PX, count, CELL_PX).sum(axis=(2, 4)))


def hog(photos: Floats) -> Floats:
    """Histograms of unsigned gradients, blocks of 2 x 2 cells normalised and cut (Dalal and Triggs 2005)."""
    img = np.sqrt(np.maximum(photos, 0))
    dy, dx = np.gradient(img, axis=1), np.gradient(img, axis=2)
    size, angle = np.hypot(dx, dy), (np.arctan2(dy, dx) % np.pi) / np.pi * ORIENTATIONS
    low = np.floor(angle)
    share = angle - low
    bins = [
        _cells(size * ((1 - share) * (low % ORIENTATIONS == k) + share * ((low + 1) % ORIENTATIONS == k)))
        for k in range(ORIENTATIONS)
    ]
    cells = np.stack(bins, axis=-1)
    blocks = np.concatenate([cells[:, a : a + 7, b : b + 7] for a in (0, 1) for b in (0, 1)], axis=-1)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-2)
    blocks = np.minimum(blocks, CLIP)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-6)
    return np.asarray(blocks.reshape(len(photos), -1), np.float32)


def _uniform_codes() -> NDArray[np.int64]:
    """The class of each of 256 patterns: 58 with at most two changes around the circle, and one for all others."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum()).astype(np.int64)


def lbp(photos: Floats) -> Floats:
    """Uniform local binary patterns at radius 1 and 2, square roots of counts in cells (Ahonen et al. 2006)."""
    classes, parts = _uniform_codes(), []
    for radius in (1, 2):
        padded = np.pad(photos, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
        code = np.zeros(photos.shape, np.int64)
        for bit, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))):
            y, x = radius * (1 + dy), radius * (1 + dx)
            code |= (padded[:, y : y + SIDE_PX, x : x + SIDE_PX] >= photos).astype(np.int64) << bit
        pattern = classes[code]
        parts += [_cells((pattern == k).astype(np.float32)) for k in range(59)]
    return np.sqrt(np.stack(parts, axis=-1)).reshape(len(photos), -1).astype(np.float32)


FEATURES = (pixels, hog, lbp)


def features(photos: Floats) -> list[tuple[Floats, Floats]]:
    """Each feature's rows of the photos (N, 64, 64) and of their mirror images."""
    mirrored = np.ascontiguousarray(photos[:, :, ::-1])
    return [(feature(photos), feature(mirrored)) for feature in FEATURES]


class Fitted:
    """Axes of each feature, whitened within people: fitted on rows of people (N,)."""

    def __init__(self, rows: list[tuple[Floats, Floats]], person: np.ndarray) -> None:
        self.maps = [self._fit(np.concatenate(pair), np.concatenate([person, person])) for pair in rows]

    @staticmethod
    def _fit(rows: Floats, person: np.ndarray) -> tuple[Floats, Floats]:
        mean = rows.mean(axis=0)
        _, values, axes = np.linalg.svd(rows - mean, full_matrices=False)
        axes = axes[: min(AXES, int((values > 1e-4 * values[0]).sum()))].T
        codes = np.unique(person, return_inverse=True)[1]
        z = (rows - mean) @ axes
        centres = np.zeros((codes.max() + 1, z.shape[1]), np.float32)
        np.add.at(centres, codes, z)
        spread = z - (centres / np.bincount(codes)[:, None])[codes]
        within = spread.T @ spread / max(len(z) - len(centres), 1)
        within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within), dtype=np.float32)
        variances, directions = np.linalg.eigh(within)
        return mean, np.asarray(axes @ (directions / np.sqrt(variances)) @ directions.T, np.float32)

    def __call__(self, rows: list[tuple[Floats, Floats]]) -> Floats:
        """Unit embeddings (M, d) of features of photos."""
        parts = [
            unit_rows(sum(unit_rows((side - mean) @ axes) for side in pair))
            for pair, (mean, axes) in zip(rows, self.maps, strict=True)
        ]
        return unit_rows(np.concatenate(parts, axis=1))
