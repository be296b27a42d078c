"""The bootstrap against the metric itself, replicate by replicate; the interval against its formula."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq
from scipy.stats import chi2
from scipy.stats import nct as noncentral
from scipy.stats import t as student

from facegan.metrics import identification, intervals, verification
from facegan.metrics.verification import PairScores, pair_scores

PEOPLE = 8


def faces(people: int, images: int = 5, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (people * images, 12) float32 around one centre each, and who they are of."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(people), images)
    points = rng.normal(size=(people, 12))[who] + spread * rng.normal(size=(len(who), 12))
    return points.astype(np.float32), who


def weight_of_pairs(pairs: PairScores, drawn: np.ndarray) -> np.ndarray:
    """w_i for a genuine pair, w_i w_j for an impostor pair."""
    return np.where(pairs.genuine, drawn[pairs.first], drawn[pairs.first] * drawn[pairs.second])


def make_pairs(decimals: int = 9, people: int = PEOPLE) -> PairScores:
    """Pairs of easy faces, with ties where decimals are few."""
    pairs = pair_scores(*faces(people))
    return PairScores(np.round(pairs.score, decimals), pairs.genuine, pairs.first, pairs.second)


@pytest.fixture
def both_tables(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Run with plain matrices, and with sparse ones and one replicate a chunk."""
    if request.param == "sparse":
        monkeypatch.setattr(intervals, "_CHUNK", 1)


tables = pytest.mark.parametrize("both_tables", ["plain", "sparse"], indirect=True)


def test_person_weights_are_draws_with_replacement() -> None:
    weights = intervals.person_weights(14, 4000, seed=3)
    assert weights.shape == (4000, 14) and weights.dtype == np.int32
    assert (weights.sum(axis=1) == 14).all() and weights.min() == 0
    assert_allclose(weights.mean(axis=0), 1, atol=0.06)
    assert_allclose(weights.var(axis=0), 13 / 14, atol=0.12)
    assert_array_equal(weights, intervals.person_weights(14, 4000, seed=3))
    assert not np.array_equal(weights, intervals.person_weights(14, 4000, seed=4))
    with pytest.raises(ValueError, match="at least"):
        intervals.person_weights(0, 10, seed=0)


@tables
@pytest.mark.parametrize("decimals", [9, 1])
@pytest.mark.usefixtures("both_tables")
def test_bootstrap_eer_is_the_weighted_eer(decimals: int) -> None:
    pairs = make_pairs(decimals)
    weights = intervals.person_weights(PEOPLE, 40, seed=0)
    expected = [verification.eer(pairs.score, pairs.genuine, weight_of_pairs(pairs, w)) for w in weights]
    assert_allclose(intervals.bootstrap_eer(pairs, weights), expected, atol=1e-12)
    assert len(set(expected)) > 20
    ones = np.ones((1, PEOPLE), dtype=np.int32)
    assert intervals.bootstrap_eer(pairs, ones)[0] == pytest.approx(verification.eer(pairs.score, pairs.genuine))


@tables
@pytest.mark.parametrize("decimals", [9, 1])
@pytest.mark.parametrize("far", [0.02, 0.1, 0.5])
@pytest.mark.usefixtures("both_tables")
def test_bootstrap_tar_is_that_of_repeated_pairs(decimals: int, far: float) -> None:
    pairs = make_pairs(decimals)
    weights = intervals.person_weights(PEOPLE, 40, seed=1)
    expected = []
    for w in weights:
        repeats = weight_of_pairs(pairs, w)
        score, genuine = np.repeat(pairs.score, repeats), np.repeat(pairs.genuine, repeats)
        expected.append(np.mean(score[genuine] >= verification.threshold_at_far(score[~genuine], far)))
    assert_allclose(intervals.bootstrap_tar_at_far(pairs, far, weights), expected, atol=1e-12)


def test_bootstrap_is_the_same_bits_on_either_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, weights = make_pairs(), intervals.person_weights(PEOPLE, 30, seed=2)
    plain = intervals.bootstrap_eer(pairs, weights)
    monkeypatch.setattr(intervals, "_CHUNK", 1)
    assert_array_equal(plain, intervals.bootstrap_eer(pairs, weights))


