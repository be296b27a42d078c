"""Metrics against scikit-learn, cases worked by hand, and properties that must hold."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_curve

from facegan.metrics import verification
from facegan.metrics.verification import PairScores, pair_scores


def faces(people: int = 8, images: int = 5, spread: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (people * images, 12) float32 around one centre each, and who they are of."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), images)
    points = rng.normal(size=(people, 12))[who] + spread * rng.normal(size=(len(who), 12))
    return points.astype(np.float32), who


def tied_scores(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, genuine flags and weights 0 to 3."""
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.4
    return np.round(rng.normal(size=n) + genuine, 1), genuine, rng.integers(0, 4, n)


def test_pairs_are_each_once_without_self() -> None:
    embedding = np.array([[1, 0], [0, 2], [3, 3], [-1, 0]], dtype=np.float32)
    pairs = pair_scores(embedding, np.array([7, 3, 7, 9]))
    half = np.sqrt(0.5)
    assert_allclose(pairs.score, [0, half, -1, half, 0, -half], atol=1e-6)
    assert_array_equal(pairs.genuine, [False, True, False, False, False, False])
    assert_array_equal(pairs.first, [1, 1, 1, 0, 0, 1])  # 3, 7, 9 are people 0, 1, 2
    assert_array_equal(pairs.second, [0, 1, 2, 1, 2, 2])
    assert (pairs.n_people, pairs.n_genuine, pairs.n_impostor) == (3, 1, 5)
    assert pairs.score.dtype == np.float32 and pairs.first.dtype == np.int32


