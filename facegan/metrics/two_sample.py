"""Whether a classifier tells two sets of faces apart: the two-sample AUC, cross-validated over people.

Rows are embeddings float32 (N, d), person codes int (N,), 0 .. n_people - 1; no person is in both sets.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegan.metrics.membership import auc

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.integer[Any]]
FOLDS, DEALS = 5, 5  # parts into which people are dealt, and how often they are dealt anew
STRENGTH = 0.1  # C of the logistic regression: rows are fewer than features in small sets
LEAST_PEOPLE = 2  # of each set: one to learn from and one to be told


def two_sample_auc(first: Floats, first_person: Codes, second: Floats, second_person: Codes) -> float:
    """How well a classifier tells rows of `first` from rows of `second`: 0.5 not at all, 1 always; nan for too few.

    Logistic regression on standardised rows, classes weighted alike, learned on some people of both sets and asked
    about the others (a classifier two-sample test, Lopez-Paz and Oquab 2017, with the AUC in place of the accuracy).
    The mean over folds and over DEALS deals of people into folds. Where both sets are drawn alike and folds hold as
    many people of each, the expected value is 0.5 exactly: who is asked about could as well be of the other set.
    """
    people = (int(first_person.max(initial=-1)) + 1, int(second_person.max(initial=-1)) + 1)
    folds = min(FOLDS, *people)
    if folds < LEAST_PEOPLE:
        return float("nan")
    rng = np.random.default_rng(0)
    values = []
    for _ in range(DEALS):
        dealt = [rng.permutation(count) % folds for count in people]
        fold = np.concatenate([dealt[0][first_person], dealt[1][second_person]])
        values += [_told(first, second, fold == part) for part in range(folds)]
    return float(np.mean(values))


def halves_auc(rows: Floats, person: Codes) -> float:
    """The two-sample AUC of one half of the people against the other: the floor; nan for fewer than four people."""
    people = int(person.max(initial=-1)) + 1
    rng = np.random.default_rng(1)
    values = []
    for _ in range(DEALS):
        order = rng.permutation(people)
        half = people // 2  # of an odd number one is left out, so that folds are alike
        sides = [np.isin(person, order[:half]), np.isin(person, order[half : 2 * half])]
        codes = [np.unique(person[side], return_inverse=True)[1] for side in sides]
        values.append(two_sample_auc(rows[sides[0]], codes[0], rows[sides[1]], codes[1]))
    return float(np.mean(values))


def _told(first: Floats, second: Floats, asked: NDArray[np.bool_]) -> float:
    """The AUC on the rows `asked` (of both sets, one after the other) of what the other rows taught."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([first, second]).astype(np.float64)
    is_first = np.arange(len(rows)) < len(first)
    mean, deviation = rows[~asked].mean(axis=0), rows[~asked].std(axis=0) + 1e-8
    rows = (rows - mean) / deviation
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough for a ranking
        model.fit(rows[~asked], is_first[~asked])
    score = model.decision_function(rows[asked])
    return auc(score[is_first[asked]], score[~is_first[asked]])


def spread(embedding: Floats, person: Codes) -> float:
    """Pooled variance of rows around their person's mean, summed over features; nan where nobody has two rows.

    sum_p sum_i |e_pi - m_p|^2 / sum_p (n_p - 1): the within-class mean square of a one-way analysis of variance
    (Fisher 1925), its trace. For unit rows between 0 (always the same picture) and 2.
    """
    counts = np.bincount(person)
    freedom = len(person) - np.count_nonzero(counts)
    if freedom < 1:
        return float("nan")
    sums = np.zeros((len(counts), embedding.shape[1]))
    np.add.at(sums, person, embedding.astype(np.float64))
    off = embedding - (sums / np.maximum(counts, 1)[:, None])[person]
    return float((off**2).sum() / freedom)