def test_bootstrap_rank_and_accuracy() -> None:
    embedding, who = faces(PEOPLE, spread=1.2)
    ranks, pairs = identification.search_ranks(embedding, who), pair_scores(embedding, who)
    weights = intervals.person_weights(PEOPLE, 50, seed=0)
    expected = [np.average(ranks.rank <= 2, weights=w[ranks.person]) for w in weights]
    assert_allclose(intervals.bootstrap_rank_k(ranks, weights, 2), expected)
    accuracy = verification.accuracy_10fold(pairs)
    values = intervals.bootstrap_accuracy(pairs, accuracy, weights)
    chosen = accuracy.pair
    judged = PairScores(pairs.score[chosen], pairs.genuine[chosen], pairs.first[chosen], pairs.second[chosen])
    for w, value in zip(weights, values, strict=True):
        weight = weight_of_pairs(judged, w)
        if weight[~judged.genuine].sum():
            sides = (judged.genuine, ~judged.genuine)
            shares = [np.average(accuracy.correct[side], weights=weight[side]) for side in sides]
            assert value == pytest.approx(np.mean(shares))
        else:
            assert np.isnan(value)
    ones = np.ones((1, PEOPLE), dtype=np.int32)
    assert intervals.bootstrap_accuracy(pairs, accuracy, ones)[0] == pytest.approx(accuracy.mean)


def test_replicates_without_impostor_or_genuine_pairs_are_nan() -> None:
    embedding, who = faces(3, 2)
    pairs = pair_scores(embedding[:5], who[:5])  # the third person has one image
    weights = np.array([[3, 0, 0], [0, 0, 3], [1, 1, 1], [0, 1, 2]], dtype=np.int32)
    empty = [True, True, False, False]
    assert_array_equal(np.isnan(intervals.bootstrap_eer(pairs, weights)), empty)
    assert_array_equal(np.isnan(intervals.bootstrap_tar_at_far(pairs, 0.1, weights)), empty)
    ranks = identification.search_ranks(embedding[:5], who[:5])
    assert_array_equal(np.isnan(intervals.bootstrap_rank_k(ranks, weights)), [False, True, False, False])


def test_weights_of_other_people_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n_boot, 8\)"):
        intervals.bootstrap_eer(make_pairs(), intervals.person_weights(9, 10, seed=0))


def errors_to_be_found(df: int, tail: float) -> float:
    """By scipy.stats: the shift of t with 80 % power, over the median of the estimated error."""
    shift = brentq(lambda shift: noncentral.sf(student.ppf(tail, df), df, shift) - 0.8, 0.1, 40)
    return float(shift / (chi2.median(df) / df) ** 0.5)


def test_a_gain_as_large_as_the_smallest_detectable_is_found_four_times_in_five() -> None:
    for units, overlap in ((3, 0.0), (4, 0.5), (7, 0.2)):
        rng, found = np.random.default_rng(units), []
        for _ in range(1500):
            values = rng.normal(size=units) * (1 - overlap) ** 0.5 + overlap**0.5 * rng.normal()
            same = np.repeat(values[:, None], 50, axis=1)
            found.append(intervals.paired_difference(same, 0 * same, values, 0 * values, 30, overlap=overlap))
        detectable = np.median([intervals.smallest_detectable(one) for one in found])
        assert np.mean([one.ci_high - detectable < 0 for one in found]) == pytest.approx(0.8, abs=0.04)


def test_interval_is_the_documented_formula() -> None:
    rng = np.random.default_rng(0)
    n_people, n_seeds, n_boot = 14, 3, 400
    arm, base = rng.normal(size=(2, n_seeds, n_boot)) * 0.02 + rng.normal(size=n_boot) * 0.05
    arm += rng.normal(size=n_boot) * 0.03
    point_arm, point_base = np.array([0.10, 0.12, 0.11]), np.array([0.12, 0.15, 0.12])
    interval_ = intervals.paired_difference(arm, base, point_arm, point_base, n_people, 0.9)
    difference, d = arm - base, point_arm - point_base
    crossed = difference - difference.mean(axis=0)
    crossed = crossed - crossed.mean(axis=1, keepdims=True)
    small = n_people / (n_people - 1)
    v_seeds = d.var(ddof=1) / n_seeds
    v_people = small * (
        difference.mean(axis=0).var(ddof=1) - (crossed**2).sum() / ((n_boot - 1) * (n_seeds - 1)) / n_seeds
    )
    half = np.sqrt(student.ppf(0.95, 2) ** 2 * v_seeds + student.ppf(0.95, 13) ** 2 * v_people)
    assert interval_.delta == pytest.approx(-0.02)
    assert_allclose([interval_.ci_low, interval_.ci_high], [-0.02 - half, -0.02 + half])
    assert interval_.standard_error == pytest.approx(np.sqrt(v_seeds + v_people))
    parts = [(2, interval_.seeds_error), (13, interval_.people_error)]
    smallest = np.hypot(*(errors_to_be_found(df, 0.95) * error for df, error in parts))
    assert intervals.smallest_detectable(interval_) == pytest.approx(smallest, rel=1e-5)
    assert (interval_.n_people, interval_.n_seeds, interval_.n_boot, interval_.confidence) == (14, 3, 400, 0.9)


