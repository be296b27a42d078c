"""Confidence intervals: a bootstrap that resamples people, crossed with seeds, paired between arms.

The people of the test set and the units of the training (the seeds of a report, the splits of a study) are two
random samples that cross: every unit's recognizer is judged on the same people. A replicate draws people with
replacement, and all arms and units get the same draw, so that what is hard about a person cancels in a difference.
The interval is a Student t interval whose variance adds the people's part (from the replicates) and the units' part
(from the units' own values, widened where splits share train people). docs/method/intervals.md has the construction in
plain words and how well it covers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import chdtri, nctdtrinc, stdtrit

from facegan.metrics.identification import Ranks
from facegan.metrics.verification import FoldAccuracy, PairScores

Doubles = NDArray[np.float64]
Weights = NDArray[np.int32]

POWER = 0.8
"""The power at which smallest_detectable would have been shown."""

_CHUNK = 2**20  # numbers in one working array, 8 MiB: memory stays bounded whatever the number of pairs
_LEAST_REPLICATES = 50


def person_weights(n_people: int, n_boot: int, seed: int) -> Weights:
    """How often each person is drawn in each replicate: int32 (n_boot, n_people), each row sums to n_people.

    Multinomial: n_people draws with replacement. The same arguments give the same draws, which is what
    pairs the arms and the seeds. Raises ValueError for fewer than one person or replicate. Source: Efron
    1979, Annals of Statistics 7(1), with the person as the unit: the subsets bootstrap of Bolle, Ratha,
    Pankanti 2004, Computer Vision and Image Understanding 93, 1-33.
    """
    if n_people < 1 or n_boot < 1:
        raise ValueError(f"need a person and a replicate at least, got {n_people} and {n_boot}: raise them")
    draws = np.random.default_rng(seed).multinomial(n_people, np.full(n_people, 1 / n_people), size=n_boot)
    return draws.astype(np.int32)


def weights_by_name(names: Sequence[str], n_boot: int, seed: int = 0) -> Weights:
    """How often each person is drawn in each replicate, int32 (n_boot, n_people), whoever else is there.

    Poisson with mean one, from a seed of the name: a person has the same weights in every set of people, so that sets
    that share some can be compared. Source: Hanley and MacGibbon 2006, Computer Methods and Programs in Biomedicine 83,
    57-62 (Poisson in place of multinomial frequencies).
    """
    seeds = [int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") for name in names]
    draws = [np.random.default_rng(number).poisson(1, n_boot) for number in seeds]
    return np.stack(draws, axis=1).astype(np.int32)


def check_weights(weights: Weights, n_people: int) -> None:
    """Raise ValueError where the weights are not (n_boot, n_people)."""
    if weights.ndim != 2 or weights.shape[1] != n_people:
        raise ValueError(
            f"weights must be (n_boot, {n_people}) for these pairs, got {weights.shape}: make them "
            f"with person_weights({n_people}, n_boot, seed)"
        )


class _Sums(NamedTuple):
    """Weight of the pairs around each distinct genuine score g_0 < ... < g_{K-1}, for some replicates.

    FRR moves only at genuine scores, so that these points hold every corner that EER and TAR need. All are
    whole numbers in float64, which are exact whatever the order of summing or the number of threads.
    """

    rejected: Doubles  # (K, replicates) genuine pairs <= g_k; the last row is all of them
    accepted: Doubles  # (K + 1, replicates) impostor pairs >= g_k; the last row is all of them
    tied: Doubles | None  # (K, replicates) impostor pairs == g_k, None where there are none


class _Counts:
    """The pairs counted by their people and by their rank among the genuine scores."""

    def __init__(self, pairs: PairScores) -> None:
        self.n_people = n = pairs.n_people
        genuine, impostor = pairs.score[pairs.genuine], pairs.score[~pairs.genuine]
        levels, level = np.unique(genuine, return_inverse=True)
        self.n_levels = k = levels.size
        self.genuine = _table(level, pairs.first[pairs.genuine], (k, n))
        low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
        couples, couple = np.unique((low * np.int64(n) + high)[~pairs.genuine], return_inverse=True)
        self.low, self.high = couples // n, couples % n
        reach = np.searchsorted(levels, impostor, side="right")  # accepted at thresholds g_0 .. g_{reach - 1}
        self.impostor = _table(k - reach, couple, (k + 1, couples.size))
        tied = np.flatnonzero(np.isin(impostor, levels))
        self.tied = (reach[tied] - 1, couple[tied]) if tied.size else None

    def sums(self, weights: Weights) -> Iterator[tuple[slice, _Sums]]:
        """Yield slices of the replicates with their sums."""
        check_weights(weights, self.n_people)
        size = max(1, _CHUNK // (self.n_levels + self.low.size))
        for start in range(0, len(weights), size):
            rows = slice(start, start + size)
            by_person = np.ascontiguousarray(weights[rows].T, dtype=np.float64)  # (people, replicates)
            by_couple = by_person[self.low] * by_person[self.high]
            tied = None
            if self.tied is not None:
                shape = (self.n_levels, self.low.size)
                tied = csr_array((np.ones(self.tied[0].size), self.tied), shape=shape) @ by_couple
            accepted = _cumulated(self.impostor, by_couple)
            yield rows, _Sums(_cumulated(self.genuine, by_person), accepted, tied)


def _table(row: NDArray[Any], column: NDArray[Any], shape: tuple[int, int]) -> Any:
    """Counts as a matrix: where it is small a plain one, summed down its rows, else a sparse one."""
    if shape[0] * shape[1] <= _CHUNK:
        counts = np.bincount(row * np.int64(shape[1]) + column, minlength=shape[0] * shape[1])
        return np.cumsum(counts.reshape(shape), axis=0).astype(np.float64)
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _cumulated(table: Any, weights: Doubles) -> Doubles:
    product = table @ weights
    return product if isinstance(table, np.ndarray) else np.cumsum(product, axis=0, out=product)


def _take(sums: Doubles, k: NDArray[np.int64]) -> Doubles:
    return np.take_along_axis(sums, k[None], axis=0)[0]


def _before(sums: Doubles, k: NDArray[np.int64]) -> Doubles:
    return np.where(k > 0, _take(sums, np.maximum(k - 1, 0)), 0)


def crossing(far_0: Any, far_1: Any, frr_0: Any, frr_1: Any) -> Any:
    """EER from the rates at the genuine score g_k (_0) and just above it (_1), where FRR first reaches FAR.

    float or float64 (n,) each. The rule of metrics.eer: the straight line from one point to the other.
    """
    before = np.maximum(far_0 - frr_0, 0)  # 0: they crossed already, on the horizontal part below g_k
    with np.errstate(invalid="ignore"):
        tilted = far_0 + before / (before + frr_1 - far_1) * (far_1 - far_0)
    return np.where(far_0 <= frr_0, frr_0, tilted)


def bootstrap_eer(pairs: PairScores, weights: Weights) -> Doubles:
    """EER of each replicate: float64 (n_boot,).

    weights: int (n_boot, n_people), from person_weights. A genuine pair of person i weighs w_i, an impostor
    pair of i and j w_i w_j: copies of one person are never compared with each other, since they would be
    impostors who look alike. What metrics.eer gives with those weights, for all replicates at once. NaN where
    a replicate has no genuine or no impostor pair. Raises ValueError where the weights are of other people.
    Source: Bolle et al. 2004 (person as unit); both sides of an impostor pair resampled: the node bootstrap
    of Snijders and Borgatti 1999, Connections 22(2), without its self-pairs.
    """
    values = np.full(len(weights), np.nan)
    for rows, sums in _Counts(pairs).sums(weights):
        genuine, impostor = sums.rejected[-1], sums.accepted[-1]
        accepted = sums.accepted[-2::-1]  # by rising threshold
        above = accepted if sums.tied is None else accepted - sums.tied
        k = np.argmax(sums.rejected * impostor >= above * genuine, axis=0)  # first FRR >= FAR just above g_k
        with np.errstate(invalid="ignore"):
            far_0, far_1 = _take(accepted, k) / impostor, _take(above, k) / impostor
            frr_0, frr_1 = _before(sums.rejected, k) / genuine, _take(sums.rejected, k) / genuine
            values[rows] = crossing(far_0, far_1, frr_0, frr_1)
    return values


def bootstrap_tar_at_far(pairs: PairScores, far: float, weights: Weights) -> Doubles:
    """TAR at the largest empirical FAR not above `far`, of each replicate: float64 (n_boot,).

    Weights, NaN and errors as for bootstrap_eer. Whether the FAR is resolvable is asked once, of the data.
    """
    values = np.full(len(weights), np.nan)
    for rows, sums in _Counts(pairs).sums(weights):
        genuine, impostor = sums.rejected[-1], sums.accepted[-1]
        allowed = sums.accepted[-2::-1] <= far * impostor + 1e-9
        k = np.argmax(allowed, axis=0)  # the lowest threshold that keeps to `far`
        with np.errstate(invalid="ignore"):
            tar = np.where(allowed.any(axis=0), 1 - _before(sums.rejected, k) / genuine, 0)
        values[rows] = np.where((genuine > 0) & (impostor > 0), tar, np.nan)
    return values


def bootstrap_rank_k(ranks: Ranks, weights: Weights, k: int = 1) -> Doubles:
    """Share of searches found among the k best, of each replicate: float64 (n_boot,).

    The people who are searched for are resampled; the gallery stays as it is, so the interval is about other
    people searched in this gallery. NaN where no one drawn has a probe. weights: int (n_boot, n_people).
    """
    hits = np.bincount(ranks.person, weights=ranks.rank <= k, minlength=ranks.n_people)
    searched = np.bincount(ranks.person, minlength=ranks.n_people)
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ hits) / (weights @ searched), dtype=np.float64)


def bootstrap_accuracy(pairs: PairScores, accuracy: FoldAccuracy, weights: Weights) -> Doubles:
    """Verification accuracy of each replicate: float64 (n_boot,).

    Mean of the shares of genuine and of impostor pairs judged rightly, by how many there are of either, weighted as
    in bootstrap_eer; folds and thresholds stay as they are, so their choice is no part of the spread. NaN as there.
    """
    first, second = pairs.first[accuracy.pair], pairs.second[accuracy.pair]
    genuine = pairs.genuine[accuracy.pair]
    shares = []
    for side in (genuine, ~genuine):
        codes = first[side] * np.int64(pairs.n_people) + second[side]
        couples, couple = np.unique(codes, return_inverse=True)
        low, high = couples // pairs.n_people, couples % pairs.n_people
        counts = np.stack([np.bincount(couple, weights=accuracy.correct[side]), np.bincount(couple)], axis=1)
        sums = np.empty((len(weights), 2))
        size = max(1, _CHUNK // len(couples))
        for start in range(0, len(weights), size):
            chunk = weights[start : start + size]
            sums[start : start + size] = (chunk[:, low] * np.where(low == high, 1, chunk[:, high])) @ counts
        with np.errstate(invalid="ignore"):
            shares.append(sums[:, 0] / sums[:, 1])
    genuine_share = float(genuine.mean())  # a half, but for lists of pairs
    return np.asarray(genuine_share * shares[0] + (1 - genuine_share) * shares[1], dtype=np.float64)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds (in a study: over splits) with its interval, in the metric's own unit.

    ci_low <= value <= ci_high; both infinite where the data allow no interval (write null to JSON).
    standard_error = sqrt(people_error^2 + seeds_error^2); seeds_error is NaN with one seed, and the
    interval then speaks of these people only. n_boot: replicates that had both a genuine and an impostor
    pair. overlap: share of train people that two units have in common, for which seeds_error is widened.
    """

    value: float
    ci_low: float
    ci_high: float
    confidence: float
    standard_error: float
    people_error: float
    seeds_error: float
    n_people: int
    n_seeds: int
    n_boot: int
    overlap: float = 0.0


