"""Whether a set tells who was in it: the AUC of scores of members against scores of others, with interval and null."""

from __future__ import annotations

from typing import Any

import numpy as np

REPLICATES, SPLITS = 1000, 200
BLOCK = 500  # members compared with all others at once


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


def _interval(won: np.ndarray, counts: np.ndarray, other_counts: np.ndarray, rng: np.random.Generator) -> list[float]:
    """95 % percentile interval of the share won, people of both sides drawn anew."""
    weights = [rng.multinomial(n, np.full(n, 1 / n), REPLICATES) for n in won.shape]
    shares = np.einsum("bp,pq,bq->b", *(weights[0], won, weights[1]), optimize=True)
    shares = shares / ((weights[0] @ counts) * (weights[1] @ other_counts))
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