def test_what_is_common_to_both_arms_cancels() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(size=500)  # people who are hard for everyone
    arm, base = 0.1 + hard + rng.normal(size=(2, 3, 500)) * 1e-3
    point = np.array([0.1, 0.1, 0.1])
    paired = intervals.paired_difference(arm, base, point - 0.02, point, 14)
    assert paired.people_error < 2e-3 < 0.5 < intervals.single_interval(base, point, 14).people_error


def test_identical_arms_show_no_gain() -> None:
    pairs, weights = make_pairs(), intervals.person_weights(PEOPLE, 200, seed=0)
    values = np.stack([intervals.bootstrap_eer(pairs, weights)] * 3)
    points = np.array([0.1, 0.12, 0.09])
    difference = intervals.paired_difference(values, values, points, points, PEOPLE)
    assert (difference.delta, difference.ci_low, difference.ci_high) == (0, 0, 0)
    for better in ("lower", "higher"):
        assert intervals.verdict(difference, better).verdict == "no gain shown"


def test_one_seed_and_too_few_replicates() -> None:
    values, point = np.random.default_rng(0).normal(0.1, 0.01, size=(1, 300)), np.array([0.1])
    one = intervals.single_interval(values, point, 14)
    assert np.isnan(one.seeds_error) and 0.05 < one.ci_low < 0.1 < one.ci_high < 0.15
    values[:, :100] = np.nan
    assert intervals.single_interval(values, point, 14).n_boot == 200
    values[:, :160] = np.nan
    few = intervals.single_interval(values, point, 14)
    assert (few.ci_low, few.ci_high) == (0, 1)  # nothing known but the range of the metric
    thrice, points = np.repeat(values, 3, axis=0), np.ones(3)
    none = intervals.paired_difference(thrice, thrice, points, points, n_people=14)
    assert np.isinf(none.ci_high) and np.isinf(intervals.smallest_detectable(none))
    assert "no interval" in intervals.verdict(none, "lower").reason
    assert np.isinf(intervals.paired_difference(values, values, point, point, n_people=1).ci_low)


def test_intervals_refuse_what_does_not_fit() -> None:
    values, points = np.zeros((3, 100)), np.zeros(3)
    for arguments, message in (
        ((values, values[:2], points, points, 14), "same seeds and replicates"),
        ((values, values, points[:2], points[:2], 14), "one row for each seed"),
        ((values, values, points * np.nan, points, 14), "NaN for a seed"),
        ((values, values, points, points, 14, 95), "confidence must lie"),
    ):
        with pytest.raises(ValueError, match=message):
            intervals.paired_difference(*arguments)


def interval(low: float, high: float, n_seeds: int = 3) -> intervals.MetricDifference:
    """A difference with these ends."""
    return intervals.MetricDifference((low + high) / 2, low, high, 0.95, 0.01, 0.01, 0.01, 14, n_seeds, 200)


@pytest.mark.parametrize(
    ("low", "high", "better", "seeds", "expected"),
    [
        (-0.03, -0.01, "lower", 3, "gain"),
        (-0.03, -0.01, "higher", 3, "loss"),
        (0.01, 0.03, "higher", 5, "gain"),
        (0.01, 0.03, "lower", 5, "loss"),
        (-0.03, 0.01, "lower", 5, "no gain shown"),
        (-0.03, 0.0, "lower", 5, "no gain shown"),
        (-0.03, -0.01, "lower", 2, "no gain shown"),
        (0.01, 0.03, "lower", 1, "no gain shown"),
    ],
)
def test_verdict(low: float, high: float, better: str, seeds: int, expected: str) -> None:
    result = intervals.verdict(interval(low, high, seeds), better)  # type: ignore[arg-type]
    assert result.verdict == expected and result.reason
    assert intervals.verdict(interval(low, high, 9), better, seeds).verdict == expected  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'lower' or 'higher'"):
        intervals.verdict(interval(low, high), "more")  # type: ignore[arg-type]


