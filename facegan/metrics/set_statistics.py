"""Statistics of a set of faces under a judge: pure functions over unit embeddings and person codes.

Embeddings are unit rows float32 (N, d), so that the cosine is their product; person codes are int (N,),
0 .. n_people - 1. Only numpy is imported, and nothing loops over pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegan.metrics.verification import PairScores, eer, pair_scores, threshold_at_far

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.integer[Any]]

STYLE_NEIGHBOURS = 3  # k of the diversity: DCFace's sets are larger, ten photos allow no more


def centres(embedding: Floats, person: Codes) -> Floats:
    """The mean of each person's embeddings, length one: (n_people, d)."""
    membership = np.zeros((int(person.max()) + 1, len(person)), np.float32)
    membership[person, np.arange(len(person))] = 1
    mean = membership @ embedding
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-8))


def thresholds(embedding: Floats, person: Codes, max_fmr: float) -> dict[str, dict[str, Any]]:
    """Cosines that at most a share `max_fmr` of the comparisons of different people exceed: {what: value, n}.

    `image`: image with image. `image to centre`: image with the centre of another person. `centre`: the
    centres of two disjoint halves of people's images, those of different people. Raises ValueError with
    fewer than two people of two images each.
    """
    pairs = pair_scores(embedding, person)
    centre = centres(embedding, person)
    half = _halves(person)
    if pairs.n_impostor == 0 or min(np.bincount(person[half == 1], minlength=len(centre))) == 0:
        raise ValueError("needs two people or more with two images each")
    first, second = (centres(embedding[half == side], person[half == side]) for side in (0, 1))
    is_stranger = person[:, None] != np.arange(len(centre))[None]
    scores_by_kind = {
        "image": pairs.score[~pairs.genuine],
        "image to centre": (embedding @ centre.T)[is_stranger],
        "centre": (first @ second.T)[~np.eye(len(first), dtype=bool)],
    }
    return {
        kind: {"value": threshold_at_far(scores, max_fmr), "n": len(scores)} for kind, scores in scores_by_kind.items()
    }


def _halves(person: Codes) -> Codes:
    """0 and 1 alternating within each person, (N,)."""
    order = np.argsort(person, kind="stable")
    first = np.searchsorted(person[order], person[order])
    side = np.empty(len(person), np.int64)
    side[order] = (np.arange(len(person)) - first) % 2
    return side