class MetricDifference(Interval):
    """An Interval of arm - baseline."""

    @property
    def delta(self) -> float:
        """Arm - baseline, mean over the seeds."""
        return self.value


class Verdict(NamedTuple):
    """The verdict on a comparison, and its reason in one sentence."""

    verdict: Literal["gain", "loss", "no gain shown"]
    reason: str


def mean_overlap(members: Sequence[Collection[str]]) -> float:
    """Mean over all pairs of units of |A and B| / sqrt(|A| |B|): 0 where none share people, 1 where all are the same.

    members: the train people of each unit, by name. It is the correlation of two units' effects where each train
    person adds one of their own, and the largest that shared train people can cause: what m people do together is
    correlated by at most overlap^m (Hoeffding 1948, Annals of Mathematical Statistics 19, 293-325, section 5). 0 for
    one unit. Raises ValueError for a unit without people.
    """
    people = [set(names) for names in members]
    if not all(people):
        raise ValueError("a unit has no train people: give the names that it learned from")
    shared = [len(a & b) / (len(a) * len(b)) ** 0.5 for a, b in combinations(people, 2)]
    return float(np.mean(shared)) if shared else 0.0


def overlap_factor(n_units: int, overlap: float) -> float:
    """How many times the variance of a mean over units is that of units which share no train people: 1 + S r / (1 - r).

    S units, correlated by r: their sample variance s^2 falls short of the true one by the factor 1 - r, and their mean
    has variance s^2 (1 / S + r / (1 - r)) in place of s^2 / S. Infinite for r = 1. Raises ValueError for r outside
    [0, 1]. Source: Nadeau and Bengio 2003, Inference for the generalization error, Machine Learning 52, 239-281,
    section 4 (there r is guessed as the share of test rows, here it is the share of train people in common).
    """
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap must lie between 0 and 1, got {overlap}: see mean_overlap")
    return np.inf if overlap == 1 else 1 + n_units * overlap / (1 - overlap)


