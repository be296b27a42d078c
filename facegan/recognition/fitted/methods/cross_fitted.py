"""Who is who among few people: likeness of people to people, by what was never fitted on the two that are compared.

Features, each by principal axes and within-class whitening (WCCN, Hatch et al. 2006), mirror images added; where no
others are given, pixels, HOG and LBP of grey photos, what the baseline `classical` is made of. The people are dealt
into folds; what compares people of two folds was fitted on the other folds alone, so train people are as new to it as
anybody else. The likeness of two people is the mean over images of the NEAREST cosines with the other's, both ways, and
then how far that lies from the likeness of either to the people whom the fit knows, in their standard deviations
(s-norm, Kenny 2010).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from facegan.core.types import Embed
from facegan.metrics.leakage import Floats
from facegan.metrics.verification import unit_rows
from facegan.recognition.fitted.methods.features import FEATURES, measure
from facegan.recognition.fitted.methods.linear_maps import fused, measured
from facegan.recognition.fitted.methods.whitening import whitened

Doubles = NDArray[np.floating]
Features = Callable[[np.ndarray], list[Floats]]
"""Images (N, H, W, C) uint8 to each feature of them and of their mirror images (2, N, d)."""
FOLDS, MANY, FOLDS_OF_MANY = 8, 100, 5  # of so many people each fit knows enough in fewer folds
AXES, SHRINKAGE, NEAREST = 300, 0.3, 1
CHANCE = 0.05
BLOCK = 200  # people of a set at once
MOST_FITTED, MOST_EACH = 1500, 10  # photos that are fitted on, and images of a person that are compared


class Fitted:
    """A map of each feature, white within people: fitted on rows of photos and of their mirror images (2, N, d)."""

    def __init__(self, rows: list[Floats], person: np.ndarray) -> None:
        label = np.tile(person, 2)
        self.maps = [whitened(part.reshape(len(label), -1), label, AXES, SHRINKAGE) for part in rows]

    def __call__(self, rows: list[Floats]) -> Floats:
        """Unit embeddings (M, k) of rows of photos and of their mirror images (2, M, d)."""
        pairs = zip(rows, self.maps, strict=True)
        parts = [fused([(side - mean) @ linear for side in part]) for part, (mean, linear) in pairs]
        return np.asarray(unit_rows(np.concatenate(parts, axis=1)), np.float32)


class FoldFit(NamedTuple):
    """What compares people of two folds: whom it knows, its maps (None: rows are embeddings), the photos by them."""

    known: NDArray[np.int64]
    fitted: Fitted | None
    photos: Floats

    def embed(self, rows: list[Floats]) -> Floats:
        """Unit embeddings of rows as `CrossFitted` prepares them."""
        return self.fitted(rows) if self.fitted is not None else rows[0]


def classical_features(pixels: np.ndarray) -> list[Floats]:
    """Pixels, HOG and LBP of images: see `Features`."""
    return [measured(measure, pixels, name) for name in FEATURES]


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the rows 0 .. count - 1, evenly chosen."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def few_each(person: np.ndarray) -> NDArray[np.int64]:
    """The first MOST_EACH images of each person, by row."""
    order = np.argsort(person, kind="stable")
    place = np.arange(len(person)) - np.searchsorted(person[order], person[order])
    return np.sort(order[place < MOST_EACH])


def set_likeness(cosine: Floats, person: np.ndarray, other: np.ndarray) -> Doubles:
    """Mean over images of the NEAREST cosines (N, M) with the other person's, both ways: (people, other people)."""

    def nearest(values: Floats, columns: np.ndarray) -> Doubles:
        codes = range(int(columns.max()) + 1)
        groups = [values[:, columns == code] for code in codes]
        return np.stack([np.sort(group, axis=1)[:, -NEAREST:].mean(axis=1) for group in groups], axis=1)

    def means(values: Doubles, rows: np.ndarray) -> Doubles:
        return np.stack([values[rows == code].mean(axis=0) for code in range(int(rows.max()) + 1)])

    return (means(nearest(cosine, other), person) + means(nearest(cosine.T, person), other).T) / 2


def normed(likeness: Doubles, cohort: Doubles, other_cohort: Doubles) -> Doubles:
    """s-norm of (P, Q): `cohort` (P, c) are the likenesses of the first to some others, `other_cohort` (c, Q)."""
    first = (likeness - cohort.mean(1, keepdims=True)) / cohort.std(1, keepdims=True)
    return np.asarray((first + (likeness - other_cohort.mean(0)) / other_cohort.std(0)) / 2)


