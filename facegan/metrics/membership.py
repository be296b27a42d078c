"""Whether a set, or a recognizer, tells who was in it: scores of members against those of others.

AUC and TPR at a FPR, with replicates over the people of both sides. TPR at a low FPR says how many members are found
with few wrong accusations, which an AUC hides: Carlini et al. 2022, Membership inference attacks from first principles
(IEEE S&P), section III.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facegan.metrics.intervals import Doubles
from facegan.metrics.verification import resolvable, threshold_at_far

REPLICATES, SPLITS = 1000, 200
BLOCK = 500  # members compared with all others at once
_CHUNK = 2**22  # numbers in one working array of the replicates


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The chance that a member's score is above another's, ties counted half (Mann and Whitney 1947)."""
    below = np.searchsorted(np.sort(others), members, side="left")
    upto = np.searchsorted(np.sort(others), members, side="right")
    return float((below + upto).mean() / 2 / len(others))


def wins(members: np.ndarray, member_person: np.ndarray, others: np.ndarray, other_person: np.ndarray) -> np.ndarray:
    """How many comparisons the photos of each person win, ties counted half: (people, other people).

    Scores (N,), (M,) and codes 0 .. n - 1; each code has a photo.
    """
    people, other_people = int(member_person.max()) + 1, int(other_person.max()) + 1
    order = np.argsort(other_person, kind="stable")
    starts = np.searchsorted(other_person[order], np.arange(other_people))
    total = np.zeros((people, other_people))
    for first in range(0, len(members), BLOCK):
        rows = slice(first, first + BLOCK)
        won = np.sign(members[rows, None] - others[order][None]) / 2 + 0.5
        np.add.at(total, member_person[rows], np.add.reduceat(won, starts, axis=1))
    return total


def auc_replicates(
    won: np.ndarray, counts: np.ndarray, other_counts: np.ndarray, weights: np.ndarray, other_weights: np.ndarray
) -> Doubles:
    """The AUC where people count as often as `weights` (n_boot, people) and `other_weights` say: (n_boot,).

    `won` is of `wins`; `counts` are the photos of each person. NaN where a side is empty.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = ((weights @ won) * other_weights).sum(axis=1)
        return np.asarray(drawn / ((weights @ counts) * (other_weights @ other_counts)), np.float64)


def tpr_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float) -> float | None:
    """The share of members above a threshold that at most a share `fpr` of the others reach.

    None where fewer than ten of the others could reach it (`verification.resolvable`).
    """
    if not resolvable(fpr, len(others)).ok:
        return None
    return float(np.mean(members >= threshold_at_far(others, fpr)))


def tpr_replicates(
    members: np.ndarray,
    member_person: np.ndarray,
    others: np.ndarray,
    other_person: np.ndarray,
    fpr: float,
    weights: np.ndarray,
    other_weights: np.ndarray,
) -> Doubles:
    """`tpr_at_fpr` where people count as often as the weights say, with a threshold for each replicate: (n_boot,).

    Scores (N,), (M,), and the column of each one's person in `weights` (n_boot, people) and `other_weights`. NaN where
    a side is empty.
    """
    order, other_order = np.argsort(-members, kind="stable"), np.argsort(-others, kind="stable")
    falling, values = -members[order], np.full(len(weights), np.nan)
    size = max(1, _CHUNK // max(len(members), len(others)))
    for start in range(0, len(weights), size):
        block = slice(start, start + size)
        reached = np.cumsum(other_weights[block][:, other_person[other_order]], axis=1, dtype=np.float64)
        one_too_many = np.argmax(reached > fpr * reached[:, -1:] + 1e-9, axis=1)
        found = np.cumsum(weights[block][:, member_person[order]], axis=1, dtype=np.float64)
        above = np.searchsorted(falling, -others[other_order][one_too_many], side="left")  # strictly
        hits = np.where(above > 0, found[np.arange(len(found)), above - 1], 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values[block] = np.where(reached[:, -1] > 0, hits / found[:, -1], np.nan)
    return values


def _interval(won: np.ndarray, counts: np.ndarray, other_counts: np.ndarray, rng: np.random.Generator) -> list[float]:
    """95 % percentile interval of the share won, people of both sides drawn anew."""
    weights = [rng.multinomial(n, np.full(n, 1 / n), REPLICATES) for n in won.shape]
    shares = auc_replicates(won, counts, other_counts, weights[0], weights[1])
    return [float(value) for value in np.quantile(shares, (0.025, 0.975))]


def _null(scores: np.ndarray, person: np.ndarray, rng: np.random.Generator) -> list[float] | None:
    """The middle 95 % of the share won where the others themselves are split in two by person; None for one person."""
    people = int(person.max()) + 1
    if people < 2:
        return None
    won, counts = wins(scores, person, scores, person), np.bincount(person)
    side = np.argsort(rng.random((SPLITS, people)), axis=1) < people // 2
    shares = np.einsum("bp,pq,bq->b", side, won, ~side, optimize=True) / ((side @ counts) * (~side @ counts))
    return [float(value) for value in np.quantile(shares, (0.025, 0.975))]


def membership(
    members: np.ndarray, member_person: np.ndarray, others: np.ndarray, other_person: np.ndarray
) -> dict[str, Any]:
    """{photo, person: {auc, interval, null}} of scores (N,) of members' photos against those of others (M,).

    `person` compares the means over a person's photos. Intervals and nulls are 95 %, over people.
    """
    rng = np.random.default_rng(0)
    codes, other_codes = (np.unique(who, return_inverse=True)[1] for who in (member_person, other_person))
    counts, other_counts = np.bincount(codes), np.bincount(other_codes)
    means, other_means = np.bincount(codes, members) / counts, np.bincount(other_codes, others) / other_counts
    found: dict[str, Any] = {}
    for what, (a, b, a_person, b_person) in {
        "photo": (members, others, codes, other_codes),
        "person": (means, other_means, np.arange(len(means)), np.arange(len(other_means))),
    }.items():
        won = wins(a, a_person, b, b_person)
        found[what] = {
            "auc": auc(a, b),
            "interval": _interval(won, np.bincount(a_person), np.bincount(b_person), rng),
            "null": _null(b, b_person, rng),
        }
    return found | {"people": len(counts), "others": len(other_counts)}
