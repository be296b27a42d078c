"""Near-duplicates: what comparing each with each finds, with the same numbers, without doing so."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from drawn import draw_face
from facegan.data.duplicates import near_duplicates
from facegan.data.duplicates.lsh import Plan
from facegan.data.duplicates.near_duplicates import CROWD, Search, near_duplicate_pairs
from facegan.data.duplicates.thumbnails import SIDE, correlations, shrink, standardized

RNG = np.random.default_rng(0)
ROUNDING = 1e-5 + 0.5e-4  # of single precision and to four decimals


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans by which a test's search hashes: none where it compares each with each."""
    plans, plan = [], near_duplicates.plan

    def plan_and_note(count: int, reach: float, spread: np.ndarray) -> Plan | None:
        hash_plan = plan(count, reach, spread)
        plans.extend([hash_plan] if hash_plan else [])
        return hash_plan

    monkeypatch.setattr(near_duplicates, "plan", plan_and_note)
    return plans


def noise(count: int) -> np.ndarray:
    """No two look alike: the worst case, since they differ as much in every direction."""
    return RNG.integers(0, 256, (count, SIDE * SIDE), np.uint8)


def smooth(count: int, cells: int = 4) -> np.ndarray:
    """Few directions, as faces have: coarse noise, magnified, with some of its own on top."""
    coarse = RNG.integers(0, 200, (count, cells, cells)).repeat(SIDE // cells, 1).repeat(SIDE // cells, 2)
    return (coarse.reshape(count, -1) + RNG.integers(0, 56, (count, SIDE * SIDE))).astype(np.uint8)


def faces(count: int) -> np.ndarray:
    return shrink(draw_face(number // 4, number % 4, 32, 32) for number in range(count))


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
@pytest.mark.parametrize("draw", [noise, smooth, faces])
def test_finds_what_comparing_each_with_each_finds(draw: Callable[[int], np.ndarray], correlation: float) -> None:
    small = planted(draw(800))  # more than two tiles of the search
    pairs = list(near_duplicate_pairs(small, correlation, 100))
    values = np.triu(all_with_all(small), 1)
    correlations = np.zeros(values.shape)
    for i, j, value in pairs:
        correlations[i, j] = value
    assert (
        np.count_nonzero(correlations) == len(pairs)
        and np.abs(correlations - values)[correlations > 0].max() < ROUNDING
    )
    assert (correlations[values > correlation + ROUNDING] > 0).all() and (
        values[correlations > 0] > correlation - ROUNDING
    ).all()


def compared(small: np.ndarray, correlation: float, block: int) -> list[tuple[int, int, float]]:
    """What the products of all blocks give."""
    starts = itertools.combinations_with_replacement(range(0, len(small), block), 2)
    return [
        pair
        for start, other in starts
        for pair in near_duplicates.pairs_of_blocks(small, start, other, correlation, block)
    ]


@pytest.mark.parametrize(("draw", "count", "block"), [(noise, 6000, 100), (smooth, 9000, 2048), (faces, 5000, 700)])
def test_looking_by_hashing_gives_what_comparing_each_with_each_gives(
    hashed: list[Plan], draw: Callable[[int], np.ndarray], count: int, block: int
) -> None:
    small = planted(draw(count))
    pairs = list(near_duplicate_pairs(small, 0.98, block))
    assert len(hashed) == 1 and len(pairs) > 100
    assert pairs == compared(small, 0.98, block)  # in the same order, with the same numbers


def beside(small: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Thumbnails correlated so with those given, but for the rounding to whole numbers."""
    unit = standardized(small).astype(np.float64)
    across = RNG.standard_normal(unit.shape)
    across -= across.mean(axis=1, keepdims=True)
    across -= unit * (unit * across).sum(axis=1, keepdims=True)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    turned = unit * correlation[:, None] + across * np.sqrt(1 - correlation[:, None] ** 2)
    return np.asarray((127.5 + turned * 127 / np.abs(turned).max(axis=1, keepdims=True)).round().astype(np.uint8))


@pytest.mark.parametrize("draw", [noise, smooth])
def test_thousands_of_pairs_up_to_the_limit_are_all_found(
    hashed: list[Plan], draw: Callable[[int], np.ndarray]
) -> None:
    small = draw(6000)
    copies = beside(small, np.concatenate([np.full(3000, 0.9802), np.linspace(0.98, 1, 3000)]))
    copies[::2] = mirrored(copies[::2])
    order = RNG.permutation(12_000)
    position = np.argsort(order)
    stack = np.concatenate([small, copies])[order]
    pairs_found = {(i, j) for i, j, _ in near_duplicate_pairs(stack, 0.98)}
    values = correlations(np.concatenate([small, copies]), np.arange(6000), np.arange(6000, 12_000))
    pairs = [tuple(sorted(p)) for p in np.column_stack([position[:6000], position[6000:]])[values >= 0.98].tolist()]
    assert len(hashed) == 1 and len(pairs) > 5000 and np.ptp(values[:3000]) < 0.001
    assert pairs_found == set(pairs)


def test_copies_are_found_however_far_apart() -> None:
    small = smooth(30_100)
    small[30_000] = np.clip(small[3].astype(int) + 20, 0, 255)
    small[30_050] = mirrored(small[7:8])[0]
    assert [(i, j) for i, j, _ in near_duplicate_pairs(small, 0.995)] == [(3, 30_000), (7, 30_050)]


def test_very_many_copies_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "plan", lambda *_: Plan(1.2, 10, 60))  # else each would be compared with each
    monkeypatch.setattr(near_duplicates, "BIG", 500)
    small = noise(10_000)
    small[np.r_[3000:3600, 9000:9020]] = np.clip(small[0] + 5 * RNG.standard_normal((620, SIDE * SIDE)), 0, 255)
    search = Search(small, 0.98, 1000)
    kept = search.run()
    assert search.block_counts[3, 3] >= CROWD and len(kept) < 3 * CROWD
    assert list(near_duplicate_pairs(small, 0.98, 1000)) == compared(small, 0.98, 1000)


def test_memory_grows_by_bytes_a_thumbnail() -> None:
    small = noise(20_000)
    tracemalloc.start()
    try:
        assert list(near_duplicate_pairs(small, 0.98)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6 + 300 * len(small), peak


def test_of_nothing_there_is_nothing() -> None:
    assert shrink([]).shape == (0, SIDE * SIDE) and list(near_duplicate_pairs(shrink([]), 0.9)) == []
    assert list(near_duplicate_pairs(np.full((5000, SIDE * SIDE), 7, np.uint8), 0.5)) == []  # flat: no correlation
    flat = np.repeat(RNG.integers(0, 256, (9000, 1), np.uint8), SIDE * SIDE, 1)
    assert list(near_duplicate_pairs(np.concatenate([flat, noise(9000), flat]), 0.98)) == []