class CrossFitted:
    """Likeness of anybody to the train people, all of whom are unseen by what compares them.

    `pixels` (N, H, W, C) uint8 are photos of known people, coded 0 .. n - 1, train people first. `embed` takes the
    place of what is fitted here: a judge from elsewhere, who has learned none of them. `features` has learned none
    either, and takes the place of those of `classical` under the maps.
    """

    def __init__(
        self, pixels: np.ndarray, person: np.ndarray, train_people: int, embed: Embed | None = None,
        features: Features | None = None,
    ) -> None:  # fmt: skip
        rows = few_each(person)
        self._embed, self._features, self.person = embed, features or classical_features, person[rows]
        self.people, self.train_people = int(person.max()) + 1, train_people
        self._fold = np.arange(self.people) % self._folds()
        photos, fitted_on = self._measured(pixels[rows]), evenly(len(rows), MOST_FITTED)
        # What is fitted is a sum of these photos' rows: in the space that they span nothing of it is lost.
        self._spans = [np.linalg.qr(part[:, fitted_on].reshape(-1, part.shape[2]).T)[0] for part in photos]
        self._photos = self._spanned(photos) if embed is None else [embed(pixels[rows])]
        self._fits = [self._fit(pair, fitted_on) for pair in combinations(range(int(self._fold.max()) + 1), 2)]

    def _folds(self) -> int:
        return FOLDS_OF_MANY if self.people > MANY else min(FOLDS, max(3, self.people // 2))

    def _measured(self, pixels: np.ndarray) -> list[Floats]:
        """Each feature of images and of their mirror images (2, N, d); none where `embed` is asked."""
        return [] if self._embed is not None else self._features(pixels)

    def _spanned(self, rows: list[Floats]) -> list[Floats]:
        return [part @ span for part, span in zip(rows, self._spans, strict=True)]

    def _prepared(self, pixels: np.ndarray) -> list[Floats]:
        return [self._embed(pixels)] if self._embed is not None else self._spanned(self._measured(pixels))

    def _fit(self, pair: tuple[int, int], fitted_on: NDArray[np.int64]) -> FoldFit:
        known = np.flatnonzero(~np.isin(self._fold, pair))
        if self._embed is not None:
            return FoldFit(known, None, self._photos[0])
        rows = fitted_on[np.isin(self.person[fitted_on], known)]
        fitted = Fitted([part[:, rows] for part in self._photos], self.person[rows])
        return FoldFit(known, fitted, fitted(self._photos))

    def real(self) -> tuple[Doubles, Doubles]:
        """Known people with train people (known, train), of themselves -inf; and train people with themselves (train,).

        The latter by one half of their photos against the other; (0,) where somebody has one photo.
        """
        strangers, own = (np.zeros((self.people, self.people)) for _ in range(2))
        count = np.zeros((self.people, self.people))
        order = np.argsort(self.person, kind="stable")
        side = np.empty(len(order), np.int64)
        side[order] = (np.arange(len(order)) - np.searchsorted(self.person[order], self.person[order])) % 2
        halves = side == 0, side == 1
        several = np.bincount(self.person) > 1
        for known, _, photos in self._fits:
            cosine = photos @ photos.T
            table = set_likeness(cosine - 2 * np.eye(len(cosine), dtype=cosine.dtype), self.person, self.person)
            out = ~np.isin(np.arange(self.people), known)
            both = out[:, None] & out[None]
            strangers += np.where(both, normed(table, table[:, known], table[known]), 0)
            if several.all():
                parts = [self.person[half] for half in halves]
                table = set_likeness(cosine[np.ix_(*halves)], *parts)
                own += np.where(both, normed(table, table[:, known], table[known]), 0)
            count += both
        strangers = np.where(np.eye(self.people, dtype=bool), -np.inf, strangers / count)
        return strangers[:, : self.train_people], np.diag(own / count)[: self.train_people] if several.all() else own[
            0, :0
        ]

    @cached_property
    def _among(self) -> list[Doubles]:
        """The known people with each other, by each fit."""
        return [set_likeness(fit.photos @ fit.photos.T, self.person, self.person) for fit in self._fits]

    def likeness(self, pixels: np.ndarray, person: np.ndarray) -> Doubles:
        """People of images (M, H, W, C) uint8, coded 0 .. m - 1, with train people: (m, train)."""
        people = int(person.max()) + 1 if len(person) else 0
        parts = [self._likeness(pixels, person, start, min(start + BLOCK, people)) for start in range(0, people, BLOCK)]
        return np.concatenate([np.empty((0, self.train_people)), *parts])

    def _likeness(self, pixels: np.ndarray, person: np.ndarray, start: int, stop: int) -> Doubles:
        inside = np.flatnonzero((person >= start) & (person < stop))
        rows = inside[few_each(person[inside])]
        images, codes = self._prepared(pixels[rows]), person[rows] - start
        total, count = np.zeros((stop - start, self.people)), np.zeros(self.people)
        for fit, among in zip(self._fits, self._among, strict=True):
            table = set_likeness(fit.embed(images) @ fit.photos.T, codes, self.person)
            out = ~np.isin(np.arange(self.people), fit.known)
            total += np.where(out, normed(table, table[:, fit.known], among[fit.known]), 0)
            count += out
        return (total / count)[:, : self.train_people]


def match_level(strangers: Doubles) -> float:
    """The likeness from which two people match, of known people's with train people (known, train), own ones -inf.

    What a stranger reaches with any train person by a chance of CHANCE, were all pairs independent and normal
    (Bonferroni): all pairs tell more than the highest of each of so few people. Where there are enough people who are
    no train people (the last rows), no less than what the next stranger's highest exceeds by that chance at most: the
    k-th lowest of their n, with k = ceil((n + 1) (1 - CHANCE)) (as in split conformal prediction, Vovk et al. 2005).
    Pairs of one person are not independent, the less so the fewer photos there are of each.
    """
    pairs = strangers[np.isfinite(strangers)]
    level = float(pairs.mean() + norm.isf(CHANCE / strangers.shape[1]) * pairs.std())
    highest = np.sort(strangers[strangers.shape[1] :].max(axis=1))
    rank = int(np.ceil((len(highest) + 1) * (1 - CHANCE)))
    return level if rank > len(highest) else max(level, float(highest[rank - 1]))
