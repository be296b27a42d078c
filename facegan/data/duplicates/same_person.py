"""People who may stand under two names: pairs of identities too similar to be two people, ranked, with the number of
false alarms to expect.

Two similarities are taken of each of the M pairs of n identities, from embeddings less their mean over identities: the
cosine of the two centres, and the largest cosine of a photo of one with a photo of the other (which finds a single
photo that lies with the wrong name). How many pairs of different people are as similar by chance is estimated from
the pairs themselves, on Fisher's scale z = atanh(cosine):

- Of the n largest z, the excesses over u, the next one, are taken for exponential: the peaks-over-threshold method
  (Pickands 1975) with the tail that the cosine of random directions in d dimensions has on this scale, where its
  density is proportional to sech(z)^(d-1): exponential in the end and falling faster on the way there, so that E errs
  to the side of more.
- The largest k = n // 4 may be people who do stand there twice. Of them no more is used than that they lie above the
  next, x_r of the r = n - k others (type II censoring; Epstein and Sobel 1953, JASA 48): with T = x_1 + ... + x_r +
  k x_r, 2 T / theta has chi-squared with 2 r degrees of freedom. theta is its upper 95 % confidence limit.
- E(z) = n exp(-(z - u) / theta) pairs of different people are then to be expected at z or above. Pairs share people and
  are not independent, which the expectation of a count does not need (and the 95 % do).

`false_alarms` of a pair is twice the smaller E of its two similarities, since either would have put it on the list
(Bonferroni). Pairs that are spelled alike are left out of the estimate, and listed however similar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from facegan.data.duplicates import spelling
from facegan.metrics.verification import unit_rows

FEWEST = 10
"""With fewer identities than this false alarms are not estimated."""
DOUBTED = 4
"""One in so many of the largest similarities may be of one person."""

_BLOCK = 2048  # images against as many at once

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Two identities that may be one. `one` has no fewer photos than `other`.

    centres, closest: cosines -1 .. 1 (see the module). false_alarms: pairs of different people to expect that are this
    similar, at most 2 n; None where too few identities tell. photos: numbers of the two most similar images. spelled:
    whether the names are alike.
    """

    one: str
    other: str
    centres: float
    closest: float
    false_alarms: float | None
    photos: tuple[int, int]
    spelled: bool


@dataclass(frozen=True)
class Tail:
    """E(z) = count exp(-(z - start) / scale), for z from start."""

    start: float
    scale: float
    count: int

    def expected(self, cosine: ArrayLike) -> NDArray[np.float64]:
        """How many pairs of different people are to be expected at these cosines or above; at most `count`."""
        over = np.maximum(_z(np.asarray(cosine)) - self.start, 0)
        return np.asarray(self.count * np.exp(-over / self.scale), np.float64)


def find_pairs(embedding: ArrayLike, identity: ArrayLike, most: int) -> list[Pair]:
    """The `most` pairs of identities that are most likely one person, and all that are spelled alike, ranked.

    embedding: (N, d). identity: (N,) str. Memory grows with N and, for the working arrays, with the square of 2,048 or
    of the images of the largest identity; time with N^2. Raises ValueError as metrics.unit_rows.
    """
    names, person = np.unique(np.asarray(identity, dtype=str), return_inverse=True)
    if len(names) < 2:
        return []
    faces = _CentredFaces(unit_rows(embedding), person.astype(np.int64), len(names))
    index = {str(name): number for number, name in enumerate(names)}
    spelled = {(index[a], index[b]) for a, b in spelling.similar_names(index)}
    tops = _largest_pairs(faces, len(names) + 1 + len(spelled), most)
    tails = [fit_tail(values, len(names)) for values in _values_without(tops, spelled)]
    pairs = sorted({*spelled, *(pair for top in tops for pair in top.pairs()[:most])})
    results = []
    for p, q in pairs:
        centres, closest, photos = faces.compare(p, q)
        alarms = [float(t.expected(value)) for t, value in zip(tails, (centres, closest), strict=True) if t is not None]
        swap = faces.images[q] > faces.images[p]
        (p, q), photos = ((q, p), photos[::-1]) if swap else ((p, q), photos)
        false_alarms = 2 * min(alarms) if alarms else None
        results.append(
            Pair(
                str(names[p]), str(names[q]), centres, closest, false_alarms, photos, (min(p, q), max(p, q)) in spelled
            )
        )
    results.sort(key=lambda pair: (pair.false_alarms or 0, -max(pair.centres, pair.closest), pair.one, pair.other))
    return [pair for number, pair in enumerate(results) if number < most or pair.spelled]


