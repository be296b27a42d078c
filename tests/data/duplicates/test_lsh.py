"""Hashing: the chances that it states, against counting; and that a mirrored vector counts as itself."""

from __future__ import annotations

import numpy as np
import pytest

from facegan.data.duplicates.lsh import MISS, WORDS, Functions, Plan, Sketch, Tables, plan, seen, stays

RNG = np.random.default_rng(0)
DIMS = 8


def pairs(count: int, distance: float, turned: bool) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Both parts of vectors, and of others so far from them (or, `turned`, from their mirror)."""
    one, step = RNG.standard_normal((2, count, 2 * DIMS))
    other = one + distance * step / np.linalg.norm(step, axis=1, keepdims=True)
    if turned:
        other[:, DIMS:] *= -1
    return tuple(tuple(np.split(at.astype(np.float32), 2, axis=1)) for at in (one, other))


@pytest.mark.parametrize(("distance", "width"), [(0.2, 0.3), (0.2, 1.0), (1.0, 0.8)])
def test_chance_of_one_cell_is_that_of_counting(distance: float, width: float) -> None:
    one, other = pairs(400, distance, False)
    zero = np.zeros_like(one[1])
    near = distance / np.linalg.norm(one[0] - other[0], axis=1, keepdims=True)
    at = (one[0] * near, zero), (other[0] * near, zero)  # all the distance in what mirroring keeps: the formula's case
    functions = Functions(RNG, DIMS, 2000, width)
    share = (functions.cells(*at[0]) == functions.cells(*at[1])).mean()
    assert share == pytest.approx(stays(distance, width), abs=0.01)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("scale", [0.02, 0.3, 3])  # of what mirroring turns: beside the distance small, alike, large
def test_vectors_in_two_parts_stand_together_at_least_so_often(turned: bool, scale: float) -> None:
    one, other = RNG.standard_normal((2, 300, 2 * DIMS))
    one[:, DIMS:] *= scale
    other = one + 0.2 * other / np.linalg.norm(other, axis=1, keepdims=True)
    if turned:
        other[:, DIMS:] *= -1
    first, second = (np.split(at.astype(np.float32), 2, axis=1) for at in (one, other))
    functions = Functions(RNG, DIMS, 3000, 1.0)
    share = (functions.cells(*first) == functions.cells(*second)).mean(axis=0)
    assert share.mean() > stays(0.2, 1.0) - 0.005


@pytest.mark.parametrize("turned", [False, True])
def test_chance_to_miss_is_at_most_what_is_stated(turned: bool) -> None:
    made = Plan(width=1.0, functions=6, tables=5)
    one, other = pairs(20, 0.2, turned)
    missed = []
    for _ in range(400):
        tables = Tables(RNG, DIMS, made, made.tables)
        missed.append((tables.keys(*one) != tables.keys(*other)).all(axis=0))
    share, stated = np.mean(missed), made.missed(0.2)
    error = np.std(np.mean(missed, axis=1)) / len(missed) ** 0.5
    assert 0.05 < stated < 0.5 and stated - 0.1 < share < stated + 4 * error


def test_plan_keeps_the_chance_and_meets_few() -> None:
    spread = RNG.uniform(0.8, 1.4, 100_000)
    for count in (20_000, 1_000_000):
        made = plan(count, 0.2, spread)
        assert made is not None and made.missed(0.2) <= MISS / 2 and made.missed(0.1) < 1e-12
        by_chance = count / 2 * np.mean([stays(d, made.width) ** made.functions for d in spread[:2000]])
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
    functions = Functions(RNG, DIMS, 200_000, 1.0)
    at = first @ functions.along[0] + np.abs(second @ functions.along[1])
    counted = np.sqrt(((at[:, None] - at[None]) ** 2).mean(axis=2))[np.triu_indices(4, 1)]
    assert seen(first, second) == pytest.approx(counted, rel=0.02)