def test_null_is_seldom_called_a_gain() -> None:
    """Two arms that differ by people and seeds alone, many times over: at most a few verdicts."""
    rng = np.random.default_rng(5)
    gains, covered, trials, n = 0, 0, 400, 14
    weights = intervals.person_weights(n, 120, seed=0) / n
    for _ in range(trials):
        effects = rng.normal(size=n) + 0.5 * rng.normal(size=(3, n)) + 0.3 * rng.normal(size=(3, 1))
        difference = intervals.paired_difference(
            effects @ weights.T, np.zeros((3, 120)), effects.mean(axis=1), np.zeros(3), n
        )
        gains += intervals.verdict(difference, "higher").verdict == "gain"
        covered += difference.ci_low <= 0 <= difference.ci_high
    assert gains <= 0.04 * trials and 0.93 * trials <= covered < trials


def test_two_thousand_replicates_are_quick() -> None:
    pairs = pair_scores(*faces(14, 10))
    start = time.perf_counter()
    intervals.bootstrap_eer(pairs, intervals.person_weights(14, 2000, seed=0))
    assert time.perf_counter() - start < 5  # 0.1 s on one quiet core


def test_mean_overlap_by_hand() -> None:
    people = [{"a", "b", "c", "d"}, {"c", "d", "e", "f"}, {"d"}]
    assert intervals.mean_overlap(people) == pytest.approx((2 / 4 + 1 / 2 + 1 / 2) / 3)
    assert intervals.mean_overlap([{"a"}, {"b"}]) == 0 and intervals.mean_overlap([{"a", "b"}] * 3) == 1
    assert intervals.mean_overlap([{"a"}]) == 0
    with pytest.raises(ValueError, match="no train people"):
        intervals.mean_overlap([{"a"}, set()])


def test_mean_overlap_is_the_correlation_of_means_over_shared_people() -> None:
    rng = np.random.default_rng(0)
    first, second = np.arange(0, 12), np.arange(9, 14)  # 3 in common, of 12 and of 5
    effects = rng.normal(size=(100_000, 14))
    found = np.corrcoef(effects[:, first].mean(axis=1), effects[:, second].mean(axis=1))[0, 1]
    members = [set(map(str, first)), set(map(str, second))]
    assert found == pytest.approx(intervals.mean_overlap(members), abs=0.01)


def test_interval_for_shared_train_people_by_hand() -> None:
    """Four splits, differences -1 to -4: s^2 = 5/3, and r = 1/2 makes the mean's variance s^2 (1/4 + 1)."""
    points = np.array([-1.0, -2, -3, -4])
    same = np.repeat(points[:, None], 100, axis=1)  # nothing hangs on the people
    nothing = np.zeros_like(same), np.zeros_like(points)
    for overlap, factor in ((0.0, 0.25), (0.5, 1.25), (0.2, 0.5)):
        found = intervals.paired_difference(same, nothing[0], points, nothing[1], 20, overlap=overlap)
        half = 3.182446 * (5 / 3 * factor) ** 0.5
        assert (found.ci_low, found.ci_high) == pytest.approx((-2.5 - half, -2.5 + half), abs=1e-5)
        assert found.overlap == overlap and found.standard_error == pytest.approx((5 / 3 * factor) ** 0.5)
        detectable = errors_to_be_found(3, 0.975) * found.standard_error
        assert intervals.smallest_detectable(found) == pytest.approx(detectable, rel=1e-5)
    all_shared = intervals.paired_difference(same, nothing[0], points, nothing[1], 20, overlap=1.0)
    assert np.isinf(all_shared.ci_high) and "same people" in intervals.verdict(all_shared, "lower").reason
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.paired_difference(same, nothing[0], points, nothing[1], 20, overlap=1.2)


@pytest.mark.parametrize("pool", [40, 25])
def test_shared_train_people_cause_no_more_false_verdicts_than_said(pool: int) -> None:
    """Five splits learn from 20 of the pool each, and nothing but these people matters: independent of the module."""
    rng, wrong, plain_wrong, trials = np.random.default_rng(pool), 0, 0, 800
    for _ in range(trials):
        chosen = np.array([rng.permutation(pool)[:20] for _ in range(5)])
        points = rng.normal(size=pool)[chosen].mean(axis=1)
        overlap = intervals.mean_overlap([set(map(str, row)) for row in chosen])
        same, nothing = np.repeat(points[:, None], 50, axis=1), np.zeros(5)
        for r in (overlap, 0.0):
            found = intervals.paired_difference(same, 0 * same, points, nothing, 40, overlap=r)
            wrong += r > 0 and not found.ci_low <= 0 <= found.ci_high
            plain_wrong += r == 0 and not found.ci_low <= 0 <= found.ci_high
    assert 0.03 < wrong / trials < 0.07  # 5 % and 2.6 standard errors of 800
    assert plain_wrong / trials > 0.2
