"""Identification: ranks among a gallery, and open-set search."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegan.metrics.verification import FAILED, Bools, Floats, Ints, PairScores, person_codes, unit_rows


@dataclass(frozen=True)
class OpenSearches:
    """The searches, in the form of pairs, so that rates and replicates are computed as those of pairs.

    pairs: a genuine entry for each search of an enrolled person, with the score of their own enrolled image, or
    FAILED where another one scores at least as high; an impostor entry for each search of a person who is not
    enrolled, with the highest score of all. Then FAR is FPIR and TAR is DIR at rank 1. first: the person searched
    for, second: the same, or n_people where they are not enrolled: a phantom that always counts once.
    n_enrolled, n_unknown: people. unknown_images: int, different images among the searches of unknown people.
    """

    pairs: PairScores
    n_enrolled: int
    n_unknown: int
    unknown_images: int

    def weights(self, weights: NDArray[np.int32]) -> NDArray[np.int32]:
        """(n_boot, n_people) with a column for the phantom."""
        return np.concatenate([weights, np.ones((len(weights), 1), weights.dtype)], axis=1)


def unknown_people(names: ArrayLike, share: float, seed: int) -> Bools:
    """Who is not enrolled: bool (n_people,), a share of the people by the rank of a seeded hash of their names."""
    people = [str(name) for name in np.asarray(names)]
    ranked = sorted(range(len(people)), key=lambda p: hashlib.sha256(f"{seed}/{people[p]}".encode()).hexdigest())
    unknown = np.zeros(len(people), dtype=bool)
    unknown[ranked[: round(share * len(people))]] = True
    return unknown


def open_searches(
    embedding: ArrayLike, person: ArrayLike, unknown: Bools, acquired: ArrayLike, rotations: int = 10
) -> OpenSearches:
    """Search every image among one enrolled image of each known person, each image enrolled in turn.

    embedding: (N, d). person: int (N,), 0 .. n_people - 1. unknown: bool (n_people,). acquired: bool (N,). In rotation
    r a known person of m images enrols image r mod m; every other image of theirs is searched, and so is every image
    of an unknown person. A search without an embedding finds nobody, and nobody finds an enrolled image without one.
    Raises ValueError without an unknown person or a known one with two images. Source: Phillips, Grother, Micheals
    2011, Handbook of Face Recognition, ch. 21 (watch list): DIR at rank 1 and threshold t is the share of searches of
    enrolled people whose own score is the highest and >= t; FPIR (there: false alarm rate) the share of searches of
    others with any score >= t. ISO/IEC 19795-1:2021 calls them 1 - FNIR and FPIR.
    """
    rows, codes = unit_rows(embedding), np.asarray(person)
    is_acquired = np.asarray(acquired, dtype=bool)
    images = np.bincount(codes, minlength=len(unknown))
    if not unknown.any() or images[~unknown].max(initial=0) < 2:
        raise ValueError(
            f"an open-set search needs an unknown person and a known one with two images, got {int(unknown.sum())} "
            f"unknown of {len(unknown)} people: add test people"
        )
    order = np.argsort(codes, kind="stable")
    image_index = np.empty(len(rows), dtype=np.int64)  # of an image among those of its person
    image_index[order] = np.arange(len(rows)) - np.repeat(np.cumsum(images) - images, images)
    searches: list[tuple[Floats, Bools, NDArray[np.int64]]] = []
    for r in range(min(rotations, int(images[~unknown].max()))):
        enrolled = ~unknown[codes] & (image_index == r % images[codes])
        gallery = np.flatnonzero(enrolled)
        probe = np.flatnonzero(~enrolled)
        score = np.clip(rows[probe] @ rows[gallery].T, -1, 1)
        score[~is_acquired[probe]], score[:, ~is_acquired[gallery]] = FAILED, FAILED
        is_mate = codes[gallery][None] == codes[probe][:, None]
        impostor_score = np.where(is_mate, np.float32(FAILED), score).max(axis=1)
        mate_score = np.where(is_mate, score, np.float32(FAILED)).max(axis=1)
        is_enrolled = ~unknown[codes[probe]]
        found_score = np.where(mate_score > impostor_score, mate_score, np.float32(FAILED))
        searches.append((np.where(is_enrolled, found_score, impostor_score), is_enrolled, codes[probe]))
    best_score, is_enrolled, first = (np.concatenate(part) for part in zip(*searches, strict=True))
    second = np.where(is_enrolled, first, len(unknown))
    pairs = PairScores(best_score.astype(np.float32), is_enrolled, first.astype(np.int32), second.astype(np.int32))
    return OpenSearches(pairs, int((~unknown).sum()), int(unknown.sum()), int(images[unknown].sum()))


@dataclass(frozen=True)
class Ranks:
    """Closed-set 1:N searches: rank: int32 (T,), 1 is best, of the searched person. person: int32 (T,)."""

    rank: Ints
    person: Ints
    n_people: int


def search_ranks(
    embedding: ArrayLike, identity: ArrayLike, rotations: int = 10, acquired: ArrayLike | None = None
) -> Ranks:
    """Search every image among one enrolled image of each person, each image enrolled in turn.

    In rotation r, person i (of m_i images, in the order given) enrols image r mod m_i; every other image of a
    person is a probe. There are min(rotations, most images of a person) rotations, and all searches count alike. A
    person with one image is enrolled in each rotation and never searched. The rank is 1 + the other people whose
    enrolled image scores at least as high: a tie counts against, so that equal embeddings score nothing. Where the
    probe or its person's enrolled image is not `acquired` (bool (N,), None: all), the rank is the number of people
    + 1: never found. embedding: (N, d). identity: (N,). Raises ValueError without two people or without a probe.
    Source: Phillips et al. 2000, FERET, IEEE PAMI 22(10), section 2.1 (closed set, cumulative match).
    """
    rows = unit_rows(embedding)
    person = person_codes(identity, len(rows))
    images = np.bincount(person)
    if len(images) < 2 or images.max() < 2:
        raise ValueError(
            f"a search needs two people and one with two images, got {len(images)} people with at most "
            f"{images.max(initial=0)} images: add test images"
        )
    image_index = np.empty(len(rows), dtype=np.int64)  # of an image among those of its person
    order = np.argsort(person, kind="stable")
    image_index[order] = np.arange(len(rows)) - np.repeat(np.cumsum(images) - images, images)
    is_acquired = np.ones(len(rows), bool) if acquired is None else np.asarray(acquired, dtype=bool)
    ranks, searched = [], []
    for r in range(min(rotations, int(images.max()))):
        enrolled = image_index == r % images[person]
        gallery = np.flatnonzero(enrolled)[np.argsort(person[enrolled])]
        probe = np.flatnonzero(~enrolled)
        score = rows[probe] @ rows[gallery].T  # (probes, people)
        score[:, ~is_acquired[gallery]] = FAILED
        mate_score = score[np.arange(len(probe)), person[probe]]
        is_found = is_acquired[probe] & (mate_score > FAILED)
        ranks.append(np.where(is_found, np.count_nonzero(score >= mate_score[:, None], axis=1), len(images) + 1))
        searched.append(person[probe])
    return Ranks(np.concatenate(ranks).astype(np.int32), np.concatenate(searched), len(images))


def cmc(ranks: Ranks) -> NDArray[np.float64]:
    """Cumulative match characteristic: float64 (n_people,), at k - 1 the share of searches with rank <= k."""
    return np.cumsum(np.bincount(ranks.rank, minlength=ranks.n_people + 1)[1 : ranks.n_people + 1]) / ranks.rank.size


def rank_k(ranks: Ranks, k: int = 1) -> float:
    """Share of searches that find the person among the k best. Raises ValueError for k < 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}: rank 1 is the best")
    return float(np.mean(ranks.rank <= k))