def halves(person: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of every other image of each person, and of the rest."""
    side = _halves(person)
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def separability(pairs: PairScores) -> dict[str, float]:
    """`eer` of all pairs, `fisher` = (m_g - m_i)^2 / (v_g + v_i) and `d_prime` = sqrt(2 fisher).

    m and v are mean and variance of genuine and impostor scores (Fisher 1936; Daugman 2000 for d'). Raises
    ValueError without a genuine or an impostor pair.
    """
    genuine, impostor = (pairs.score[side].astype(np.float64) for side in (pairs.genuine, ~pairs.genuine))
    ratio = (genuine.mean() - impostor.mean()) ** 2 / max(genuine.var() + impostor.var(), 1e-12)
    rate = eer(pairs.score, pairs.genuine)
    return {"eer": rate, "fisher": float(ratio), "d_prime": float(np.sqrt(2 * ratio))}


def distinguishable(centre: Floats, threshold: float) -> int:
    """How many people a greedy pass keeps when each must be below `threshold` to all kept before.

    Divided by the number of people it is DCFace's uniqueness U (Kim et al. 2023, section 4): there too a
    person counts when no earlier one is within r.
    """
    is_alike = centre @ centre.T >= threshold
    kept = np.zeros(len(centre), bool)
    for index in range(len(centre)):
        kept[index] = not is_alike[index, kept].any()
    return int(kept.sum())


def consistency(embedding: Floats, person: Codes, threshold: float) -> tuple[float, NDArray[np.float64]]:
    """DCFace's C, and each person's mean cosine to their centre (n_people,).

    C = mean over people of the share of their images with a cosine above `threshold` to their own centre
    (Kim et al. 2023, section 4, with a measured threshold in place of their constant r).
    """
    cosine = np.einsum("nd,nd->n", embedding, centres(embedding, person)[person])
    counts = np.bincount(person)
    share = np.bincount(person, cosine >= threshold) / counts
    return float(share.mean()), np.bincount(person, cosine) / counts


def diversity(style: Floats, person: Codes, real: Floats, real_person: Codes, k: int = STYLE_NEIGHBOURS) -> float:
    """DCFace's D: mean over people of the recall of their real photos by their synthetic images.

    A person's recall is the share of their real photos within the distance to the k-th neighbour of one of
    their images, in a space of looks and not of identity (Kim et al. 2023, section 4, after Kynkaanniemi et
    al. 2019; their space is Inception's, here it is what `style` holds (N, s)). People with k images or
    fewer, or no real photo, are passed over; nan where none is left.
    """
    recalls = []
    for code in np.intersect1d(person, real_person):
        images, photos = style[person == code], real[real_person == code]
        if len(images) > k:
            recalls.append(manifolds(photos, images, k)["recall"])
    return float(np.mean(recalls)) if recalls else float("nan")


def distances(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Euclidean distances (len(a), len(b)) of rows."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def manifolds(real: Floats, fake: Floats, k: int) -> dict[str, float]:
    """`precision`, `recall`, `density` and `coverage` of fake rows against real rows.

    With B_k(x) the ball around x to its k-th neighbour in its own set: precision = share of fake in any
    B_k(real), recall = share of real in any B_k(fake) (Kynkaanniemi et al. 2019, equations 1 and 2);
    density = mean over fake of the number of B_k(real) they lie in, over k; coverage = share of B_k(real)
    that hold a fake row (Naeem et al. 2020, equations 5 and 6). k is lowered to the smaller set's rows - 1.
    """
    k = min(k, len(real) - 1, len(fake) - 1)
    if k < 1:
        raise ValueError(f"needs two rows on each side, got {len(real)} and {len(fake)}")
    radius = [
        np.partition(distances(rows, rows), k, axis=1)[:, k] for rows in (real, fake)
    ]  # index 0 is the row itself
    distance = distances(real, fake)
    inside = distance <= radius[0][:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((distance <= radius[1][None]).any(axis=1).mean()),
        "density": float(inside.sum() / (k * len(fake))),
        "coverage": float(inside.any(axis=1).mean()),
    }


def kid(real: Floats, fake: Floats) -> float:
    """Kernel distance of two sets of unit rows: the unbiased MMD^2 with the kernel (x.y + 1)^3.

    Binkowski et al. 2018, section 4: their (x.y / d + 1)^3, in the judge's space and for rows of length
    sqrt(d). 0 for one distribution (and a little below by chance).
    """
    within = 0.0
    for rows in (real.astype(np.float64), fake.astype(np.float64)):
        kernel = (rows @ rows.T + 1) ** 3
        within += (kernel.sum() - np.trace(kernel)) / (len(rows) * (len(rows) - 1))
    return float(within - 2 * ((real.astype(np.float64) @ fake.T.astype(np.float64) + 1) ** 3).mean())


def robust_centre(embedding: np.ndarray) -> np.ndarray:
    """The centre of unit embeddings (N, d), each weighted by its closeness to the plain mean: (d,), length 1."""
    mean = embedding.mean(axis=0)
    weight = np.clip(embedding @ mean / max(float(np.linalg.norm(mean)), 1e-8), 0, None) ** 2 + 1e-6
    centre = weight @ embedding
    return np.asarray(centre / max(float(np.linalg.norm(centre)), 1e-8), np.float32)


def robust_centres(embedding: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The robust centre of each person 0 .. max(codes): (people, d)."""
    return np.stack([robust_centre(embedding[codes == code]) for code in range(int(codes.max()) + 1)])