def test_pairs_refuse_what_is_not_an_embedding() -> None:
    for embedding, identity, message in (
        (np.ones((3, 2)), [0, 1], "one code for each of 3"),
        (np.ones(3), [0, 1, 2], "must be"),
        (np.ones((1, 2)), [0], "at least two images"),
        (np.array([[np.nan, 1], [1, 1]]), [0, 1], "1 of 2 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            pair_scores(embedding, identity)
    assert_array_equal(pair_scores(np.zeros((2, 3)), [0, 0]).score, [0])  # no direction: alike to nothing


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_operating_curve_is_that_of_scikit_learn(seed: int, weighted: bool) -> None:
    score, genuine, weight = tied_scores(seed)
    weights = weight if weighted else None
    curve = verification.operating_curve(score, genuine, weights)
    fpr, tpr, thresholds = roc_curve(genuine, score, sample_weight=weights, drop_intermediate=False)
    kept = np.isin(curve.thresholds, thresholds)  # scikit-learn leaves out pairs without a weight
    assert weighted or kept.all()
    assert_allclose(curve.far[kept], fpr)
    assert_allclose(curve.frr[kept], 1 - tpr, atol=1e-12)
    assert (curve.far[0], curve.frr[0]) == (0, 1) and (curve.far[-1], curve.frr[-1]) == (1, 0)


def test_eer_by_hand() -> None:
    genuine = np.array([True] * 4 + [False] * 4)
    assert verification.eer([9, 8, 7, 6, 4, 3, 2, 1], genuine) == 0
    assert verification.eer([4, 3, 2, 1, 9, 8, 7, 6], genuine) == 1
    assert verification.eer([9, 8, 7, 3, 6, 2, 1, 0], genuine) == 0.25  # one of four on the wrong side, either way
    assert verification.eer([1] * 8, genuine) == 0.5  # all tied: the line from (0, 1) to (1, 0)
    # three genuine, two impostors: FAR jumps from 0 to 1/2 where FRR stands at 1/3
    assert verification.eer([5, 4, 1, 3, 0], np.array([1, 1, 1, 0, 0])) == pytest.approx(1 / 3)
    # tie of one genuine and one impostor: from (0, 2/3) to (1/2, 1/3) the rates cross at 2/5
    assert verification.eer([5, 3, 2, 3, 0], np.array([1, 1, 1, 0, 0])) == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(5))
def test_integer_weights_are_repeated_pairs(seed: int) -> None:
    score, genuine, weight = tied_scores(seed)
    repeated = verification.eer(np.repeat(score, weight), np.repeat(genuine, weight))
    assert verification.eer(score, genuine, weight) == pytest.approx(repeated, abs=1e-12)
    assert verification.eer(score, genuine, np.ones(300)) == verification.eer(score, genuine)
    assert verification.eer(score, genuine, 2.5 * weight) == pytest.approx(repeated, abs=1e-12)


def test_curve_refuses_what_has_no_meaning() -> None:
    for score, genuine, weight, message in (
        ([1, 2], [True], None, "one length"),
        ([1, np.nan], [True, False], None, "1 of 2 scores"),
        ([1, 2], [True, False], [1, -1], "not negative"),
        ([1, 2], [True, False], [1, 0], "no impostor pair"),
        ([1, 2], [False, False], None, "no genuine pair"),
    ):
        with pytest.raises(ValueError, match=message):
            verification.operating_curve(score, genuine, weight)


def test_far_below_resolution_has_no_value() -> None:
    assert verification.resolvable(0.01, 1000) == (True, "")
    assert verification.resolvable(0.01, 999) == (False, "not resolvable with 999 impostor pairs")
    assert verification.resolvable(0.001, 10_000).ok  # 0.001 * 10000 is 10 whatever the rounding
    score = np.arange(1000.0)
    genuine = score % 2 == 0
    assert verification.tar_at_far(score, genuine, 0.019) is None
    assert verification.tar_at_far(score, genuine, 0.02) is not None
    with pytest.raises(ValueError, match="between 0 and 1"):
        verification.resolvable(0, 100)


def test_tar_at_largest_far_not_above_the_target() -> None:
    score = np.concatenate([np.arange(100.0), [99.5, 97.5, 88.5, 0.5]])
    genuine = np.arange(104) >= 100
    assert verification.tar_at_far(score, genuine, 0.10) == 0.5  # ten impostors pass: 90 .. 99, and not 89
    assert verification.tar_at_far(score, genuine, 0.1099) == 0.5
    assert verification.tar_at_far(score, genuine, 0.11) == 0.75
    score[80:95] = 89  # a tie moves as one: now FAR is 5 % or 20 %
    assert verification.tar_at_far(score, genuine, 0.19) == 0.5
    assert verification.tar_at_far(score, genuine, 0.20) == 0.75


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threshold_keeps_to_its_far(dtype: type) -> None:
    rng = np.random.default_rng(0)
    score: np.ndarray = np.round(rng.random(997), 2).astype(dtype)
    for far in (0, 0.001, 0.05, 0.29, 0.5, 0.99):
        threshold = verification.threshold_at_far(score, far)
        assert np.mean(score >= threshold) <= far
        lower = score[score < threshold].max()  # the next that there is lets too many in
        assert np.mean(score >= lower) > far
    assert np.sum(np.arange(100.0) >= verification.threshold_at_far(np.arange(100.0), 0.29)) == 29
    with pytest.raises(ValueError, match="finite impostor scores"):
        verification.threshold_at_far([], 0.1)


def test_det_is_thinned_and_keeps_its_ends() -> None:
    pairs = pair_scores(*faces(20, 6))
    whole = verification.operating_curve(pairs.score, pairs.genuine)
    curve = verification.det_curve(pairs.score, pairs.genuine)
    assert 100 < curve.far.size <= 500 < whole.far.size
    assert (curve.far[0], curve.frr[0], curve.far[-1], curve.frr[-1]) == (0, 1, 1, 0)
    assert (np.diff(curve.far) >= 0).all() and (np.diff(curve.frr) <= 0).all()
    assert set(zip(curve.far, curve.frr, strict=True)) <= set(zip(whole.far, whole.frr, strict=True))
    assert verification.det_curve(pairs.score[:50], pairs.genuine[:50]).far.size == 51
    assert verification.det_curve(pairs.score, pairs.genuine, max_points=2).far.size == 2


@pytest.mark.parametrize(("people", "expected"), [(4, 2), (14, 7), (20, 10), (33, 10)])
def test_folds_share_no_person(people: int, expected: int) -> None:
    pairs = pair_scores(*faces(people, 3))
    accuracy = verification.accuracy_10fold(pairs)
    assert accuracy.n_folds == expected and accuracy.n_pairs == len(accuracy.pair) == len(set(accuracy.pair))
    of_fold = verification.person_folds(pairs)
    first, second = of_fold[pairs.first[accuracy.pair]], of_fold[pairs.second[accuracy.pair]]
    assert_array_equal(first, second)
    assert_array_equal(first, accuracy.fold)
    for k in range(expected):
        assert np.mean(pairs.genuine[accuracy.pair][accuracy.fold == k]) == 0.5
    again = verification.accuracy_10fold(pairs)
    assert_array_equal(accuracy.pair, again.pair)
    assert accuracy.mean == again.mean != 0.5
    assert not np.array_equal(accuracy.pair, verification.accuracy_10fold(pairs, seed=1).pair)


def test_folds_with_single_images_and_too_few_people() -> None:
    embedding, who = faces(6, 3)
    keep = np.flatnonzero((who < 3) | (np.arange(18) % 3 == 0))  # three people with three, three with one
    accuracy = verification.accuracy_10fold(pair_scores(embedding[keep], who[keep]))
    assert accuracy.n_folds == 3 and np.bincount(accuracy.fold).min() >= 2
    with pytest.raises(ValueError, match="folds need four people"):
        verification.accuracy_10fold(pair_scores(*faces(3, 3)))


def test_accuracy_of_the_perfect_and_of_the_blind() -> None:
    who = np.repeat(np.arange(10), 4)
    assert verification.accuracy_10fold(pair_scores(np.eye(10)[who], who)).mean == 1
    assert verification.accuracy_10fold(pair_scores(np.ones((40, 3)), who)).mean == 0.5
    noise = np.random.default_rng(0).normal(size=(40, 8))
    assert abs(verification.accuracy_10fold(pair_scores(noise, who)).mean - 0.5) < 0.12


def test_fold_threshold_comes_from_the_other_folds() -> None:
    pairs = pair_scores(*faces(4, 3, spread=0.05))
    of_fold = verification.person_folds(pairs)
    shifted = np.where(of_fold[pairs.first] == 0, pairs.score + 5, pairs.score).astype(np.float32)
    accuracy = verification.accuracy_10fold(PairScores(shifted, pairs.genuine, pairs.first, pairs.second))
    # each fold is separable, yet with the other's threshold all of its pairs fall on one side
    assert accuracy.mean == 0.5 and accuracy.std_error == 0


def test_metrics_import_no_torch() -> None:
    code = "import sys; import facegan.metrics.verification; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
