"""All pairs of a test set, small or large, with the same figures from both.

A small set keeps one entry a pair (`metrics.PairScores`). From LARGE pairs on the impostor pairs pass by, some at a
time: figures depend on nothing but how many of them lie below each genuine score. For replicates they lie sorted by
score, 8 bytes each, and rates are worked out only where they are needed: the weight of the impostor pairs at or above a
threshold is w' C w, with C the counts of those pairs by (person, person). Whole numbers throughout, so both ways give
the same values but for the rounding of cosines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegan.metrics import intervals, verification
from facegan.metrics.intervals import Doubles, Weights
from facegan.metrics.verification import FoldAccuracy, Ints, OperatingCurve, PairScores

LARGE = 1_000_000
"""From so many pairs (1,415 images) on a set counts as large."""

_BLOCK = 2**22  # scores worked out at once
_SORTED = 2**24  # impostor scores sorted at once
_CHUNK = 2**20  # numbers in one working array of a replicate's search
_EXACT = 2**24  # whole numbers up to here are exact in float32
_DENSE = 8  # pairs x replicates per entry of the count matrix from which BLAS is faster than gathering


def all_pairs(embedding: ArrayLike, identity: ArrayLike, acquired: ArrayLike | None = None) -> SmallSet | LargeSet:
    """All pairs of different images, held as suits their number.

    embedding: float32 (N, d). identity: int (N,). acquired: bool (N,), None: all; the pairs of other images score
    metrics.FAILED. Raises ValueError as metrics.pair_scores.
    """
    n = len(np.asarray(embedding))
    return (LargeSet if n * (n - 1) // 2 >= LARGE else SmallSet)(embedding, identity, acquired)


class SmallSet:
    """Every pair at hand: the functions of metrics and intervals as they are."""

    def __init__(self, embedding: ArrayLike, identity: ArrayLike, acquired: ArrayLike | None = None) -> None:
        self.pairs = pairs = verification.pair_scores(embedding, identity, acquired)
        self.n_genuine, self.n_impostor, self.n_people = pairs.n_genuine, pairs.n_impostor, pairs.n_people

    def eer(self) -> float:
        """See metrics.eer."""
        return verification.eer(self.pairs.score, self.pairs.genuine)

    def tar_at_far(self, far: float) -> float | None:
        """See metrics.tar_at_far."""
        return verification.tar_at_far(self.pairs.score, self.pairs.genuine, far)

    def det_curve(self) -> OperatingCurve:
        """See metrics.det_curve."""
        return verification.det_curve(self.pairs.score, self.pairs.genuine)

    def accuracy(self, folds: int) -> FoldAccuracy:
        """See metrics.accuracy_10fold."""
        return verification.accuracy_10fold(self.pairs, folds)

    def bootstrap_eer(self, weights: Weights) -> Doubles:
        """See intervals.bootstrap_eer."""
        return intervals.bootstrap_eer(self.pairs, weights)

    def bootstrap_tar_at_far(self, far: float, weights: Weights) -> Doubles:
        """See intervals.bootstrap_tar_at_far."""
        return intervals.bootstrap_tar_at_far(self.pairs, far, weights)

    def bootstrap_accuracy(self, folds: int, weights: Weights) -> Doubles:
        """See intervals.bootstrap_accuracy."""
        return intervals.bootstrap_accuracy(self.pairs, self.accuracy(folds), weights)


class LargeSet:
    """What SmallSet gives, in bounded memory.

    The figures take some 40 bytes a genuine pair and a few blocks of scores. The first replicates sort the impostor
    pairs: 16 bytes a pair while they do and 8 afterwards, and 12 bytes an entry of the n x n counts of n people on top:
    0.70 to 0.78 GB for 21 million pairs of 3,600 people. Raises ValueError as metrics.pair_scores and metrics.eer, and
    for more than 65,535 people.
    """

    def __init__(self, embedding: ArrayLike, identity: ArrayLike, acquired: ArrayLike | None = None) -> None:
        self.embedding = np.asarray(embedding, dtype=np.float32)
        self.rows = rows = verification.unit_rows(self.embedding)
        self.person = verification.person_codes(identity, len(rows))
        self.acquired = np.ones(len(rows), bool) if acquired is None else np.asarray(acquired, dtype=bool)
        self.images = np.bincount(self.person)
        self.n_people = n = len(self.images)
        if n >= 2**16:
            raise ValueError(f"pairs of {n} people are more than can be held: test on fewer than 65536")
        self.n_genuine = int((self.images * (self.images - 1) // 2).sum())
        self.n_impostor = len(rows) * (len(rows) - 1) // 2 - self.n_genuine
        for name, count in (("genuine", self.n_genuine), ("impostor", self.n_impostor)):
            if count == 0:
                raise ValueError(f"no {name} pair among {len(rows)} images: add people with two images")
        there = self.acquired
        score, code = _sorted_pairs(rows, self.person, there, n, genuine=True)
        self.genuine, self.whose = score, (code // n).astype(np.int32)  # score rising, the person of each
        levels = np.unique(self.genuine)
        self.levels = levels  # FRR moves only here, so that these thresholds hold every corner of the curves
        self.rejected = np.append(0, np.searchsorted(self.genuine, levels, "right"))  # pairs <= level k at k + 1
        at, above = np.zeros((2, len(levels)), np.int64)
        self.lowest = float(self.genuine[0])  # of all scores
        for score in _impostors(rows, self.person, there):
            score.sort()
            self.lowest = min(self.lowest, float(score[0]))
            at += np.searchsorted(score, levels, "left")
            above += np.searchsorted(score, levels, "right")
        self.at, self.above = (np.append(rank, self.n_impostor) for rank in (at, above))  # first pair >= and > level k

    @cached_property
    def sorted_impostors(self) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Scores of the impostor pairs, rising, and the couple (first x n_people + second) of each."""
        return _sorted_pairs(self.rows, self.person, self.acquired, self.n_people, genuine=False)

    def eer(self) -> float:
        """See metrics.eer."""
        frr = self.rejected / self.n_genuine
        k = int(np.argmax(self.rejected[1:] * self.n_impostor >= (self.n_impostor - self.above[:-1]) * self.n_genuine))
        if self.levels[k] == verification.FAILED:
            return float("nan")
        far = [1 - rank[k] / self.n_impostor for rank in (self.at, self.above)]
        return float(intervals.crossing(far[0], far[1], frr[k], frr[k + 1]))

    def tar_at_far(self, far: float) -> float | None:
        """See metrics.tar_at_far."""
        if not verification.resolvable(far, self.n_impostor).ok:
            return None
        # The lowest level that so few impostor pairs reach; at the end of `at` there are none.
        few = self.n_impostor - self.at <= verification.allowed_at_far(far, self.n_impostor)
        return float((self.n_genuine - self.rejected[int(np.argmax(few))]) / self.n_genuine)

    def det_curve(self) -> OperatingCurve:
        """See metrics.det_curve; of the operating points only those at the genuine scores."""
        thresholds = np.concatenate([[np.inf], self.levels[::-1], [self.lowest]])
        far = np.concatenate([[0], 1 - self.at[-2::-1] / self.n_impostor, [1]])
        frr = np.concatenate([[1], self.rejected[-2::-1] / self.n_genuine, [0]])
        return verification.thinned(OperatingCurve(thresholds, far, frr))

    def _within_folds(self, folds: int) -> PairScores:
        """The pairs of people of one fold, in the order that metrics.pair_scores has within each."""
        fold = verification.deal_people(self.images > 1, folds)
        parts = []
        for k in range(int(fold.max()) + 1):
            at = np.flatnonzero(fold[self.person] == k)
            part, people = self._pairs_of(at), np.unique(self.person[at])
            parts.append((part.score, part.genuine, people[part.first], people[part.second]))
        score, genuine, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
        return PairScores(score, genuine, first, second)

    def _pairs_of(self, at: NDArray[np.int64]) -> PairScores:
        return verification.pair_scores(self.embedding[at], self.person[at], self.acquired[at])

    def accuracy(self, folds: int) -> FoldAccuracy:
        """See metrics.accuracy_10fold: the same pairs are drawn, `pair` says where within the folds."""
        return verification.accuracy_10fold(self._within_folds(folds), folds)

    def bootstrap_eer(self, weights: Weights) -> Doubles:
        """See intervals.bootstrap_eer."""
        drawn = _Drawn(self, weights)
        values = np.full(len(weights), np.nan)

        def crossed(k: int, rows: Ints, above: Doubles) -> Any:
            return drawn.rejected(k, rows) * drawn.impostor[rows] >= above * drawn.genuine[rows]

        for k, rows, above in drawn.first_level(self.above, crossed):
            genuine, impostor = drawn.genuine[rows], drawn.impostor[rows]
            accepted = above + drawn.between(self.at[k], self.above[k], rows)
            frr = drawn.rejected(k - 1, rows) / genuine, drawn.rejected(k, rows) / genuine
            values[rows] = intervals.crossing(accepted / impostor, above / impostor, *frr)
        return values

    def bootstrap_tar_at_far(self, far: float, weights: Weights) -> Doubles:
        """See intervals.bootstrap_tar_at_far."""
        drawn = _Drawn(self, weights)
        values = np.full(len(weights), np.nan)

        def few(k: int, rows: Ints, accepted: Doubles) -> Any:
            return accepted <= far * drawn.impostor[rows] + 1e-9

        for k, rows, _ in drawn.first_level(self.at, few):
            values[rows] = 1 - drawn.rejected(k - 1, rows) / drawn.genuine[rows]
        return values

    def bootstrap_accuracy(self, folds: int, weights: Weights) -> Doubles:
        """See intervals.bootstrap_accuracy."""
        within = self._within_folds(folds)
        return intervals.bootstrap_accuracy(within, verification.accuracy_10fold(within, folds), weights)


