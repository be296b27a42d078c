"""Templates searched by own photos and by strangers': hand-worked, and against the functions for all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facegan.metrics import enrolled, identification, intervals, verification
from facegan.metrics.enrolled import EnrolledScores, Searched, score_enrolled
from facegan.metrics.verification import FAILED, PairScores, unit_rows


def searched(rows: Any, person: Any, acquired: Any = None) -> Searched:
    who = np.asarray(person, np.int64)
    return Searched(np.asarray(rows, np.float32), who, np.ones(len(who), bool) if acquired is None else acquired)


def angles(*degrees: float) -> np.ndarray:
    turned = np.deg2rad(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def test_a_case_by_hand() -> None:
    templates = angles(0, 90, 180)
    own = searched(angles(10, 50, 100, 120), [0, 0, 1, 2])  # 50 is nearer to 90, 120 too
    strangers = searched(angles(270, 300), [0, 1])
    scores = score_enrolled(templates, np.ones(3, bool), own, strangers, keep=100)
    cosine = [np.cos(np.deg2rad(x)) for x in (10, 50, 10, 60)]
    assert scores.own == pytest.approx(cosine, abs=1e-6) and scores.rank.tolist() == [1, 2, 1, 2]
    assert scores.best == pytest.approx([0, 0.5], abs=1e-6) and scores.comparisons == 6
    assert scores.top == pytest.approx([0.5, 0, 0, -0.5, -np.sqrt(0.75), -1], abs=1e-6)
    assert identification.rank_k(scores.ranks) == 0.5
    assert scores.fnmr(0.55) == 0.25 and scores.fmr(0.4) == pytest.approx(1 / 6) and scores.fmr(0.6) == 0
    pairs = scores.open_set()
    assert verification.det_curve(pairs.score, pairs.genuine).frr[:-1].min() == 0.5  # two of rank 2 are never found
    # At a FAR of 1/6 one comparison of a stranger may pass: the threshold is just above 0.
    assert scores.tar_at_far(1 / 6) == 1 and scores.tar_at_far(0.1) == 0.75


def test_what_gave_no_embedding_is_never_found() -> None:
    own = searched(angles(0, 0, 90, 180), [0, 0, 1, 2], np.asarray([True, False, True, True]))
    strangers = searched(angles(0, 180), [0, 1], np.asarray([False, True]))
    scores = score_enrolled(angles(0, 90, 180), np.asarray([True, True, False]), own, strangers, keep=100)
    assert scores.own.tolist() == pytest.approx([1, FAILED, 1, FAILED]) and scores.rank.tolist() == [1, 4, 1, 4]
    assert scores.best[0] == FAILED and scores.best[1] == pytest.approx(0, abs=1e-6)  # 180 is not usable
    assert scores.fnmr(-1) == 0.5 and scores.fmr(0.9) == 0
    nan = np.full((1, 2), np.nan, np.float32)
    score_enrolled(angles(0, 90), np.ones(2, bool), searched(nan, [0], np.zeros(1, bool)), strangers, keep=5)


@pytest.mark.parametrize(("own", "strangers"), [(0, 3), (3, 0)])
def test_nobody_to_search_is_refused(own: int, strangers: int) -> None:
    with pytest.raises(ValueError, match=f"got 2 people, {own} photos of them and {strangers} of strangers"):
        people = searched(np.ones((own, 2)), np.zeros(own)), searched(np.ones((strangers, 2)), np.zeros(strangers))
        score_enrolled(angles(0, 9), np.ones(2, bool), *people, keep=5)


def drawn(seed: int, people: int = 12, others: int = 9, dim: int = 6) -> tuple[Any, Any, Any]:
    """Templates, own photos (of all but one person) and strangers', some without embedding, on a grid: scores tie."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(people, dim))
    person = rng.integers(0, people - 1, 40)
    own = np.round(centre[person] + rng.normal(size=(40, dim)))
    stranger = np.sort(rng.integers(0, others, 60))
    stranger[:others] = np.arange(others)
    strange = np.round(rng.normal(size=(60, dim)) + rng.normal(size=(others, dim))[stranger])
    return (
        np.round(centre),
        searched(own, person, rng.random(40) > 0.05),
        searched(strange, stranger, rng.random(60) > 0.05),
    )


def all_comparisons(templates: Any, own: Searched, strangers: Searched) -> PairScores:
    """The 1:1 comparisons one by one, in the form of pairs of people; strangers are numbered after the enrolled."""
    rows, n = unit_rows(templates), len(templates)
    score, genuine, first, second = [], [], [], []
    for photos, is_own in ((own, True), (strangers, False)):
        cosine = np.clip(unit_rows(np.where(photos.acquired[:, None], photos.embedding, 0)) @ rows.T, -1, 1)
        for row, person, acquired in zip(cosine, photos.person, photos.acquired, strict=True):
            for code in [person] if is_own else range(n):
                score.append(row[code] if acquired else np.float32(FAILED))
                genuine.append(is_own)
                first.append(person if is_own else n + person)
                second.append(code)
    return PairScores(*(np.asarray(x) for x in (score, genuine, first, second)))