def _mean_and_errors(
    values: Doubles, points: Doubles, n_people: int, overlap: float
) -> tuple[float, float, float, int]:
    """Mean, error from people, error from seeds or splits (NaN with one), replicates used."""
    n_seeds = len(points)
    complete = values[:, np.isfinite(values).all(axis=0)]
    n_boot = complete.shape[1]
    factor = overlap_factor(n_seeds, overlap)
    if np.isinf(factor) or n_people < 2 or n_boot < max(_LEAST_REPLICATES, values.shape[1] / 2):
        return float(points.mean()), np.inf, np.nan, n_boot
    correction = n_people / (n_people - 1)  # a bootstrap variance of n draws is (n - 1) / n of the unbiased one
    means = complete.mean(axis=0)
    people = correction * float(means.var(ddof=1))
    if n_seeds == 1:
        return float(points.mean()), people**0.5, np.nan, n_boot
    interaction = complete - means
    interaction -= interaction.mean(axis=1, keepdims=True)
    crossed = (
        correction * float(np.sum(interaction**2)) / ((n_boot - 1) * (n_seeds - 1))
    )  # people x seeds, for one seed
    seeds = factor * float(points.var(ddof=1)) / n_seeds  # holds crossed / n_seeds already, and so does people
    return float(points.mean()), max(people - crossed / n_seeds, 0.0) ** 0.5, seeds**0.5, n_boot


