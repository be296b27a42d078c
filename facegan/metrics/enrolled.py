"""Enrolled people who are searched by other photos of theirs, and strangers: against one template of each person.

A template is a row of unit length, however it was made. 1:N: a photo is compared with all templates. 1:1: it is
compared with one, its own person's or, of a stranger, anybody's. Of the comparisons of strangers only the highest are
kept, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from facegan.metrics.identification import Ranks
from facegan.metrics.verification import FAILED, Bools, Ints, PairScores, allowed_at_far, unit_rows

Doubles = NDArray[np.float64]
Weights = NDArray[np.int32]

_BLOCK = 2**22  # scores computed at once
_CHUNK = 2**20  # numbers in one working array of replicates
_USUAL, _LEAST = 3, 2**12  # of the comparisons that a rate accepts, so many times as many are looked at first


@dataclass(frozen=True)
class Searched:
    """Photos (N, d) with the code of each one's person, and which gave an embedding (N,)."""

    embedding: ArrayLike
    person: NDArray[np.int64]
    acquired: Bools


@dataclass(frozen=True)
class EnrolledScores:
    """M photos of N enrolled people, and K photos of strangers, against the N templates.

    own: float32 (M,), with the own template; FAILED where photo or template gave no embedding. rank: int32 (M,), 1 +
    the other templates that score at least as high, N + 1 where it failed. person: int32 (M,), below N. best: float32
    (K,), the highest with any template; stranger: int32 (K,), whose photo. top: float32 (T,), falling, all comparisons
    of strangers at `floor` or above (-inf: all there are), with top_stranger and top_person, int32 (T,). photos: int64
    (strangers,), of each.
    """

    own: NDArray[np.float32]
    rank: Ints
    person: Ints
    best: NDArray[np.float32]
    stranger: Ints
    top: NDArray[np.float32]
    top_stranger: Ints
    top_person: Ints
    floor: float
    n_people: int
    photos: NDArray[np.int64]

    @property
    def comparisons(self) -> int:
        """How many comparisons of a stranger's photo with a template there are."""
        return len(self.best) * self.n_people

    @property
    def ranks(self) -> Ranks:
        """The searches of enrolled people, for metrics.rank_k."""
        return Ranks(self.rank, self.person.astype(np.int64), self.n_people)

    def open_set(self) -> PairScores:
        """All searches in the form of pairs, as metrics.OpenSearches has them: FAR is FPIR and TAR is 1 - FNIR.

        A search of an enrolled person fails unless their own template scores highest. People: the enrolled, the
        strangers, and a phantom who always counts once.
        """
        found = np.where(self.rank == 1, self.own, np.float32(FAILED))
        strangers = self.stranger + self.n_people
        phantom = np.full_like(strangers, self.n_people + len(self.photos))
        return PairScores(
            np.concatenate([found, self.best]),
            np.arange(len(found) + len(self.best)) < len(found),
            np.concatenate([self.person, strangers]),
            np.concatenate([self.person, phantom]),
        )

    def tar_at_far(self, far: float) -> float:
        """Share of the own comparisons that score above all but a share `far` of the strangers': metrics.tar_at_far."""
        return float(np.mean(self.own > self.top[allowed_at_far(far, self.comparisons)]))

    def fnmr(self, threshold: float) -> float:
        """Share of the own comparisons below a threshold; a failed one is."""
        return float(np.mean(self.own < threshold))

    def fmr(self, threshold: float) -> float:
        """Share of the strangers' comparisons at or above a threshold, which may not lie below `floor`."""
        return self._accepted(threshold) / self.comparisons

    def _accepted(self, threshold: float) -> int:
        if threshold < self.floor:
            raise ValueError(f"comparisons below {self.floor} were not kept, and the threshold is {threshold}")
        return int(np.searchsorted(-self.top, -threshold, side="right"))

    def bootstrap_tar_at_far(self, far: float, weights: Weights, of_strangers: Weights) -> Doubles:
        """`tar_at_far` of each replicate, (n_boot,).

        weights: int (n_boot, n_people), of_strangers: int (n_boot, strangers). A comparison with the own template i
        weighs w_i, one of stranger j with template i v_j w_i. As intervals.bootstrap_tar_at_far; NaN where nothing is
        left, or the highest comparisons that were kept are too few.
        """
        level = self._one_too_many(far, weights, of_strangers)
        order = np.argsort(self.own, kind="stable")
        below = np.searchsorted(self.own[order], level, side="right")
        values = np.full(len(weights), np.nan)
        size = max(1, _CHUNK // len(order))
        for start in range(0, len(weights), size):
            rows = slice(start, start + size)
            rising = np.cumsum(weights[rows][:, self.person[order]], axis=1, dtype=np.float64)
            rejected = np.take_along_axis(rising, np.maximum(below[rows] - 1, 0)[:, None], axis=1)[:, 0]
            with np.errstate(invalid="ignore"):
                values[rows] = 1 - np.where(below[rows] > 0, rejected, 0) / rising[:, -1]
        return np.where(np.isnan(level), np.nan, values)

    def _one_too_many(self, far: float, weights: Weights, of_strangers: Weights) -> NDArray[np.float32]:
        """The comparison of a stranger by which more than `far` of their weight would be accepted, (n_boot,).

        -inf where all may be; NaN where it lies below those that were kept, or none has a weight.
        """
        total = self._weight(weights, of_strangers)
        level = np.full(len(weights), np.nan, np.float32)
        open_rows = np.flatnonzero(total > 0)
        usual = max(_LEAST, round(_USUAL * far * self.comparisons))  # enough but for few replicates
        for count in dict.fromkeys((min(usual, len(self.top)), len(self.top))):
            size = max(1, _CHUNK // count)
            for rows in (open_rows[start : start + size] for start in range(0, len(open_rows), size)):
                each = of_strangers[rows][:, self.top_stranger[:count]] * weights[rows][:, self.top_person[:count]]
                over = np.cumsum(each, axis=1, dtype=np.float64) > (far * total[rows] + 1e-9)[:, None]
                level[rows] = np.where(over[:, -1], self.top[np.argmax(over, axis=1)], np.nan)
            open_rows = open_rows[np.isnan(level[open_rows])]
        if self.floor == -np.inf:
            level[open_rows] = -np.inf
        return level

    def _weight(self, weights: Weights, of_strangers: Weights) -> Doubles:
        """The weight of all comparisons of strangers in each replicate."""
        return np.asarray((of_strangers @ self.photos).astype(np.float64) * weights.sum(axis=1))

    def bootstrap_fnmr(self, threshold: float, weights: Weights) -> Doubles:
        """`fnmr` of each replicate, (n_boot,); NaN where nobody who is searched for was drawn."""
        below = np.bincount(self.person, weights=self.own < threshold, minlength=self.n_people)
        all_own = np.bincount(self.person, minlength=self.n_people)
        with np.errstate(invalid="ignore"):
            return np.asarray((weights @ below) / (weights @ all_own), np.float64)

    def bootstrap_fmr(self, threshold: float, weights: Weights, of_strangers: Weights) -> Doubles:
        """`fmr` of each replicate, (n_boot,): v' C w, with C how often stranger and template are accepted together."""
        count = self._accepted(threshold)
        couples = self.top_stranger[:count], self.top_person[:count]
        accepted = csr_array((np.ones(count), couples), shape=(len(self.photos), self.n_people))
        values = np.empty(len(weights))
        size = max(1, _CHUNK // self.n_people)
        for start in range(0, len(weights), size):
            rows = slice(start, start + size)
            values[rows] = ((of_strangers[rows] @ accepted) * weights[rows]).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(values / self._weight(weights, of_strangers))


def score_enrolled(
    template: ArrayLike, usable: Bools, own: Searched, strangers: Searched, keep: int, threshold: float = np.inf
) -> EnrolledScores:
    """Compare photos of enrolled people and of strangers with the templates (N, d), of which `usable` (N,) are.

    keep: how many of the strangers' comparisons are kept at least, the highest; so are all at `threshold` or above.
    Raises ValueError without a template, a photo of an enrolled person or one of a stranger, and as metrics.unit_rows.
    """
    rows = unit_rows(template)
    counts = (len(own.person), len(strangers.person))
    if not (len(rows) and all(counts)):
        raise ValueError(
            f"enrolled people are searched by photos of theirs and of strangers, got {len(rows)} people, {counts[0]} "
            f"photos of them and {counts[1]} of strangers"
        )
    own_score, rank = np.empty(counts[0], np.float32), np.empty(counts[0], np.int32)
    for part, score in _blocks(rows, usable, own):
        mate = score[np.arange(len(score)), own.person[part]]
        own_score[part] = mate
        rank[part] = np.where(mate > FAILED, np.count_nonzero(score >= mate[:, None], axis=1), len(rows) + 1)
    best = np.empty(counts[1], np.float32)
    top = _Highest(keep, threshold)
    for part, score in _blocks(rows, usable, strangers):
        best[part] = score.max(axis=1)
        photo, person = np.nonzero(score >= top.floor)
        top.add(score[photo, person], strangers.person[part][photo], person.astype(np.int64))
    order = np.argsort(-top.columns[0], kind="stable")
    highest, stranger, code = (values[order] for values in top.columns)
    of_own, of_strangers = own.person.astype(np.int32), strangers.person.astype(np.int32)
    photos = np.bincount(of_strangers).astype(np.int64)
    return EnrolledScores(
        own_score, rank, of_own, best, of_strangers, highest, stranger, code, top.floor, len(rows), photos
    )


def _blocks(
    templates: NDArray[np.float32], usable: Bools, photos: Searched
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The cosines of some photos with all templates, FAILED where either gave no embedding."""
    acquired = np.asarray(photos.acquired, bool)
    rows = unit_rows(np.where(acquired[:, None], np.asarray(photos.embedding), 0))
    size = max(1, _BLOCK // len(templates))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        score = np.clip(rows[part] @ templates.T, -1, 1)
        score[~acquired[part]], score[:, ~usable] = FAILED, FAILED
        yield part, score


class _Highest:
    """The `keep` highest scores of a stream, what is as high as the lowest of them, and all at `threshold` or above.

    columns: score float32, and two codes int32. floor: what is below was dropped.
    """

    def __init__(self, keep: int, threshold: float) -> None:
        self.keep, self.threshold, self.floor = keep, threshold, -np.inf
        kinds: tuple[Any, ...] = (np.float32, np.int32, np.int32)
        self.columns: list[NDArray[Any]] = [np.empty(0, kind) for kind in kinds]

    def add(self, *columns: NDArray[Any]) -> None:
        """More scores with their codes."""
        self.columns = [
            np.concatenate([old, new.astype(old.dtype)]) for old, new in zip(self.columns, columns, strict=True)
        ]
        score = self.columns[0]
        if len(score) > self.keep:
            last = float(np.partition(score, len(score) - self.keep)[len(score) - self.keep])
            self.floor = min(last, self.threshold)
            self.columns = [values[score >= self.floor] for values in self.columns]
