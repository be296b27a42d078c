"""Principal components, and the whitening of what varies within a person."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

EXACT = 2500
"""Up to so many rows or columns the components are exact; beyond, they are found by random projections."""
OVERSAMPLE, POWER_ITERATIONS = 40, 4
RESOLVED = 1e-10  # of the largest variance: below it there is only rounding


def principal(rows: Floats, components: int) -> tuple[Floats, Doubles]:
    """Mean (d,) and leading principal directions (k, d), by falling variance, of rows (n, d); these are centred.

    k is `components`, or less where the rows vary in fewer directions; 0 where they are all the same. Beyond EXACT by a
    randomized SVD with a fixed seed. Source: Halko et al. 2011, SIAM Review 53(2), algorithms 4.4 and 5.1.
    """
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows -= mean
    components = min(components, len(rows) - 1, rows.shape[1])
    if min(rows.shape) > EXACT:
        from sklearn.utils.extmath import randomized_svd

        _, values, directions = randomized_svd(
            rows, components, n_oversamples=OVERSAMPLE, n_iter=POWER_ITERATIONS, random_state=0
        )
        kept = values.astype(np.float64) ** 2 > RESOLVED * max(float(values[0]) ** 2, 1e-30)
        return mean, directions[kept].astype(np.float64)
    wide = rows.shape[1] > len(rows)
    doubles = rows.astype(np.float64)
    product = doubles @ doubles.T if wide else doubles.T @ doubles
    side = len(product)
    some = None if 2 * components > side else (side - components, side - 1)  # of most, all are found sooner
    values, vectors = scipy.linalg.eigh(product, subset_by_index=some)
    values, vectors = values[: -components - 1 : -1], vectors[:, : -components - 1 : -1]
    kept = values > RESOLVED * max(float(values[0]), 1e-30)
    values, vectors = values[kept], vectors[:, kept]
    directions = (vectors.T @ doubles) / np.sqrt(values)[:, None] if wide else vectors.T
    return mean, np.asarray(directions, np.float64)


def within_class(rows: Doubles, label: NDArray[np.int64]) -> Doubles:
    """Covariance (d, d) of rows (n, d) about the mean of their class, divided by n less the number of classes.

    label: (n,), any integers. Raises ValueError where every class has but one row.
    """
    _, code, count = np.unique(label, return_inverse=True, return_counts=True)
    if len(rows) <= len(count):
        raise ValueError(f"{len(rows)} rows of {len(count)} classes do not vary within any")
    sums = np.zeros((len(count), rows.shape[1]))
    np.add.at(sums, code, rows)
    apart = rows - (sums / count[:, None])[code]
    return np.asarray(apart.T @ apart / (len(rows) - len(count)), np.float64)


def whitening(covariance: Doubles, shrinkage: float, least: float = 0.0) -> Doubles:
    """W (d, d) with W' (S + shrinkage trace(S) / d I) W = I, for a covariance S; its variances are at least `least`.

    Source: Hatch et al. 2006, Interspeech (WCCN); the shrinkage towards a multiple of I: Ledoit and Wolf 2004.
    """
    values, vectors = scipy.linalg.eigh(covariance)
    values = np.maximum(values + shrinkage * values.sum() / len(values), least)
    return np.asarray(vectors / np.sqrt(values), np.float64)


def whitened(rows: Floats, label: NDArray[np.int64], components: int, shrinkage: float) -> tuple[Floats, Floats]:
    """Mean (d,) and map (d, k) of rows (n, d): rows less the mean, times the map, are components white within people.

    label: (n,), who is who. The components are principal ones, k is `components` or what the rows allow. Raises
    ValueError where everybody has one row.
    """
    mean, directions = principal(rows.copy(), components)
    projected = (rows - mean) @ directions.T.astype(np.float32)
    matrix = whitening(within_class(projected.astype(np.float64), label), shrinkage)
    return mean, np.asarray(directions.T @ matrix, np.float32)