def _impostors(
    rows: NDArray[np.float32], person: Ints, acquired: verification.Bools
) -> Iterator[NDArray[np.float32]]:  # fmt: skip
    """Cosines of the impostor pairs, by the products that `_sorted_pairs` makes, some blocks of them at a time."""
    size = max(1, _BLOCK // len(rows))
    some: list[NDArray[np.float32]] = []
    for start in range(0, len(rows) - 1, size):
        block = np.arange(start, min(start + size, len(rows)))  # a copy: all rows with themselves round otherwise
        score = (rows[block] @ rows.T)[:, start + 1 :]  # the others are earlier ones
        np.clip(score, -1, 1, out=score)
        score[~acquired[block]] = verification.FAILED
        score[:, ~acquired[start + 1 :]] = verification.FAILED
        other = person[block, None] != person[start + 1 :]
        other[:, : len(score)] &= np.tri(len(score), dtype=bool).T[:, : other.shape[1]]  # each pair once
        some.append(score[other])
        if sum(map(len, some)) >= _SORTED:
            yield np.concatenate(some)
            some = []
    if any(map(len, some)):
        yield np.concatenate(some)


def _sorted_pairs(
    rows: NDArray[np.float32], person: Ints, acquired: verification.Bools, n_people: int, genuine: bool
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Cosines of the genuine or the impostor pairs, rising, and the couple (first x n_people + second) of each.

    Score and couple are packed into one uint64 that sorts like the score: a quarter of an argsort's memory.
    """
    size = max(1, _BLOCK // len(rows))
    found = []
    for start in range(0, len(rows) - 1, size):
        block = np.arange(start, min(start + size, len(rows)))
        later = np.arange(len(rows)) > block[:, None]
        i, j = np.nonzero(later & ((person[block, None] == person) == genuine))
        score = np.clip((rows[block] @ rows.T)[i, j], -1, 1) + np.float32(0)  # no -0
        score[~(acquired[block][i] & acquired[j])] = verification.FAILED
        bits = score.view(np.uint32)
        rising = np.where(bits >> 31, ~bits, bits | np.uint32(2**31)).astype(np.uint64)
        couple = person[block][i].astype(np.uint64) * np.uint64(n_people) + person[j].astype(np.uint64)
        found.append(rising << np.uint64(32) | couple)
    key = np.concatenate(found)
    del found
    key.sort()
    bits = (key >> np.uint64(32)).astype(np.uint32)
    score = np.where(bits >> 31, bits & np.uint32(2**31 - 1), ~bits).astype(np.uint32).view(np.float32)
    return score, key.astype(np.uint32)  # the lower half


@dataclass
class _Drawn:
    """The pairs as replicates weigh them: a genuine pair of i by w_i, an impostor pair of i and j by w_i w_j."""

    pairs: LargeSet
    weights: Weights

    def __post_init__(self) -> None:
        pairs, weights = self.pairs, self.weights
        intervals.check_weights(weights, pairs.n_people)
        images = pairs.images.astype(np.float64)
        self.one = np.ascontiguousarray(weights.T, dtype=np.float64)  # (people, replicates)
        self.genuine = (images * (images - 1) / 2) @ self.one
        self.impostor = ((images @ self.one) ** 2 - images**2 @ self.one**2) / 2
        exact = (images @ self.one).max() * images.max() < _EXACT  # no entry of W C is larger
        self.flat = weights.astype(np.float32 if exact else np.float64)

    def rejected(self, k: int, rows: Ints) -> Doubles:
        """Weight of the genuine pairs <= level k in the replicates `rows`."""
        counts = np.bincount(self.pairs.whose[: self.pairs.rejected[k + 1]], minlength=self.pairs.n_people)
        return np.asarray(self.weights[rows] @ counts, dtype=np.float64)

    def between(self, low: int, high: int, rows: Ints) -> Doubles:
        """Weight of the impostor pairs of rank low .. high - 1 in the replicates `rows`: w' C w."""
        n, couple = self.pairs.n_people, self.pairs.sorted_impostors[1][low:high]
        if len(couple) * len(rows) > _DENSE * n * n:
            counts = np.bincount(couple, minlength=n * n).astype(self.flat.dtype).reshape(n, n)
            return np.asarray(((self.flat[rows] @ counts).astype(np.float64) * self.weights[rows]).sum(axis=1))
        total = np.zeros(len(rows))
        size = max(1, _CHUNK // len(rows))
        for start in range(0, len(couple), size):
            part = couple[start : start + size]
            total += np.einsum("pb,pb->b", self.one[np.ix_(part // n, rows)], self.one[np.ix_(part % n, rows)])
        return total

    def first_level(
        self, ranks: NDArray[np.int64], passes: Callable[[int, Ints, Doubles], Any]
    ) -> Iterator[tuple[int, Ints, Doubles]]:
        """For each replicate the first level k that `passes`, found by halving; yields (k, rows, weight).

        ranks: int (K + 1,), rank of the first impostor pair that level k accepts; level K accepts none and
        always passes. passes(k, rows, weight) -> bool (rows,), weight being that of the accepted pairs; false
        up to some level and true from there. Replicates that still agree are worked on together; those without
        a genuine or an impostor pair are left out.
        """
        whole = np.flatnonzero((self.genuine > 0) & (self.impostor > 0)).astype(np.int32)
        left = [(-1, len(ranks) - 1, whole, np.zeros(len(whole)))]
        while left:
            low, high, rows, weight = left.pop()
            if len(rows) == 0:
                continue
            if high - low == 1:
                yield high, rows, weight
                continue
            middle = (low + high) // 2
            more = weight + self.between(ranks[middle], ranks[high], rows)
            good = passes(middle, rows, more)
            left += [(low, middle, rows[good], more[good]), (middle, high, rows[~good], weight[~good])]
