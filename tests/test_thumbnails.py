"""Near-duplicates: all that comparing each with each finds, with the same numbers, without doing so."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from drawn import draw_face

from facegan import thumbnails
from facegan.thumbnails import SIDE, alike, shrunk

RNG = np.random.default_rng(0)
ROUNDING = 1e-5  # of single precision


def noise(count: int) -> np.ndarray:
    """No two look alike: the worst case, since they differ as much in every direction."""
    return RNG.integers(0, 256, (count, SIDE * SIDE), np.uint8)


def smooth(count: int, cells: int = 4) -> np.ndarray:
    """Few directions, as faces have: coarse noise, magnified, with some of its own on top."""
    coarse = RNG.integers(0, 200, (count, cells, cells)).repeat(SIDE // cells, 1).repeat(SIDE // cells, 2)
    return (coarse.reshape(count, -1) + RNG.integers(0, 56, (count, SIDE * SIDE))).astype(np.uint8)


def faces(count: int) -> np.ndarray:
    return shrunk(draw_face(number // 4, number % 4, 32, 32) for number in range(count))


def mirrored(small: np.ndarray) -> np.ndarray:
    return small.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(small.shape)


def planted(small: np.ndarray) -> np.ndarray:
    """Some of the rows once more, at the end and from far to near: as they are, darker, mirrored, flat, blurred by
    noise of all strengths, so that their correlations lie around any threshold."""
    some = small[:: max(1, len(small) // 40)][:40]
    dark = (some * 0.7).astype(np.uint8)
    strength = np.linspace(0, 60, len(some))[:, None]
    blurred = np.clip(some + strength * RNG.standard_normal(some.shape), 0, 255).astype(np.uint8)
    flat = np.full((3, some.shape[1]), 90, np.uint8)
    return np.concatenate([small, some, dark, mirrored(dark), blurred, mirrored(blurred), flat])


def all_with_all(small: np.ndarray) -> np.ndarray:
    """(N, N) float64: Pearson's correlation, of the better of both ways around; 0 with what is flat."""

    def unit(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))

    exact = small.astype(np.float64)
    return np.asarray(np.maximum(unit(exact) @ unit(exact).T, unit(exact) @ unit(mirrored(exact)).T))


@pytest.mark.parametrize("correlation", [0.98, 0.9, 0.5])
@pytest.mark.parametrize("made", [noise, smooth, faces])
def test_finds_what_comparing_each_with_each_finds(made: Callable[[int], np.ndarray], correlation: float) -> None:
    small = planted(made(800))  # more than two tiles of the search
    pairs = list(alike(small, correlation, 100))
    values = np.triu(all_with_all(small), 1)
    found = np.zeros(values.shape)
    for i, j, value in pairs:
        found[i, j] = value
    assert np.count_nonzero(found) == len(pairs) and np.abs(found - values)[found > 0].max() < ROUNDING
    assert (found[values > correlation + ROUNDING] > 0).all() and (values[found > 0] > correlation - ROUNDING).all()


@pytest.mark.parametrize("block", [64, 700, 5000])
def test_blocks_that_are_passed_over_change_no_bit(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    small = planted(smooth(1100))
    found = list(alike(small, 0.98, block))
    searched = thumbnails._blocks(small, 0.98, block)
    starts = range(0, len(small), block)
    every = list(itertools.combinations_with_replacement(starts, 2))
    assert len(searched) < len(every) or len(every) == 1
    monkeypatch.setattr(thumbnails, "_blocks", lambda *_: every)
    assert list(alike(small, 0.98, block)) == found and len(found) > 100  # in the same order, with the same numbers


def test_copies_are_found_however_far_apart() -> None:
    small = smooth(60_100)
    small[60_000] = np.clip(small[3].astype(int) + 20, 0, 255)
    small[60_050] = mirrored(small[7:8])[0]
    assert [(i, j) for i, j, _ in alike(small, 0.995)] == [(3, 60_000), (7, 60_050)]


def test_of_nothing_there_is_nothing() -> None:
    assert shrunk([]).shape == (0, SIDE * SIDE) and list(alike(shrunk([]), 0.9)) == []
    assert list(alike(np.full((5000, SIDE * SIDE), 7, np.uint8), 0.5)) == []  # flat: no correlation
