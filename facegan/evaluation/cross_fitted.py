"""Who is who among few people: likeness of people to people, by what was never fitted on the two that are compared.

Pixels, HOG and LBP of grey photos, each by principal axes and within-class whitening (WCCN, Hatch et al. 2006), mirror
images added. The people are dealt into folds; what compares people of two folds was fitted on the other
folds alone, so train people are as new to it as anybody else. The likeness of two people is the mean over images of the
NEAREST cosines with the other's, both ways, and then how far that lies from the likeness of either to the people whom
the fit knows, in their standard deviations (s-norm, Kenny 2010).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from facegan.core.types import Embed
from facegan.metrics.leakage import SIDE_PX, Floats, grey
from facegan.metrics.verification import unit_rows

Doubles = NDArray[np.floating]
FOLDS, AXES, SHRINKAGE, NEAREST = 5, 300, 0.3, 2
CHANCE = 0.1  # likenesses have lighter tails than normal ones: about half of it comes true
BLOCK = 200  # people of a set at once
MOST_FITTED, MOST_EACH = 1500, 10  # photos that are fitted on, and images of a person that are compared
CELL_PX, ORIENTATIONS, CLIP = 8, 9, 0.2


def pixels(photos: Floats) -> Floats:
    """(N, 64, 64) -> rows (N, 4096), each less its mean and over its deviation."""
    flat = photos.reshape(len(photos), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (flat.std(axis=1, keepdims=True) + 1e-3), np.float32)


def _cells(values: Floats) -> Floats:
    """Sums over cells of CELL_PX: (N, 64, 64) -> (N, 8, 8)."""
    count = SIDE_PX // CELL_PX
    return np.asarray(values.reshape(-1, count, CELL_PX, count, CELL_PX).sum(axis=(2, 4)))


def hog(photos: Floats) -> Floats:
    """Histograms of unsigned gradients, blocks of 2 x 2 cells normalised and cut (Dalal and Triggs 2005)."""
    img = np.sqrt(np.maximum(photos, 0))
    dy, dx = np.gradient(img, axis=1), np.gradient(img, axis=2)
    size, angle = np.hypot(dx, dy), (np.arctan2(dy, dx) % np.pi) / np.pi * ORIENTATIONS
    low = np.floor(angle)
    share = angle - low
    bins = [
        _cells(size * ((1 - share) * (low % ORIENTATIONS == k) + share * ((low + 1) % ORIENTATIONS == k)))
        for k in range(ORIENTATIONS)
    ]
    cells = np.stack(bins, axis=-1)
    blocks = np.concatenate([cells[:, a : a + 7, b : b + 7] for a in (0, 1) for b in (0, 1)], axis=-1)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-2)
    blocks = np.minimum(blocks, CLIP)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-6)
    return np.asarray(blocks.reshape(len(photos), -1), np.float32)


def _uniform_codes() -> NDArray[np.int64]:
    """The class of each of 256 patterns: 58 with at most two changes around the circle, and one for all others."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum()).astype(np.int64)


def lbp(photos: Floats) -> Floats:
    """Uniform local binary patterns at radius 1 and 2, square roots of counts in cells (Ahonen et al. 2006)."""
    classes, parts = _uniform_codes(), []
    for radius in (1, 2):
        padded = np.pad(photos, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
        code = np.zeros(photos.shape, np.int64)
        for bit, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))):
            y, x = radius * (1 + dy), radius * (1 + dx)
            code |= (padded[:, y : y + SIDE_PX, x : x + SIDE_PX] >= photos).astype(np.int64) << bit
        pattern = classes[code]
        parts += [_cells((pattern == k).astype(np.float32)) for k in range(59)]
    return np.sqrt(np.stack(parts, axis=-1)).reshape(len(photos), -1).astype(np.float32)


FEATURES = (pixels, hog, lbp)


def features(photos: Floats) -> list[tuple[Floats, Floats]]:
    """Each feature's rows of the photos (N, 64, 64) and of their mirror images."""
    mirrored = np.ascontiguousarray(photos[:, :, ::-1])
    return [(feature(photos), feature(mirrored)) for feature in FEATURES]


