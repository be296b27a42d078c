"""Tiny grey pictures of images, and which of many are the same picture: exact, without comparing all with all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

SIDE = 16  # px
BLOCK = 2048  # thumbnails compared at once
TILE = 512  # the same in the search before: what fits into a processor's cache
AXES, SAMPLE = 32, 4096  # directions that the search looks along, and of how many thumbnails they are learned
MARGIN = 1e-4  # of correlations in single precision, far more than their rounding


def shrunk(images: Iterable[np.ndarray], count: int = -1) -> np.ndarray:
    """Grey SIDE x SIDE thumbnails of (H, W, C) uint8 images: (N, SIDE^2) uint8. `count` spares memory: it is N."""
    small = (
        np.asarray(Image.fromarray(i.squeeze()).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
        for i in images
    )
    return np.fromiter(small, np.dtype((np.uint8, SIDE * SIDE)), count)


def standard(small: np.ndarray) -> np.ndarray:
    """Thumbnails (N, SIDE^2) uint8 with mean 0 and length 1 each, so that products are correlations: float32."""
    stack = small.astype(np.float32)
    stack -= stack.mean(axis=1, keepdims=True)
    stack /= np.maximum(np.linalg.norm(stack, axis=1, keepdims=True), 1e-6)
    return stack


def thumbnails(images: Iterable[np.ndarray]) -> np.ndarray:
    """Grey thumbnails of (H, W, C) uint8 images, mean 0 and length 1 each: (N, SIDE^2) float32."""
    return standard(shrunk(images))


def alike(small: np.ndarray, correlation: float, block: int = BLOCK) -> Iterator[tuple[int, int, float]]:
    """(i, j, correlation), i < j, of thumbnails (N, SIDE^2) uint8 correlated at `correlation` or more (above 0), also
    when one is mirrored.

    All pairs that comparing each with each gives, by the same products of the same blocks, block by block; blocks that
    cannot hold a pair are passed over (`_blocks`). Memory: 136 bytes a thumbnail, and some blocks.
    """
    for start, other in _blocks(small, correlation, block):
        here = standard(small[start : start + block])
        there = here if other == start else standard(small[other : other + block])
        values = np.maximum(here @ there.T, here @ _mirrored(there).T)
        for i, j in np.argwhere(values >= correlation):
            if start + i < other + j:
                yield int(start + i), int(other + j), float(values[i, j])


def _mirrored(small: np.ndarray) -> np.ndarray:
    side = math.isqrt(small.shape[1])
    return small.reshape(len(small), side, side)[:, :, ::-1].reshape(small.shape)


def _folded(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What mirroring keeps of standard thumbnails and what it turns the sign of, at right angles to each other.

    With a = e + o and b = e' + o': a.b = e.e' + o.o', and a.mirrored(b) = e.e' - o.o'.
    """
    mirrored = _mirrored(small)
    return (small + mirrored) / 2, (small - mirrored) / 2


def _blocks(small: np.ndarray, correlation: float, block: int) -> list[tuple[int, int]]:
    """The first rows of each two blocks that hold a pair, in order."""
    if len(small) <= block:
        return [(0, 0)] if len(small) else []
    found: set[tuple[int, int]] = set()
    for one, other in _pairs(small, correlation - MARGIN):
        first, second = np.minimum(one, other) // block, np.maximum(one, other) // block
        found.update(zip((first * block).tolist(), (second * block).tolist(), strict=True))
    return sorted(found)


def _pairs(small: np.ndarray, least: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places (n,) of thumbnails and of their partners, all that are correlated at `least` or more, mirrored or not.

    Unit vectors with a.b >= least are at most sqrt(2 - 2 least) apart, and so are their coordinates along any axis: in
    the order of the axis in which thumbnails differ most, a partner is not far. What is left is bounded from above in
    few dimensions (`_low`), and looked at closely where the bound leaves it possible. Time grows with the square of N,
    but with a small factor.
    """
    axes = _axes(small[:: max(1, len(small) // SAMPLE)])
    starts = range(0, len(small), BLOCK)
    along = np.concatenate([_low(small[start : start + BLOCK], axes[:, :1])[:, 0] for start in starts])
    order = np.argsort(along, kind="stable")
    along = along[order]
    low = np.empty((len(small), axes.shape[1] + 2), np.float32)
    for start in starts:
        low[start : start + BLOCK] = _low(small[order[start : start + BLOCK]], axes)
    reach = math.sqrt(max(0.0, 2 - 2 * least))
    for start in range(0, len(small), TILE):
        here = low[start : start + TILE]
        end = int(np.searchsorted(along, along[start + len(here) - 1] + reach, "right"))
        for other in range(start, end, TILE):
            there = low[other : min(other + TILE, end)]
            row, column = np.divmod(np.flatnonzero(here @ there.T >= least), len(there))
            if other == start:
                row, column = row[row < column], column[row < column]
            if len(row):
                one, other_one = order[start + row], order[other + column]
                near = _likeness(small, one, other_one) >= least
                yield one[near], other_one[near]


def _axes(small: np.ndarray) -> np.ndarray:
    """The AXES directions (SIDE^2, AXES) float32 in which the even parts of some thumbnails differ most, most first."""
    even = _folded(standard(small))[0].astype(np.float64)
    even -= even.mean(axis=0)
    return np.linalg.eigh(even.T @ even)[1][:, : -AXES - 1 : -1].astype(np.float32)


def _low(small: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Thumbnails in few dimensions, (N, axes + 2) float32: products are at least the correlations, mirrored or not.

    The even part along each axis, the length of what is left of it, and the length of the odd part (Cauchy-Schwarz).
    """
    even, odd = _folded(standard(small))
    along = even @ axes
    rest = np.maximum((even**2).sum(1) - (along**2).sum(1), 0) + MARGIN / 10  # rounding must not make it shorter
    return np.column_stack([along, np.sqrt(rest), np.linalg.norm(odd, axis=1)])


def _likeness(small: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The correlations (n,) float32 of thumbnails `one` (n,) with `other` (n,), of the better of both ways around."""
    rows, row = np.unique(one, return_inverse=True)
    columns, column = np.unique(other, return_inverse=True)
    even, odd = _folded(standard(small[rows]))
    other_even, other_odd = _folded(standard(small[columns]))
    values: np.ndarray = even @ other_even.T + np.abs(odd @ other_odd.T)
    return values[row, column]
