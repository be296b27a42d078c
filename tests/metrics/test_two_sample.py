"""The two-sample AUC and the spread within a person: hand-worked cases, planted sets, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest

from facegan.metrics.two_sample import halves_auc, spread, two_sample_auc
from facegan.metrics.verification import unit_rows


def people(count: int, shots: int, seed: int, shift: float = 0.0, within: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (count * shots, 16) of people around centres of their own, and the person codes."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(count), shots)
    rows = rng.normal(size=(count, 16))[person] + within * rng.normal(size=(count * shots, 16))
    rows[:, 0] += shift
    return unit_rows(rows).astype(np.float32), person


def test_real_people_against_real_people_are_told_by_chance() -> None:
    values = [two_sample_auc(*people(20, 4, seed), *people(20, 4, 100 + seed)) for seed in range(8)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - 0.5) < 3 * error < 0.15
    floors = [halves_auc(*people(24, 4, seed)) for seed in range(6)]
    assert abs(np.mean(floors) - 0.5) < 3 * np.std(floors) / np.sqrt(len(floors)) < 0.1


def test_a_shift_is_told_more_surely_the_larger_it_is() -> None:
    real = people(20, 4, 0)
    values = [two_sample_auc(*people(20, 4, 1, shift), *real) for shift in (0, 1, 2, 6)]
    assert values == sorted(values) and values[0] < 0.65 and values[-1] > 0.97
    mirrored = two_sample_auc(*real, *people(20, 4, 1, 2))
    assert mirrored == pytest.approx(values[2], abs=0.05)  # which of the sets is first does not matter


def test_one_person_who_is_known_by_heart_tells_nothing() -> None:
    """People and not images are left out: a classifier that knows each person by heart has not seen who is asked."""
    rows, person = people(20, 10, 3, within=0.01)
    values = [two_sample_auc(rows, person, *people(20, 10, 50 + seed, within=0.01)) for seed in range(8)]
    assert abs(np.mean(values) - 0.5) < 0.12


def test_too_few_people() -> None:
    one, many = people(1, 4, 0), people(5, 4, 1)
    assert np.isnan(two_sample_auc(*one, *many)) and np.isnan(halves_auc(*people(3, 4, 0)))
    empty = np.empty((0, 16), np.float32), np.empty(0, np.int64)
    assert np.isnan(two_sample_auc(*empty, *many)) and 0 <= two_sample_auc(*people(2, 1, 0), *many) <= 1


def test_spread_by_hand() -> None:
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.6, 0.8], [1, 0]], np.float32)
    person = np.array([0, 0, 1, 1, 2])
    # Person 0: mean (.5, .5), each row .5 away squared; person 1: twice the same; person 2: one row. 1 / (5 - 3).
    assert spread(rows, person) == pytest.approx(0.5)
    assert spread(rows[2:4], np.array([0, 0])) == 0 and np.isnan(spread(rows[:2], np.array([0, 1])))
    wide, narrow = (people(30, 5, 0, within=within) for within in (0.5, 0.1))
    assert spread(*narrow) < 0.1 * spread(*wide)