class Fitted:
    """Axes of each feature, whitened within people: fitted on rows of people (N,)."""

    def __init__(self, rows: list[tuple[Floats, Floats]], person: np.ndarray) -> None:
        self.maps = [self._fit(np.concatenate(pair), np.concatenate([person, person])) for pair in rows]

    @staticmethod
    def _fit(rows: Floats, person: np.ndarray) -> tuple[Floats, Floats]:
        mean = rows.mean(axis=0)
        centred = rows - mean
        values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))  # fewer rows than columns: quicker
        best = np.argsort(-values)[: min(AXES, int((values > 1e-6 * values[-1]).sum()))]
        axes = np.asarray(centred.T @ (vectors[:, best] / np.sqrt(values[best])).astype(np.float32))
        codes = np.unique(person, return_inverse=True)[1]
        z = (rows - mean) @ axes
        centres = np.zeros((codes.max() + 1, z.shape[1]), np.float32)
        np.add.at(centres, codes, z)
        spread = z - (centres / np.bincount(codes)[:, None])[codes]
        within = spread.T @ spread / max(len(z) - len(centres), 1)
        within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within), dtype=np.float32)
        variances, directions = np.linalg.eigh(within)
        return mean, np.asarray(axes @ (directions / np.sqrt(variances)) @ directions.T, np.float32)

    def __call__(self, rows: list[tuple[Floats, Floats]]) -> Floats:
        """Unit embeddings (M, d) of features of photos."""
        parts = [
            unit_rows(sum(unit_rows((side - mean) @ axes) for side in pair))
            for pair, (mean, axes) in zip(rows, self.maps, strict=True)
        ]
        return unit_rows(np.concatenate(parts, axis=1))


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
    place of what is fitted here: a judge from elsewhere, who has learned none of them.
    """

    def __init__(self, pixels: np.ndarray, person: np.ndarray, train_people: int, embed: Embed | None = None) -> None:
        rows = few_each(person)
        self._embed = embed
        self._photos, self.person = self._prepared(pixels[rows]), person[rows]
        self.people, self.train_people = int(person.max()) + 1, train_people
        self._fold = np.arange(self.people) % min(FOLDS, max(3, self.people // 2))
        self._fits = [self._fit(pair) for pair in combinations(range(int(self._fold.max()) + 1), 2)]

    def _prepared(self, pixels: np.ndarray) -> list[tuple[Floats, Floats]]:
        return [(self._embed(pixels),) * 2] if self._embed is not None else features(grey(pixels))

    def _fit(self, pair: tuple[int, int]) -> tuple[NDArray[np.int64], Callable[[list[tuple[Floats, Floats]]], Floats]]:
        """Whom a fit without two folds knows, and what it makes of photos."""
        known = np.flatnonzero(~np.isin(self._fold, pair))
        if self._embed is not None:
            return known, lambda rows: rows[0][0]
        rows = np.flatnonzero(np.isin(self.person, known))
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST_FITTED, len(rows))).round().astype(int))]
        return known, Fitted([(a[rows], b[rows]) for a, b in self._photos], self.person[rows])

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
        for known, fit in self._fits:
            embedding = fit(self._photos)
            cosine = embedding @ embedding.T
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
        for known, fit in self._fits:
            embedding, photos = fit(images), fit(self._photos)
            among = set_likeness(photos @ photos.T, self.person, self.person)
            table = set_likeness(embedding @ photos.T, codes, self.person)
            out = ~np.isin(np.arange(self.people), known)
            total += np.where(out, normed(table, table[:, known], among[known]), 0)
            count += out
        return (total / count)[:, : self.train_people]


def match_level(strangers: Doubles) -> float:
    """The likeness from which two people match, of known people's with train people (known, train), own ones -inf.

    What a stranger reaches with any train person by a chance of CHANCE, were all pairs independent and normal
    (Bonferroni): all pairs tell more than the highest of each of so few people.
    """
    pairs = strangers[np.isfinite(strangers)]
    return float(pairs.mean() + norm.isf(CHANCE / strangers.shape[1]) * pairs.std())