@pytest.mark.parametrize("keep", [10_000, 400])
@pytest.mark.parametrize("first_look", [1, 2**12])
@pytest.mark.parametrize("seed", range(4))
def test_as_the_functions_for_all_pairs(seed: int, keep: int, first_look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolled, "_USUAL", 1)
    monkeypatch.setattr(enrolled, "_LEAST", first_look)
    templates, own, strangers = drawn(seed)
    scores = score_enrolled(templates, np.ones(len(templates), bool), own, strangers, keep)
    pairs = all_comparisons(templates, own, strangers)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(21, np.full(21, 1 / 21), 80).astype(np.int32)
    of_own, of_strangers = weights[:, :12], weights[:, 12:]
    for far in (0.02, 0.1):
        assert scores.tar_at_far(far) == verification.tar_at_far(pairs.score, pairs.genuine, far)
        values = scores.bootstrap_tar_at_far(far, of_own, of_strangers)
        expected = intervals.bootstrap_tar_at_far(pairs, far, weights)
        known = np.isfinite(values)
        assert values[known] == pytest.approx(expected[known], abs=1e-12)
        assert (keep == 400 and known.mean() > 0.9) or np.array_equal(known, np.isfinite(expected))
    impostors = pairs.score[~pairs.genuine]
    for threshold in (0.7, 0.95):
        assert scores.fmr(threshold) == np.mean(impostors >= threshold)
        assert scores.fnmr(threshold) == np.mean(pairs.score[pairs.genuine] < threshold)
    # Whole weights are what repeating people gives.
    repeated = scores.bootstrap_fmr(0.7, of_own, of_strangers), scores.bootstrap_fnmr(0.7, of_own)
    weight = weights[:, pairs.first] * np.where(pairs.genuine, 1, weights[:, pairs.second])
    for value, side, wrong in zip(
        repeated, (~pairs.genuine, pairs.genuine), (pairs.score >= 0.7, pairs.score < 0.7), strict=True
    ):
        assert value == pytest.approx((weight[:, side] @ wrong[side]) / weight[:, side].sum(axis=1), abs=1e-12)


def test_searches_are_those_of_the_open_set(seed: int = 5) -> None:
    """One photo of each as template: the rotation 0 of metrics.open_searches, whose own searches are all others."""
    rng = np.random.default_rng(seed)
    known, unknown = np.repeat(np.arange(6), 4), np.repeat(np.arange(6, 9), 4)
    rows = rng.normal(size=(36, 5)) + np.repeat(rng.normal(size=(9, 5)), 4, axis=0)
    expected = identification.open_searches(rows, np.append(known, unknown), np.arange(9) >= 6, np.ones(36, bool), 1)
    is_template = np.arange(24) % 4 == 0
    own = searched(rows[:24][~is_template], known[~is_template])
    scores = score_enrolled(rows[:24][is_template], np.ones(6, bool), own, searched(rows[24:], unknown - 6), keep=9)
    pairs = scores.open_set()
    for rate in (0.1, 0.5, 0.9):
        threshold = verification.threshold_at_far(pairs.score[~pairs.genuine], rate)
        assert threshold == verification.threshold_at_far(expected.pairs.score[~expected.pairs.genuine], rate)
    assert sorted(pairs.score) == pytest.approx(sorted(expected.pairs.score), abs=1e-6)


def test_memory_is_bounded_and_the_highest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    templates, own, strangers = drawn(1)
    usable = np.ones(len(templates), bool)
    whole = score_enrolled(templates, usable, own, strangers, keep=10_000)
    monkeypatch.setattr(enrolled, "_BLOCK", 30)
    few = score_enrolled(templates, usable, own, strangers, keep=50, threshold=0.6)

    def couples(scores: EnrolledScores, floor: float) -> list[tuple[float, int, int]]:
        kept = scores.top >= floor
        return sorted(zip(scores.top[kept], scores.top_stranger[kept], scores.top_person[kept], strict=True))

    assert (
        50 <= len(few.top) < len(whole.top)
        and few.floor <= 0.6
        and couples(few, few.floor) == couples(whole, few.floor)
    )
    assert (
        np.array_equal(few.own, whole.own) and np.array_equal(few.best, whole.best) and few.fmr(0.6) == whole.fmr(0.6)
    )
    with pytest.raises(ValueError, match="were not kept"):
        few.fmr(few.floor - 0.01)


def test_a_person_has_the_same_weights_in_every_set() -> None:
    both = intervals.weights_by_name(["a", "b"], 4000)
    assert np.array_equal(both[:, :1], intervals.weights_by_name(["a"], 4000))
    assert not np.array_equal(both[:, 0], both[:, 1])
    assert both.mean() == pytest.approx(1, abs=0.05) and both.var() == pytest.approx(1, abs=0.1)
