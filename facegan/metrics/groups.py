"""Error rates of groups of people at one threshold, and how unequal they are: pure functions.

FMR and FNMR as in ISO/IEC 19795-1: of the impostor (genuine) comparisons, the share that is accepted (rejected).
ISO/IEC 19795-10:2024 reports them by group at one threshold for all. Impostor pairs are of two people of one group:
pairs across groups are easier, and flatter the FMR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegan.metrics.verification import cosines_in_blocks, unit_rows

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class GroupErrors:
    """The comparisons within one group, counted by people.

    images, matched: int64 (n_people,), the images of each, and the genuine pairs of each that were accepted. first,
    second, accepted: int64 (n,), couples of people with the impostor pairs of theirs that were accepted.
    """

    images: NDArray[np.int64]
    matched: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    accepted: NDArray[np.int64]

    @property
    def n_people(self) -> int:
        """How many people have an image in the group."""
        return int(np.count_nonzero(self.images))

    @property
    def n_paired(self) -> int:
        """How many people have a genuine pair."""
        return int(np.count_nonzero(self.images > 1))

    @property
    def n_genuine(self) -> int:
        """Genuine pairs."""
        return int((self.images * (self.images - 1)).sum()) // 2

    @property
    def n_impostor(self) -> int:
        """Impostor pairs."""
        return int(self.images.sum() ** 2 - (self.images**2).sum()) // 2

    @property
    def false_matches(self) -> int:
        """Impostor pairs that were accepted."""
        return int(self.accepted.sum())

    @property
    def false_non_matches(self) -> int:
        """Genuine pairs that were rejected."""
        return self.n_genuine - int(self.matched.sum())

    def rates(self, weights: NDArray[Any] | None = None) -> tuple[Doubles, Doubles]:
        """FMR and FNMR, (n_boot,) each, where person p counts weights[b, p] times; without weights of length one.

        A genuine pair of person i weighs w_i, an impostor pair of i and j w_i w_j, as in intervals.bootstrap_eer. NaN
        where no pair is left.
        """
        weight = np.ones((1, len(self.images))) if weights is None else np.asarray(weights, np.float64)
        genuine = weight @ (self.images * (self.images - 1) / 2)
        drawn = weight * self.images
        impostor = (drawn.sum(axis=1) ** 2 - (drawn**2).sum(axis=1)) / 2
        false_matches = (weight[:, self.first] * weight[:, self.second]) @ self.accepted
        with np.errstate(invalid="ignore", divide="ignore"):
            fmr = np.where(impostor > 0, false_matches / impostor, np.nan)
            fnmr = np.where(genuine > 0, 1 - (weight @ self.matched) / genuine, np.nan)
        return fmr, np.maximum(fnmr, 0)  # 1 - 1 may be -1e-17


def count_errors(
    embedding: ArrayLike, person: NDArray[np.integer[Any]], n_people: int, threshold: float
) -> GroupErrors:
    """Compare all images of one group: embedding (N, d), person int (N,) below n_people, accepted at >= threshold."""
    rows = unit_rows(embedding)
    matched, couples = np.zeros(n_people, np.int64), []
    for block, cosine in cosines_in_blocks(rows) if len(rows) else ():
        i, j = np.nonzero(cosine >= threshold)
        once = block[i] < j
        one, other = person[block[i[once]]].astype(np.int64), person[j[once]].astype(np.int64)
        matched += np.bincount(one[one == other], minlength=n_people)
        apart = one != other
        couples.append(np.minimum(one, other)[apart] * n_people + np.maximum(one, other)[apart])
    couple, accepted = np.unique(np.concatenate(couples or [np.empty(0, np.int64)]), return_counts=True)
    images = np.bincount(person, minlength=n_people).astype(np.int64)
    return GroupErrors(images, matched, couple // n_people, couple % n_people, accepted)


def worst_ratio(rates: Doubles) -> Doubles:
    """The worst rate over the geometric mean of all: (..., groups) -> (...); NaN where a rate is zero.

    Source: Grother 2022, NIST IR 8429, section 4 (the maximum over the geometric mean).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rates.max(axis=-1) / np.exp(np.log(rates).mean(axis=-1))
    return np.where((rates > 0).all(axis=-1), ratio, np.nan)


def fdr(fmr: Doubles, fnmr: Doubles, alpha: float = 0.5) -> Doubles:
    """Fairness discrepancy rate: (..., groups) -> (...), 1 where all groups have the same rates.

    1 - (alpha max |FMR_i - FMR_j| + (1 - alpha) max |FNMR_i - FNMR_j|). Source: de Freitas Pereira and Marcel 2021,
    IEEE TBIOM 4(1), equations 1 to 3.
    """
    return 1 - alpha * np.ptp(fmr, axis=-1) - (1 - alpha) * np.ptp(fnmr, axis=-1)


def gini(rates: Doubles) -> Doubles:
    """Gini coefficient of n rates with the factor n / (n - 1): (..., n) -> (...) in [0, 1], 0 where all are zero.

    n / (n - 1) sum_ij |x_i - x_j| / (2 n^2 mean). Source: Howard et al. 2022, arXiv 2203.05051.
    """
    n = rates.shape[-1]
    apart = np.abs(rates[..., :, None] - rates[..., None, :]).sum(axis=(-1, -2))
    mean = rates.mean(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mean == 0, 0.0, apart / (2 * n * (n - 1) * mean))


def garbe(fmr: Doubles, fnmr: Doubles, alpha: float = 0.5) -> Doubles:
    """Gini aggregation rate of biometric equitability: alpha gini(FMR) + (1 - alpha) gini(FNMR), 0 where all are equal.

    Source: Howard et al. 2022, arXiv 2203.05051.
    """
    return alpha * gini(fmr) + (1 - alpha) * gini(fnmr)


def rule_of_three(n: int) -> float:
    """The upper 95 % bound of a rate without an error in n independent trials: 3 / n, at most 1.

    Source: ISO/IEC 19795-1, the rule of 3. Comparisons of one person are no independent trials.
    """
    return min(1.0, 3 / n) if n else 1.0