def _interval(values: ArrayLike, points: ArrayLike, n_people: int, confidence: float, overlap: float) -> dict[str, Any]:
    of_boot, of_data = np.asarray(values, dtype=np.float64), np.asarray(points, dtype=np.float64)
    if of_boot.ndim != 2 or of_data.ndim != 1 or len(of_boot) != len(of_data) or of_data.size == 0:
        raise ValueError(
            f"need values (n_seeds, n_boot) and points (n_seeds,), got {of_boot.shape} and {of_data.shape}: "
            "stack one row for each seed"
        )
    if not np.isfinite(of_data).all():
        raise ValueError(f"the metric is NaN for a seed: {of_data.tolist()}: ask resolvable() first")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must lie between 0.5 and 1, got {confidence}: 0.95 is usual")
    mean, people, seeds, n_boot = _mean_and_errors(of_boot, of_data, n_people, overlap)
    tail = (1 + confidence) / 2
    half_width = np.inf if np.isinf(people) else float(stdtrit(n_people - 1, tail)) * people
    if np.isfinite(seeds):
        half_width = float(np.hypot(half_width, stdtrit(len(of_data) - 1, tail) * seeds))
    error = float(np.hypot(people, np.nan_to_num(seeds)))
    return {
        "value": mean, "ci_low": mean - half_width, "ci_high": mean + half_width, "confidence": confidence,
        "standard_error": error, "people_error": people, "seeds_error": seeds,
        "n_people": n_people, "n_seeds": len(of_data), "n_boot": n_boot, "overlap": overlap,
    }  # fmt: skip


def single_interval(
    values: ArrayLike, points: ArrayLike, n_people: int, confidence: float = 0.95,
    bounds: tuple[float, float] = (0, 1), overlap: float = 0.0,
) -> Interval:  # fmt: skip
    """Interval for one arm's mean over the seeds, cut to `bounds` (the metric's range).

    values: (n_seeds, n_boot), replicates from the same weights for every seed. points: (n_seeds,), the metric
    on the data. n_people: people in the test set. Construction, overlap, NaN and errors as for paired_difference.
    """
    interval = Interval(**_interval(values, points, n_people, confidence, overlap))
    low, high = max(interval.ci_low, bounds[0]), min(interval.ci_high, bounds[1])
    return Interval(**{**interval.__dict__, "ci_low": low, "ci_high": high})


