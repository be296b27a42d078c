"""Features of grey faces: pixels, histograms of gradients, local binary patterns. All take a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX, CELL_PX = 64, 8
CELLS = SIDE_PX // CELL_PX
ORIENTATIONS = 9
HOG_CUT = 0.2
NEIGHBOURS, RADII = 8, (1, 2)
TIE = 1e-3  # grey levels: interpolation must not tell a flat patch from itself
Floats = NDArray[np.float32]


def grey(images: NDArray[np.uint8]) -> Floats:
    """(N, H, W, 1 or 3) uint8 -> (N, 64, 64) float32 in 0..255: luma (ITU-R BT.601) of RGB, resized where need be."""
    planes = np.empty((len(images), SIDE_PX, SIDE_PX), np.float32)
    for plane, image in zip(planes, images, strict=True):
        one = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[:, :, 0]
        smaller = cv2.INTER_AREA if min(one.shape) > SIDE_PX else cv2.INTER_LINEAR
        plane[:] = one if one.shape == plane.shape else cv2.resize(one, (SIDE_PX, SIDE_PX), interpolation=smaller)
    return planes


def pixels(planes: Floats) -> Floats:
    """Each image less its mean, over its standard deviation: (N, 4096); zeros for a flat image."""
    flat = planes.reshape(len(planes), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6), np.float32)


def hog(planes: Floats) -> Floats:
    """Histograms of oriented gradients: (N, 49 blocks x 36).

    Square root of the grey levels, central differences (none across the edge), nine unsigned orientations between
    which a gradient is shared linearly, cells of 8 px, blocks of 2 x 2 cells of unit length, cut at 0.2 and made of
    unit length again. Source: Dalal and Triggs 2005, CVPR, section 6 (L2-Hys).
    """
    root = np.sqrt(planes)
    down, right = np.zeros_like(root), np.zeros_like(root)
    down[:, 1:-1] = root[:, 2:] - root[:, :-2]
    right[:, :, 1:-1] = root[:, :, 2:] - root[:, :, :-2]
    place = np.arctan2(down, right) % np.pi * (ORIENTATIONS / np.pi) - 0.5  # in bins; whole numbers are their centres
    lower = np.floor(place)
    share, strength = place - lower, np.hypot(down, right)
    below = lower.astype(np.int64) % ORIENTATIONS
    cells = _cells(below, strength * (1 - share), ORIENTATIONS)
    cells += _cells((below + 1) % ORIENTATIONS, strength * share, ORIENTATIONS)
    blocks = np.concatenate(
        [cells[:, row : CELLS - 1 + row, column : CELLS - 1 + column] for row in (0, 1) for column in (0, 1)], axis=-1
    )
    blocks = np.minimum(_unit(blocks), HOG_CUT)
    return np.asarray(_unit(blocks).reshape(len(planes), -1), np.float32)


def lbp(planes: Floats) -> Floats:
    """Histograms of uniform local binary patterns: (N, 2 radii x 64 cells x 59), square roots of counts.

    Source: Ojala et al. 2002, PAMI 24(7), section 2 (neighbours on a circle, bilinear); Ahonen et al. 2006, PAMI
    28(12) (59 bins: each uniform pattern, and one for all others).
    """
    counts = [_cells(UNIFORM[patterns(planes, radius)], None, len(np.unique(UNIFORM))) for radius in RADII]
    return np.asarray(np.sqrt(np.stack(counts, axis=1)).reshape(len(planes), -1), np.float32)


def patterns(planes: Floats, radius: int) -> NDArray[np.int64]:
    """The code 0..255 of each pixel (N, H, W): bit k is set where neighbour k on the circle is not darker.

    Neighbour k lies at the angle 2 pi k / 8, upwards from the right; beyond the edge the edge's pixels go on.
    """
    margin, (_, height, width) = radius + 1, planes.shape
    padded = np.pad(planes, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    codes = np.zeros(planes.shape, np.int64)
    for bit in range(NEIGHBOURS):
        angle = 2 * np.pi * bit / NEIGHBOURS
        y, x = (round(float(offset), 5) for offset in (-radius * np.sin(angle), radius * np.cos(angle)))
        top, left = int(np.floor(y)), int(np.floor(x))
        value = np.zeros_like(planes)
        for row, of_row in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, of_column in ((left, 1 - (x - left)), (left + 1, x - left)):
                if of_row * of_column:
                    rows = slice(margin + row, margin + row + height)
                    columns = slice(margin + column, margin + column + width)
                    value += np.float32(of_row * of_column) * padded[:, rows, columns]
        codes |= (value >= planes - TIE).astype(np.int64) << bit
    return codes


def _uniform() -> NDArray[np.int64]:
    """(256,) bin of each code: one for each with at most two changes around the circle, one for all others."""
    codes = np.arange(2**NEIGHBOURS)
    bits = codes[:, None] >> np.arange(NEIGHBOURS) & 1
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum()).astype(np.int64)


UNIFORM = _uniform()


def _cells(bins: NDArray[np.int64], weights: NDArray[np.floating[Any]] | None, number: int) -> NDArray[np.float64]:
    """Histograms (N, 8, 8, number) of the bins (N, 64, 64) in each cell of 8 px, each pixel weighted."""
    image, row, column = np.ogrid[: len(bins), :SIDE_PX, :SIDE_PX]
    cell = (image * CELLS + row // CELL_PX) * CELLS + column // CELL_PX
    size = len(bins) * CELLS * CELLS * number
    counts = np.bincount((cell * number + bins).ravel(), None if weights is None else weights.ravel(), size)
    return np.asarray(counts, np.float64).reshape(len(bins), CELLS, CELLS, number)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.sqrt((rows**2).sum(axis=-1, keepdims=True) + 1e-10)


FEATURES = {"pixels": pixels, "hog": hog, "lbp": lbp}


def measure(images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, Floats]:
    """The features so named of images (N, H, W, 1 or 3) uint8: {name: (N, d)}."""
    planes = grey(images)
    return {name: FEATURES[name](planes) for name in names}