def fit_tail(cosines: NDArray[Any], identities: int) -> Tail | None:
    """The tail of different people's similarities: see the module; None for fewer than FEWEST identities.

    cosines: (n + 1 or more,) falling, the largest over all pairs; those of one person, up to n // 4, may be among them.
    """
    count = identities
    if count < FEWEST or len(cosines) <= count:
        return None
    z = _z(cosines[: count + 1])
    doubted = count // DOUBTED
    excess = z[doubted:count] - z[count]
    total = float(excess.sum() + doubted * excess[0])
    scale = 2 * total / float(chi2.ppf(0.05, 2 * len(excess)))
    return Tail(float(z[count]), max(scale, 1e-9), count)


def _z(cosine: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.arctanh(np.clip(np.asarray(cosine, np.float64), -1 + 1e-7, 1 - 1e-7)))


class _CentredFaces:
    """Embeddings less their mean over identities, unit rows, in the order of the identities; and their centres."""

    def __init__(self, rows: Floats, person: Ints, n: int) -> None:
        self.order = np.argsort(person, kind="stable")
        self.images = np.bincount(person, minlength=n)
        self.starts = np.concatenate([[0], np.cumsum(self.images)])
        rows = rows[self.order]
        means = np.add.reduceat(rows, self.starts[:-1], axis=0) / self.images[:, None]
        self.rows = unit_rows(rows - means.mean(axis=0))
        self.centres = unit_rows(np.add.reduceat(self.rows, self.starts[:-1], axis=0))

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Runs of identities (first, end) with at most _BLOCK images in all, or one with more."""
        first = 0
        while first < len(self.images):
            end = int(np.searchsorted(self.starts, self.starts[first] + _BLOCK, side="right")) - 1
            yield first, max(end, first + 1)
            first = max(end, first + 1)

    def similarities(self) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
        """(p, q, cosine of centres, largest cosine of photos) of all pairs p < q, a block at a time."""
        for first, end in self.blocks():
            for other, stop in self.blocks():
                if other < first:
                    continue
                photos = self._of(first, end) @ self._of(other, stop).T
                columns = self.starts[other:stop] - self.starts[other]
                best = np.maximum.reduceat(photos, columns, axis=1)
                best = np.maximum.reduceat(best, self.starts[first:end] - self.starts[first], axis=0)
                centres = self.centres[first:end] @ self.centres[other:stop].T
                p, q = np.nonzero(np.arange(first, end)[:, None] < np.arange(other, stop))
                yield p + first, q + other, centres[p, q], best[p, q]

    def _of(self, first: int, end: int) -> Floats:
        return self.rows[self.starts[first] : self.starts[end]]

    def compare(self, p: int, q: int) -> tuple[float, float, tuple[int, int]]:
        """Cosine of the centres, the largest of two photos, and which photos those are (numbers as given)."""
        photos = self._of(p, p + 1) @ self._of(q, q + 1).T
        i, j = np.unravel_index(int(photos.argmax()), photos.shape)
        images = int(self.order[self.starts[p] + i]), int(self.order[self.starts[q] + j])
        return _cosine(self.centres[p] @ self.centres[q]), _cosine(photos[i, j]), images


def _cosine(value: Any) -> float:
    return float(np.clip(value, -1, 1))


class _LargestPairs:
    """The largest values of a stream, with the pair of each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.value, self.p, self.q = np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
        self._floor = -np.inf

    def add(self, p: Ints, q: Ints, value: Floats) -> None:
        """More values."""
        above = np.flatnonzero(value > self._floor)
        parts = ((self.value, value), (self.p, p), (self.q, q))
        self.value, self.p, self.q = (np.concatenate([old, new[above]]) for old, new in parts)
        if len(self.value) > 4 * self.size:
            self._sort()

    def _sort(self) -> None:
        kept = np.lexsort((self.q, self.p, -self.value))[: self.size]
        self.value, self.p, self.q = self.value[kept], self.p[kept], self.q[kept]
        if len(kept) == self.size:
            self._floor = float(self.value[-1])

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs, the most similar first."""
        self._sort()
        return list(zip(self.p.tolist(), self.q.tolist(), strict=True))


def _largest_pairs(faces: _CentredFaces, tail_size: int, most: int) -> tuple[_LargestPairs, _LargestPairs]:
    """The largest similarities of centres and of photos."""
    tops = _LargestPairs(max(tail_size, most)), _LargestPairs(max(tail_size, most))
    for p, q, centres, closest in faces.similarities():
        tops[0].add(p, q, centres)
        tops[1].add(p, q, closest)
    return tops


def _values_without(tops: tuple[_LargestPairs, _LargestPairs], left_out: set[tuple[int, int]]) -> list[Floats]:
    """The values of each, falling, without those of the pairs `left_out`."""
    kept = [[pair not in left_out for pair in top.pairs()] for top in tops]
    return [top.value[np.asarray(mask, bool)] for top, mask in zip(tops, kept, strict=True)]
