"""Hashing: the chances that it states, against counting; and that a mirrored vector counts as itself."""

from __future__ import annotations

import numpy as np
import pytest

from facegan.data.duplicates.lsh import (
    MISS,
    WORDS,
    HashFunctions,
    HashTables,
    Plan,
    Sketch,
    collision_probability,
    hashed_distances,
    plan,
)

RNG = np.random.default_rng(0)
DIMS = 8


def pairs(count: int, distance: float, turned: bool) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Both parts of vectors, and of others so far from them (or, `turned`, from their mirror)."""
    one, step = RNG.standard_normal((2, count, 2 * DIMS))
    other = one + distance * step / np.linalg.norm(step, axis=1, keepdims=True)
    if turned:
        other[:, DIMS:] *= -1
    return tuple(tuple(np.split(vectors.astype(np.float32), 2, axis=1)) for vectors in (one, other))


@pytest.mark.parametrize(("distance", "width"), [(0.2, 0.3), (0.2, 1.0), (1.0, 0.8)])
def test_chance_of_one_cell_is_that_of_counting(distance: float, width: float) -> None:
    one, other = pairs(400, distance, False)
    zero = np.zeros_like(one[1])
    scale = distance / np.linalg.norm(one[0] - other[0], axis=1, keepdims=True)
    parts = (
        (one[0] * scale, zero),
        (other[0] * scale, zero),
    )  # all the distance in what mirroring keeps: the formula's case
    functions = HashFunctions(RNG, DIMS, 2000, width)
    share = (functions.cells(*parts[0]) == functions.cells(*parts[1])).mean()
    assert share == pytest.approx(collision_probability(distance, width), abs=0.01)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("scale", [0.02, 0.3, 3])  # of what mirroring turns: beside the distance small, alike, large
def test_vectors_in_two_parts_stand_together_at_least_so_often(turned: bool, scale: float) -> None:
    one, other = RNG.standard_normal((2, 300, 2 * DIMS))
    one[:, DIMS:] *= scale
    other = one + 0.2 * other / np.linalg.norm(other, axis=1, keepdims=True)
    if turned:
        other[:, DIMS:] *= -1
    first, second = (np.split(vectors.astype(np.float32), 2, axis=1) for vectors in (one, other))
    functions = HashFunctions(RNG, DIMS, 3000, 1.0)
    share = (functions.cells(*first) == functions.cells(*second)).mean(axis=0)
    assert share.mean() > collision_probability(0.2, 1.0) - 0.005


@pytest.mark.parametrize("turned", [False, True])
def test_chance_to_miss_is_at_most_what_is_stated(turned: bool) -> None:
    hash_plan = Plan(width=1.0, functions=6, tables=5)
    one, other = pairs(20, 0.2, turned)
    missed = []
    for _ in range(400):
        tables = HashTables(RNG, DIMS, hash_plan, hash_plan.tables)
        missed.append((tables.keys(*one) != tables.keys(*other)).all(axis=0))
    share, stated = np.mean(missed), hash_plan.miss_probability(0.2)
    error = np.std(np.mean(missed, axis=1)) / len(missed) ** 0.5
    assert 0.05 < stated < 0.5 and stated - 0.1 < share < stated + 4 * error


def test_plan_keeps_the_chance_and_meets_few() -> None:
    spread = RNG.uniform(0.8, 1.4, 100_000)
    for count in (20_000, 1_000_000):
        hash_plan = plan(count, 0.2, spread)
        assert (
            hash_plan is not None
            and hash_plan.miss_probability(0.2) <= MISS / 2
            and hash_plan.miss_probability(0.1) < 1e-12
        )
        by_chance = (
            count
            / 2
            * np.mean([collision_probability(d, hash_plan.width) ** hash_plan.functions for d in spread[:2000]])
        )
        assert by_chance < 10
    assert plan(1000, 0.2, spread) is None  # few
    assert plan(1_000_000, 1.0, spread) is None  # no nearer than others


def test_sketch_lets_near_pairs_pass_and_few_others() -> None:
    sketch = Sketch(RNG, DIMS, 0.2)
    for distance, turned in ((0.2, False), (0.2, True), (2, False)):
        one, other = pairs(20_000, distance, turned)
        words = np.concatenate([sketch.words(*one), sketch.words(*other)], axis=1)
        passing = sketch.passing(words, np.arange(20_000), np.arange(20_000, 40_000))
        assert words.shape == (WORDS, 40_000)
        assert len(passing) == 20_000 if distance == 0.2 else len(passing) < 20


def test_distance_that_functions_see() -> None:
    first, second = (RNG.standard_normal((4, DIMS)).astype(np.float32) for _ in range(2))
    functions = HashFunctions(RNG, DIMS, 200_000, 1.0)
    projections = first @ functions.directions[0] + np.abs(second @ functions.directions[1])
    counted = np.sqrt(((projections[:, None] - projections[None]) ** 2).mean(axis=2))[np.triu_indices(4, 1)]
    assert hashed_distances(first, second) == pytest.approx(counted, rel=0.02)