def paired_difference(
    values_arm: ArrayLike, values_baseline: ArrayLike, point_arm: ArrayLike, point_baseline: ArrayLike,
    n_people: int, confidence: float = 0.95, overlap: float = 0.0,
) -> MetricDifference:  # fmt: skip
    """Arm - baseline, mean over seeds (or splits), with an interval for other people and other seeds (or splits).

    values_*: (n_seeds, n_boot), from the SAME person_weights for both arms and all seeds; seed s of the arm
    is paired with seed s of the baseline. point_*: (n_seeds,), the metric on the data. n_people: people in
    the test set, >= 2. overlap: of train people between splits, from mean_overlap; 0 for seeds of one split, whose
    interval then speaks of its train people alone. With S seeds, n people, r the overlap, d_s the differences on the
    data, D_sb on replicate b:

        seeds   V_s = var_s(d_s) (1 / S + r / (1 - r))
        people  V_p = max(0, n / (n - 1) (var_b(mean_s D_sb) - var_sb(interaction of D_sb) / S))
        half    h   = sqrt(t_{S-1}^2 V_s + t_{n-1}^2 V_p)        interval  mean_s d_s -+ h

    Replicates that are NaN anywhere are left out; with fewer than 50 or than half left, fewer than two
    people, or an overlap of 1, the interval is infinite. One seed: V_s is unknown and left out. Raises
    ValueError for shapes that do not match, a metric that is NaN, confidence outside (0.5, 1), or overlap
    outside [0, 1]. Sources: the two crossed parts, the interaction taken off once: Hillis 2007, Statistics
    in Medicine 26, 596-619 (readers and cases there), after Dorfman, Berbaum, Metz 1992; without that it
    counts twice: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 386-411. h:
    Banerjee 1960, Sankhya 22 (each part with its own t quantile; covers at least as often as said where both
    are normal and independent). r: see overlap_factor.
    """
    arguments = (values_arm, values_baseline, point_arm, point_baseline)
    arrays = [np.asarray(array, dtype=np.float64) for array in arguments]
    if arrays[0].shape != arrays[1].shape or arrays[2].shape != arrays[3].shape:
        raise ValueError(
            f"arm and baseline must have the same seeds and replicates, got {[a.shape for a in arrays]}: "
            "score both with the same seeds and person_weights"
        )
    return MetricDifference(**_interval(arrays[0] - arrays[1], arrays[2] - arrays[3], n_people, confidence, overlap))


def smallest_detectable(difference: Interval) -> float:
    """Smallest true gain that these data would have shown four times in five, in the metric's unit.

    sqrt(k_{S-1}^2 seeds_error^2 + k_{n-1}^2 people_error^2), where k_df is the shift at which Student's t with df
    degrees of freedom passes the interval's quantile with 80 % power, over sqrt(median of chi^2_df / df), since an
    error estimated from few units is too small more often than not. It is an estimate, too small in half of all
    studies, and exact in the median where one part alone matters. Infinite where the interval is. Source: Cohen 1988,
    Statistical Power Analysis for the Behavioral Sciences, section 2 (power by the noncentral t distribution).
    """
    if not np.isfinite(difference.ci_high - difference.ci_low):
        return np.inf
    tail = (1 + difference.confidence) / 2
    people = _detectable_errors(difference.n_people - 1, tail) * difference.people_error
    if np.isnan(difference.seeds_error):
        return float(people)
    return float(np.hypot(people, _detectable_errors(difference.n_seeds - 1, tail) * difference.seeds_error))


def _detectable_errors(df: int, tail: float) -> float:
    """How many estimated standard errors a true difference must have to be found with POWER."""
    shift = nctdtrinc(df, 1 - POWER, stdtrit(df, tail))
    return float(shift / np.sqrt(chdtri(df, 0.5) / df))


def verdict(difference: Interval, better: Literal["lower", "higher"], n_seeds: int | None = None) -> Verdict:
    """Say `gain` (`loss`) only if the whole interval is on the better (worse) side and there are three seeds.

    better: which way the metric improves. n_seeds: None takes the difference's own. Anything else is `no
    gain shown`: not proof of no gain (smallest_detectable says what could have been seen). An end at
    exactly zero is not beyond it. Raises ValueError for another `better`.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better must be 'lower' or 'higher', got {better!r}: an error rate is better lower")
    seeds = difference.n_seeds if n_seeds is None else n_seeds
    low, high = difference.ci_low, difference.ci_high
    if seeds < 3:
        return Verdict("no gain shown", f"a verdict needs three seeds, this run has {seeds}")
    if not (np.isfinite(low) and np.isfinite(high)):
        why = f"from {difference.n_people} test people"
        why = "over splits that all learned from the same people" if difference.overlap == 1 else why
        return Verdict("no gain shown", f"no interval can be made {why}")
    span = f"the {difference.confidence:.0%} interval [{low:.4g}, {high:.4g}]"
    if high < 0 or low > 0:
        if (high < 0) == (better == "lower"):
            return Verdict("gain", f"{span} lies wholly on the better side")
        return Verdict("loss", f"{span} lies wholly on the worse side")
    return Verdict("no gain shown", f"{span} holds zero")
