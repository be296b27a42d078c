"""All pairs of a test set, small or large, with the same figures from both.

A small set keeps one entry a pair (`metrics.PairScores`). From LARGE pairs on the impostor pairs are computed in blocks
and dropped: figures depend only on how many of them lie below each genuine score. For replicates they are kept sorted
by score, 8 bytes each, and rates are computed only where they are needed: the weight of the impostor pairs at or above
a threshold is w' C w, with C the counts of those pairs by (person, person). All are whole numbers, so both ways give
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
"""A set of this many pairs (1,415 images) or more counts as large."""

_SORTED_AT_ONCE = 2**24  # impostor scores sorted at once
_CHUNK = 2**20  # numbers in one working array of a replicate's search
_EXACT = 2**24  # whole numbers up to here are exact in float32
_DENSE = 8  # pairs x replicates per entry of the count matrix from which BLAS is faster than gathering


def all_pairs(embedding: ArrayLike, identity: ArrayLike, acquired: ArrayLike | None = None) -> SmallSet | LargeSet:
    """All pairs of different images, as a SmallSet or a LargeSet by their number.

    embedding: float32 (N, d). identity: int (N,). acquired: bool (N,), None: all; the pairs of other images score
    metrics.FAILED. Raises ValueError as metrics.pair_scores.
    """
    n = len(np.asarray(embedding))
    return (LargeSet if n * (n - 1) // 2 >= LARGE else SmallSet)(embedding, identity, acquired)


class SmallSet:
    """Every pair in memory, for the functions of metrics and intervals."""

    def __init__(self, embedding: ArrayLike, identity: ArrayLike, acquired: ArrayLike | None = None) -> None:
        self._keep(verification.pair_scores(embedding, identity, acquired))

    @classmethod
    def of(cls, pairs: PairScores) -> SmallSet:
        """Of pairs that were scored already, and need not be all."""
        these = cls.__new__(cls)
        these._keep(pairs)
        return these

    def _keep(self, pairs: PairScores) -> None:
        self.pairs = pairs
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
    """The interface of SmallSet, in bounded memory.

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
        score, code = _sorted_pairs(rows, self.person, self.acquired, n, genuine=True)
        self.genuine, self.genuine_person = score, (code // n).astype(np.int32)  # score rising, the person of each
        levels = np.unique(self.genuine)
        self.levels = levels  # FRR moves only here, so that these thresholds hold every corner of the curves
        self.rejected = np.append(0, np.searchsorted(self.genuine, levels, "right"))  # pairs <= level k at k + 1
        at, above = np.zeros((2, len(levels)), np.int64)
        self.lowest = float(self.genuine[0])  # of all scores
        for score in _impostors(rows, self.person, self.acquired):
            score.sort()
            self.lowest = min(self.lowest, float(score[0]))
            at += np.searchsorted(score, levels, "left")
            above += np.searchsorted(score, levels, "right")
        # Ranks of the first impostor pair >= and > level k.
        self.rank_at, self.rank_above = (np.append(rank, self.n_impostor) for rank in (at, above))

    @cached_property
    def sorted_impostors(self) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Scores of the impostor pairs, rising, and the couple (first x n_people + second) of each."""
        return _sorted_pairs(self.rows, self.person, self.acquired, self.n_people, genuine=False)

    def eer(self) -> float:
        """See metrics.eer."""
        frr = self.rejected / self.n_genuine
        above = self.n_impostor - self.rank_above[:-1]
        k = int(np.argmax(self.rejected[1:] * self.n_impostor >= above * self.n_genuine))
        if self.levels[k] == verification.FAILED:
            return float("nan")
        far = [1 - rank[k] / self.n_impostor for rank in (self.rank_at, self.rank_above)]
        return float(intervals.crossing(far[0], far[1], frr[k], frr[k + 1]))

    def tar_at_far(self, far: float) -> float | None:
        """See metrics.tar_at_far."""
        if not verification.resolvable(far, self.n_impostor).ok:
            return None
        # The lowest level that at most so many impostor pairs reach; none reach the last entry of `rank_at`.
        allowed = self.n_impostor - self.rank_at <= verification.allowed_at_far(far, self.n_impostor)
        return float((self.n_genuine - self.rejected[int(np.argmax(allowed))]) / self.n_genuine)

    def det_curve(self) -> OperatingCurve:
        """See metrics.det_curve; of the operating points only those at the genuine scores."""
        thresholds = np.concatenate([[np.inf], self.levels[::-1], [self.lowest]])
        far = np.concatenate([[0], 1 - self.rank_at[-2::-1] / self.n_impostor, [1]])
        frr = np.concatenate([[1], self.rejected[-2::-1] / self.n_genuine, [0]])
        return verification.thinned(OperatingCurve(thresholds, far, frr))

    def _within_folds(self, folds: int) -> PairScores:
        """The pairs of people of one fold, in the order that metrics.pair_scores has within each."""
        fold = verification.deal_people(self.images > 1, folds)
        parts = []
        for k in range(int(fold.max()) + 1):
            images = np.flatnonzero(fold[self.person] == k)
            part, people = self._pairs_of(images), np.unique(self.person[images])
            parts.append((part.score, part.genuine, people[part.first], people[part.second]))
        score, genuine, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
        return PairScores(score, genuine, first, second)

    def _pairs_of(self, images: NDArray[np.int64]) -> PairScores:
        return verification.pair_scores(self.embedding[images], self.person[images], self.acquired[images])

    def accuracy(self, folds: int) -> FoldAccuracy:
        """See metrics.accuracy_10fold: the same pairs are drawn, `pair` says where within the folds."""
        return verification.accuracy_10fold(self._within_folds(folds), folds)

    def bootstrap_eer(self, weights: Weights) -> Doubles:
        """See intervals.bootstrap_eer."""
        weighted = _WeightedPairs(self, weights)
        values = np.full(len(weights), np.nan)

        def crossed(k: int, rows: Ints, above: Doubles) -> Any:
            return weighted.rejected(k, rows) * weighted.impostor[rows] >= above * weighted.genuine[rows]

        for k, rows, above in weighted.first_level(self.rank_above, crossed):
            genuine, impostor = weighted.genuine[rows], weighted.impostor[rows]
            accepted = above + weighted.between(self.rank_at[k], self.rank_above[k], rows)
            frr = weighted.rejected(k - 1, rows) / genuine, weighted.rejected(k, rows) / genuine
            values[rows] = intervals.crossing(accepted / impostor, above / impostor, *frr)
        return values

    def bootstrap_tar_at_far(self, far: float, weights: Weights) -> Doubles:
        """See intervals.bootstrap_tar_at_far."""
        weighted = _WeightedPairs(self, weights)
        values = np.full(len(weights), np.nan)

        def allowed(k: int, rows: Ints, accepted: Doubles) -> Any:
            return accepted <= far * weighted.impostor[rows] + 1e-9

        for k, rows, _ in weighted.first_level(self.rank_at, allowed):
            values[rows] = 1 - weighted.rejected(k - 1, rows) / weighted.genuine[rows]
        return values

    def bootstrap_accuracy(self, folds: int, weights: Weights) -> Doubles:
        """See intervals.bootstrap_accuracy."""
        within = self._within_folds(folds)
        return intervals.bootstrap_accuracy(within, verification.accuracy_10fold(within, folds), weights)


def _impostors(
    rows: NDArray[np.float32], person: Ints, acquired: verification.Bools
) -> Iterator[NDArray[np.float32]]:  # fmt: skip
    """Cosines of the impostor pairs, several blocks at a time."""
    scores: list[NDArray[np.float32]] = []
    for block, cosine in verification.cosines_in_blocks(rows):
        start = block[0]
        score = cosine[:, start + 1 :]  # the others are earlier ones
        np.clip(score, -1, 1, out=score)
        score[~acquired[block]] = verification.FAILED
        score[:, ~acquired[start + 1 :]] = verification.FAILED
        impostor = person[block, None] != person[start + 1 :]
        impostor[:, : len(score)] &= np.tri(len(score), dtype=bool).T[:, : impostor.shape[1]]  # each pair once
        scores.append(score[impostor])
        if sum(map(len, scores)) >= _SORTED_AT_ONCE:
            yield np.concatenate(scores)
            scores = []
    if any(map(len, scores)):
        yield np.concatenate(scores)


def _sorted_pairs(
    rows: NDArray[np.float32], person: Ints, acquired: verification.Bools, n_people: int, genuine: bool
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Cosines of the genuine or the impostor pairs, rising, and the couple (first x n_people + second) of each.

    Score and couple are packed into one uint64 that sorts like the score: a quarter of an argsort's memory.
    """
    keys = []
    for block, cosine in verification.cosines_in_blocks(rows):
        later = np.arange(len(rows)) > block[:, None]
        i, j = np.nonzero(later & ((person[block, None] == person) == genuine))
        score = np.clip(cosine[i, j], -1, 1) + np.float32(0)  # no -0
        score[~(acquired[block][i] & acquired[j])] = verification.FAILED
        bits = score.view(np.uint32)
        rising = np.where(bits >> 31, ~bits, bits | np.uint32(2**31)).astype(np.uint64)
        couple = person[block][i].astype(np.uint64) * np.uint64(n_people) + person[j].astype(np.uint64)
        keys.append(rising << np.uint64(32) | couple)
    key = np.concatenate(keys)
    del keys
    key.sort()
    bits = (key >> np.uint64(32)).astype(np.uint32)
    score = np.where(bits >> 31, bits & np.uint32(2**31 - 1), ~bits).astype(np.uint32).view(np.float32)
    return score, key.astype(np.uint32)  # the lower half


@dataclass
class _WeightedPairs:
    """The pairs as weighted by replicates: a genuine pair of i by w_i, an impostor pair of i and j by w_i w_j."""

    pairs: LargeSet
    weights: Weights

    def __post_init__(self) -> None:
        pairs, weights = self.pairs, self.weights
        intervals.check_weights(weights, pairs.n_people)
        images = pairs.images.astype(np.float64)
        self.by_person = np.ascontiguousarray(weights.T, dtype=np.float64)  # (people, replicates)
        self.genuine = (images * (images - 1) / 2) @ self.by_person
        self.impostor = ((images @ self.by_person) ** 2 - images**2 @ self.by_person**2) / 2
        exact = (images @ self.by_person).max() * images.max() < _EXACT  # no entry of W C is larger
        self.by_replicate = weights.astype(np.float32 if exact else np.float64)

    def rejected(self, k: int, rows: Ints) -> Doubles:
        """Weight of the genuine pairs <= level k in the replicates `rows`."""
        counts = np.bincount(self.pairs.genuine_person[: self.pairs.rejected[k + 1]], minlength=self.pairs.n_people)
        return np.asarray(self.weights[rows] @ counts, dtype=np.float64)

    def between(self, low: int, high: int, rows: Ints) -> Doubles:
        """Weight of the impostor pairs of rank low .. high - 1 in the replicates `rows`: w' C w."""
        n, couple = self.pairs.n_people, self.pairs.sorted_impostors[1][low:high]
        if len(couple) * len(rows) > _DENSE * n * n:
            counts = np.bincount(couple, minlength=n * n).astype(self.by_replicate.dtype).reshape(n, n)
            return np.asarray(((self.by_replicate[rows] @ counts).astype(np.float64) * self.weights[rows]).sum(axis=1))
        total = np.zeros(len(rows))
        size = max(1, _CHUNK // len(rows))
        for start in range(0, len(couple), size):
            part = couple[start : start + size]
            total += np.einsum(
                "pb,pb->b", self.by_person[np.ix_(part // n, rows)], self.by_person[np.ix_(part % n, rows)]
            )
        return total

    def first_level(
        self, ranks: NDArray[np.int64], passes: Callable[[int, Ints, Doubles], Any]
    ) -> Iterator[tuple[int, Ints, Doubles]]:
        """For each replicate the first level k that `passes`, by bisection; yields (k, rows, weight).

        ranks: int (K + 1,), rank of the first impostor pair that level k accepts; level K accepts none and
        always passes. passes(k, rows, weight) -> bool (rows,), weight being that of the accepted pairs; false
        up to some level and true from there. Replicates in the same interval are worked on together; those without
        a genuine or an impostor pair are left out.
        """
        valid = np.flatnonzero((self.genuine > 0) & (self.impostor > 0)).astype(np.int32)
        stack = [(-1, len(ranks) - 1, valid, np.zeros(len(valid)))]
        while stack:
            low, high, rows, weight = stack.pop()
            if len(rows) == 0:
                continue
            if high - low == 1:
                yield high, rows, weight
                continue
            middle = (low + high) // 2
            weight_above = weight + self.between(ranks[middle], ranks[high], rows)
            passed = passes(middle, rows, weight_above)
            stack += [(low, middle, rows[passed], weight_above[passed]), (middle, high, rows[~passed], weight[~passed])]
