"""Membership: hand-worked cases, and a set that tells nothing."""

from __future__ import annotations

import numpy as np
import pytest

from facegan.metrics.intervals import person_weights
from facegan.metrics.membership import auc, auc_replicates, membership, tpr_at_fpr, tpr_replicates, wins


def test_auc_by_hand() -> None:
    members, others = np.array([0.9, 0.5, 0.3]), np.array([0.5, 0.2])
    # 0.9 wins both, 0.5 one and a half, 0.3 one: 4.5 of 6
    assert auc(members, others) == pytest.approx(4.5 / 6)
    assert auc(others, members) == pytest.approx(1.5 / 6)
    table = wins(members, np.array([0, 1, 1]), others, np.array([1, 0]))
    assert table.tolist() == [[1.0, 1.0], [2.0, 0.5]]


def test_photos_and_people() -> None:
    members, people = np.array([0.9, 0.1, 0.6, 0.6]), np.array([0, 0, 7, 7])  # means 0.5 and 0.6
    others, other_people = np.array([0.55, 0.55, 0.2]), np.array([1, 1, 3])  # means 0.55 and 0.2
    found = membership(members, people, others, other_people)
    assert found["photo"]["auc"] == pytest.approx((3 + 0 + 3 + 3) / 12)
    assert found["person"]["auc"] == pytest.approx(3 / 4)
    assert (found["people"], found["others"]) == (2, 2)
    assert found["person"]["interval"][0] <= 3 / 4 <= found["person"]["interval"][1]
    assert found["person"]["null"] == [0, 1]  # two others: either may be above
    assert membership(members, people, others[:2], other_people[:2])["photo"]["null"] is None


def test_a_set_that_tells_nothing_lies_in_its_null_and_one_that_tells_does_not() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(30), 4)

    def scores() -> np.ndarray:
        return np.repeat(rng.normal(size=30), 4) + rng.normal(size=120)

    nothing = membership(scores(), person, scores(), person)
    telling = membership(scores() + 2, person, scores(), person)
    for what in ("photo", "person"):
        low, high = nothing[what]["null"]
        assert low < 0.5 < high and low <= nothing[what]["auc"] <= high
        assert nothing[what]["interval"][0] < 0.5 < nothing[what]["interval"][1]
        assert telling[what]["interval"][0] > 0.7 and telling[what]["auc"] > telling[what]["null"][1]


def repeated(scores: np.ndarray, person: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores with each person's as often as the weights say, and so the people."""
    times = weights[person]
    return np.repeat(scores, times), np.repeat(person, times)


def test_tpr_at_fpr_by_hand() -> None:
    others = np.arange(100) / 100  # at 10 %: above 0.89
    assert tpr_at_fpr(np.array([0.895, 0.89, 0.5, 2.0]), others, 0.1) == 0.5
    assert tpr_at_fpr(np.array([0.9]), others, 0.09) is None  # nine could reach it


def test_replicates_are_the_figures_of_people_counted_again() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.3, 1, 60).round(1), rng.normal(0, 1, 120).round(1)  # with ties
    member_person, other_person = rng.permutation(np.repeat(np.arange(12), 5)), np.repeat(np.arange(24), 5)
    weights, other_weights = person_weights(12, 40, 1), person_weights(24, 40, 2)
    sides = members, member_person, others, other_person
    counts = np.bincount(member_person), np.bincount(other_person)
    aucs = auc_replicates(wins(*sides), *counts, weights, other_weights)
    tprs = tpr_replicates(*sides, 0.1, weights, other_weights)
    for n in range(40):
        drawn, _ = repeated(members, member_person, weights[n])
        drawn_others, _ = repeated(others, other_person, other_weights[n])
        assert aucs[n] == pytest.approx(auc(drawn, drawn_others))
        assert tprs[n] == pytest.approx(tpr_at_fpr(drawn, drawn_others, 0.1))


def test_an_empty_side_has_no_figure() -> None:
    sides = np.ones(2), np.array([0, 1]), np.zeros(2), np.array([0, 1])
    weights = np.array([[0, 0], [1, 1]], np.int32)
    with np.errstate(all="raise"):
        for one, other in ((weights, weights[::-1]), (weights[::-1], weights)):
            assert np.isnan(tpr_replicates(*sides, 0.1, one, other)).all()
            assert np.isnan(auc_replicates(wins(*sides), np.ones(2), np.ones(2), one, other)).all()
