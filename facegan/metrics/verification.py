"""Verification metrics of a recognizer: pure functions over embeddings, scores and people.

Everywhere: a score is a cosine similarity, higher means more alike; a pair is accepted where
score >= threshold; FAR is the share of impostor pairs accepted, FRR the share of genuine pairs rejected,
TAR = 1 - FRR, all as fractions in [0, 1] (ISO/IEC 19795-1:2021: FMR, FNMR at the level of comparisons).
Only numpy is imported, and nothing loops over pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int32]

MIN_FALSE_ACCEPTS = 10
"""A FAR is resolvable when at least this many impostor pairs may be accepted at it."""

FAILED = -2.0
"""The score of a pair that could not be compared, since an image of it gave no embedding (failure to acquire).

It lies below every cosine, so that no threshold accepts it: such a genuine pair is rejected and such an impostor
pair is not accepted. Rates over all pairs are then FRR = FTA + FNMR (1 - FTA) and FAR = FMR (1 - FTA) of ISO/IEC
19795-1, with FTA the share of such pairs. An accuracy counts these pairs as wrong, whichever they are.
"""

_BLOCK = 2**22  # scores computed at once
_ROUNDING = 1e-9  # of a pair or a rate: 0.29 * 100 is 28.999999999999996


@dataclass(frozen=True)
class PairScores:
    """All pairs of a set of images, each pair once and no image with itself.

    score: float32 (P,), cosine in [-1, 1]. genuine: bool (P,), both images are of one person.
    first, second: int32 (P,), the person on either side, 0 .. n_people - 1, in the order of the sorted codes.
    """

    score: NDArray[np.float32]
    genuine: Bools
    first: Ints
    second: Ints

    @property
    def n_people(self) -> int:
        """How many people the pairs are of."""
        return int(max(self.first.max(), self.second.max())) + 1

    @property
    def n_genuine(self) -> int:
        """How many pairs are of one person."""
        return int(np.count_nonzero(self.genuine))

    @property
    def n_impostor(self) -> int:
        """How many pairs are of two people."""
        return int(self.genuine.size - np.count_nonzero(self.genuine))


@dataclass(frozen=True)
class OperatingCurve:
    """Every distinct operating point, thresholds falling from inf (accept nothing) to the lowest score.

    thresholds, far, frr: float64 (K + 1,) for K distinct scores; far rises from 0 to 1, frr falls from 1 to
    0.
    """

    thresholds: NDArray[np.float64]
    far: NDArray[np.float64]
    frr: NDArray[np.float64]


class Resolution(NamedTuple):
    """Whether a FAR can be told apart from zero with the impostor pairs at hand; if not, why (else '')."""

    ok: bool
    reason: str


def unit_rows(embedding: ArrayLike) -> NDArray[np.float32]:
    """Scale each row to length one.

    embedding: (N, d), any real dtype -> float32 (N, d). A row of zeros stays zero: its cosine is 0 with all.
    Raises ValueError where the array is not (N, d) or holds NaN or infinity.
    """
    rows = np.asarray(embedding, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"embedding must be (N, d), got {rows.shape}: pass one row for each image")
    if not np.isfinite(rows).all():
        invalid = int(np.count_nonzero(~np.isfinite(rows).all(axis=1)))
        raise ValueError(f"embedding has {invalid} of {len(rows)} rows with NaN or infinity: train again")
    with np.errstate(over="ignore"):
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norm).all() or ((norm == 0) & rows.any(axis=1, keepdims=True)).any():  # squares left float32
        norm = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(norm > 0, norm, 1)).astype(np.float32)


def cosines_in_blocks(rows: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Cosines of each of N >= 1 rows of unit length with all, not clipped, in bounded memory.

    Yields the numbers (n,) of some rows, rising, and (n, N). Pairs that are counted by these products alone have the
    same cosines to the last bit.
    """
    size = max(1, _BLOCK // len(rows))
    for start in range(0, len(rows), size):
        block = np.arange(start, min(start + size, len(rows)))
        yield block, rows[block] @ rows.T  # a copy: all rows with themselves round otherwise


def person_codes(identity: ArrayLike, n: int) -> Ints:
    """Number the people 0 .. n_people - 1 in the order of their sorted codes.

    identity: (N,), integers (or strings) -> int32 (N,). Raises ValueError where its length is not n.
    """
    codes = np.asarray(identity)
    if codes.shape != (n,):
        raise ValueError(f"identity must have one code for each of {n} images, got shape {codes.shape}")
    return np.unique(codes, return_inverse=True)[1].astype(np.int32)


def pair_scores(embedding: ArrayLike, identity: ArrayLike, acquired: ArrayLike | None = None) -> PairScores:
    """Cosine of all pairs i < j: no image is compared with itself and no pair counts twice.

    embedding: float32 (N, d), any length. identity: int (N,). acquired: bool (N,), None: all; the pairs of other
    images score FAILED. P = N (N - 1) / 2 pairs, ordered by (i, j); about 30 bytes a pair at the peak. Raises
    ValueError for fewer than two images, wrong shapes, NaN.
    """
    rows = unit_rows(embedding)
    person = person_codes(identity, len(rows))
    if len(rows) < 2:
        raise ValueError(f"pairs need at least two images, got {len(rows)}: add test images")
    i, j = np.triu_indices(len(rows), k=1)
    score = np.clip((rows @ rows.T)[i, j], -1, 1)
    if acquired is not None:
        is_acquired = np.asarray(acquired, dtype=bool)
        score[~(is_acquired[i] & is_acquired[j])] = FAILED
    return PairScores(score, person[i] == person[j], person[i], person[j])


def _validated(
    scores: ArrayLike, genuine: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, Bools, NDArray[np.float64]]:
    score, is_genuine = np.asarray(scores), np.asarray(genuine, dtype=bool)
    weight = np.ones(score.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if score.ndim != 1 or is_genuine.shape != score.shape or weight.shape != score.shape:
        raise ValueError(
            f"scores, genuine and weights must be of one length, got {score.shape}, {is_genuine.shape}, "
            f"{weight.shape}: pass one of each for every pair"
        )
    if not np.isfinite(score).all():
        invalid = np.count_nonzero(~np.isfinite(score))
        raise ValueError(f"{invalid} of {score.size} scores are NaN or infinite: drop those pairs")
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError(f"weights must be finite and not negative, got a least of {weight.min()}: clip them")
    for name, total in (("genuine", weight[is_genuine].sum()), ("impostor", weight[~is_genuine].sum())):
        if total <= 0:
            raise ValueError(
                f"no {name} pair (with a weight above 0) among {score.size} pairs: add people with two images"
            )
    return score, is_genuine, weight


def operating_curve(scores: ArrayLike, genuine: ArrayLike, weights: ArrayLike | None = None) -> OperatingCurve:
    """FAR and FRR at every distinct score; tied scores move together.

    scores: (P,) finite. genuine: bool (P,). weights: (P,) >= 0, None: all one. Integer weights give what
    repeating the pairs gives. Raises ValueError for unequal lengths, NaN, negative weights, or where the
    genuine or the impostor side has no weight. Source: Fawcett 2006, Pattern Recognition Letters 27,
    algorithm 1 (ROC points at ties), with FAR = FPR and FRR = 1 - TPR.
    """
    score, is_genuine, weight = _validated(scores, genuine, weights)
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last = np.append(np.flatnonzero(np.diff(falling)), falling.size - 1)  # last pair of each tied group
    accepted_genuine = np.cumsum(np.where(is_genuine, weight, 0)[order])[last]
    accepted_impostor = np.cumsum(np.where(is_genuine, 0, weight)[order])[last]
    return OperatingCurve(
        np.append(np.inf, falling[last].astype(np.float64)),
        np.append(0, accepted_impostor / accepted_impostor[-1]),
        1 - np.append(0, accepted_genuine / accepted_genuine[-1]),
    )


def eer(scores: ArrayLike, genuine: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Equal error rate, a fraction: where FAR and FRR cross.

    With operating points k in the order of falling thresholds, d_k = FAR_k - FRR_k rises from -1 to 1. Let k be the
    first with d_k >= 0. On the straight line from point k - 1 to k, d is zero at u = -d_{k-1} / (d_k - d_{k-1}),
    and EER = FAR_{k-1} + u (FAR_k - FAR_{k-1}). A line on which only one rate moves (no tie between genuine and
    impostor scores) gives the value of the rate that stands still. NaN where so many pairs FAILED that the rates do
    not cross at any cosine. Arguments and errors as for operating_curve. Source: Maio et al. 2002, FVC2000, IEEE
    PAMI 24(3), section 4 (EER from the bracketing thresholds), with the line in place of their midpoint.
    """
    curve = operating_curve(scores, genuine, weights)
    k = int(np.argmax(curve.far >= curve.frr))  # never 0: there far = 0 < frr = 1
    if curve.thresholds[k] == FAILED:
        return float("nan")
    before, after = curve.frr[k - 1] - curve.far[k - 1], curve.far[k] - curve.frr[k]
    u = before / (before + after)
    return float(curve.far[k - 1] + u * (curve.far[k] - curve.far[k - 1]))


def compared(pairs: PairScores) -> PairScores:
    """The pairs that did not FAIL, of people numbered as before."""
    kept = pairs.score > FAILED
    return PairScores(pairs.score[kept], pairs.genuine[kept], pairs.first[kept], pairs.second[kept])


def equal_errors(value: float) -> tuple[float | None, str]:
    """An equal error rate with its note: None and why where `eer` found none."""
    return (None, "so many images gave no embedding that FRR never falls to FAR") if np.isnan(value) else (value, "")


def resolvable(far: float, n_impostor: int) -> Resolution:
    """Whether n_impostor pairs can say anything about a FAR: far x n_impostor must reach 10.

    far: fraction in (0, 1). Raises ValueError outside. A rule of thumb: ten expected false accepts give a
    relative standard error of about 1 / sqrt(10) were the pairs independent, and they are not. Compare the
    "rule of 30" of Doddington et al. 2000, Speech Communication 31, which asks for thirty.
    """
    if not 0 < far < 1:
        raise ValueError(f"far must lie between 0 and 1, got {far}: give a fraction such as 0.01")
    ok = far * n_impostor + _ROUNDING >= MIN_FALSE_ACCEPTS
    return Resolution(ok, "" if ok else f"not resolvable with {n_impostor} impostor pairs")


def allowed_at_far(far: float, n_impostor: int) -> int:
    """How many of `n_impostor` pairs may be accepted at a share `far` of them."""
    return int(np.floor(far * n_impostor + _ROUNDING))


def threshold_at_far(impostor_scores: ArrayLike, far: float) -> float:
    """Lowest threshold at which at most a share `far` of the impostor scores is accepted (>=).

    impostor_scores: (n,), any order -> a float just above the score that would be one too many; ties never
    slip in. The same threshold serves the false-match rate of the synthesize stage on val impostors. Where
    far is too small to resolve it stands above every impostor: ask resolvable(). Raises ValueError for no
    scores, NaN, or far outside [0, 1).
    """
    score = np.asarray(impostor_scores)
    if score.ndim != 1 or score.size == 0 or not np.isfinite(score).all():
        raise ValueError(f"need a list of finite impostor scores, got shape {score.shape}: add people")
    if not 0 <= far < 1:
        raise ValueError(f"far must lie in [0, 1), got {far}: give a fraction such as 0.01")
    allowed = allowed_at_far(far, score.size)
    one_too_many = np.partition(score, score.size - 1 - allowed)[score.size - 1 - allowed]
    return float(np.nextafter(one_too_many, np.asarray(np.inf, dtype=score.dtype)))


def tar_at_far(scores: ArrayLike, genuine: ArrayLike, far: float) -> float | None:
    """Share of genuine pairs accepted at the largest empirical FAR not above `far`.

    Returns None where far x impostor pairs < 10 (the reason: resolvable()). No interpolation: the operating
    point is one that the data has. Arguments and errors as for operating_curve and resolvable.
    Source: Grother et al., NIST IR 8271 (FRVT part 1), FNMR at the threshold of a FMR.
    """
    score, is_genuine, _ = _validated(scores, genuine, None)
    if not resolvable(far, int(np.count_nonzero(~is_genuine))).ok:
        return None
    return float(np.mean(score[is_genuine] >= threshold_at_far(score[~is_genuine], far)))


def det_curve(scores: ArrayLike, genuine: ArrayLike, max_points: int = 500) -> OperatingCurve:
    """Operating curve thinned for drawing FRR over FAR on logarithmic or normal-deviate axes.

    Keeps the ends and, of the rest, the points nearest to equal steps along the curve on logit axes, where
    the corners of a DET lie; at most max_points (>= 2) in all, each a point of operating_curve. Errors as
    there. Source: Martin et al. 1997, "The DET curve in assessment of detection task performance",
    Eurospeech.
    """
    return thinned(operating_curve(scores, genuine), max_points)


def thinned(curve: OperatingCurve, max_points: int = 500) -> OperatingCurve:
    """At most max_points of a curve, both ends among them: see det_curve. Raises ValueError below two."""
    if max_points < 2:
        raise ValueError(f"max_points must be at least 2, got {max_points}: a curve has two ends")
    n = curve.far.size
    if n <= max_points:
        return curve
    floor = 0.5 / n
    rates = np.clip(np.stack([curve.far, curve.frr]), floor, 1 - floor)
    logit = np.log(rates / (1 - rates))
    path = np.append(0, np.cumsum(np.hypot(*np.diff(logit, axis=1))))
    keep = np.unique(np.searchsorted(path, np.linspace(0, path[-1], max_points)))
    keep = np.unique(np.append(keep[1:-1], [0, n - 1]))
    return OperatingCurve(curve.thresholds[keep], curve.far[keep], curve.frr[keep])


@dataclass(frozen=True)
class FoldAccuracy:
    """Verification accuracy over person-disjoint folds.

    mean: mean of the folds' accuracies, fraction. std_error: their standard deviation (n_folds - 1) /
    sqrt(n_folds). n_pairs: pairs judged. pair: int64 (n_pairs,), their places in the PairScores. fold: int32
    (n_pairs,). correct: bool (n_pairs,), judged rightly. of_fold, threshold: float64 (n_folds,), the accuracy and
    the threshold of each.
    """

    mean: float
    std_error: float
    n_folds: int
    n_pairs: int
    pair: NDArray[np.int64]
    fold: Ints
    correct: Bools
    of_fold: NDArray[np.float64]
    threshold: NDArray[np.float64]


def person_folds(pairs: PairScores, folds: int = 10, seed: int = 0) -> Ints:
    """The fold of each person of the pairs: see deal_people."""
    has_pair = np.zeros(pairs.n_people, dtype=bool)
    has_pair[pairs.first[pairs.genuine]] = True
    return deal_people(has_pair, folds, seed)


def deal_people(paired: Bools, folds: int = 10, seed: int = 0) -> Ints:
    """Deal the people into folds: int32 (n_people,), the fold of each, the same for the same people and seed.

    paired: bool (n_people,), who has two images or more. Every fold needs two people (else it has no impostor
    pair) and a person with two images (else no genuine pair), so there are min(folds, people // 2, people with
    two images) folds. Raises ValueError below two.
    """
    n_folds = min(folds, paired.size // 2, int(paired.sum()))
    if n_folds < 2:
        raise ValueError(
            f"folds need four people, two of them with two images or more; got {paired.size} people, "
            f"{paired.sum()} with two images, {folds} folds: add test people"
        )
    order = np.random.default_rng(seed).permutation(paired.size)
    order = np.concatenate([order[paired[order]], order[~paired[order]]])
    fold = np.empty(paired.size, dtype=np.int32)
    fold[order] = np.arange(paired.size) % n_folds
    return fold


def _best_threshold(score: Floats, genuine: Bools) -> float:
    """Midpoint between two scores with the most right answers; of several such, the middle one."""
    curve = operating_curve(score, genuine)
    n_genuine = np.count_nonzero(genuine)
    errors = np.rint(curve.far * (genuine.size - n_genuine) + curve.frr * n_genuine)  # wrong answers
    best = np.flatnonzero(errors == errors.min())
    k = int(best[len(best) // 2])
    if k == 0:
        return float(np.nextafter(score.max(), np.asarray(np.inf, dtype=score.dtype)))
    return float(curve.thresholds[k] if k + 1 == errors.size else curve.thresholds[k : k + 2].mean())


def accuracy_10fold(pairs: PairScores, folds: int = 10, seed: int = 0) -> FoldAccuracy:
    """Accuracy on balanced pairs, the threshold of each fold chosen on the other folds.

    People are dealt into folds (person_folds; fewer than ten where people are few); a fold judges pairs
    within its own people only, as many genuine as impostor ones, drawn without replacement from `seed`, so
    that arms with the same test images judge the same pairs. Raises ValueError as person_folds. Source:
    Huang et al. 2007, "Labeled Faces in the Wild", UMass Amherst TR 07-49, view 2, eq. 1-3 (ten folds of
    300 + 300 pairs there).
    """
    of_person = person_folds(pairs, folds, seed)
    n_folds = int(of_person.max()) + 1
    rng = np.random.default_rng([seed, 1])
    fold_of_pair = np.where(of_person[pairs.first] == of_person[pairs.second], of_person[pairs.first], -1)
    chosen = []
    for k in range(n_folds):
        sides = [np.flatnonzero((fold_of_pair == k) & side) for side in (pairs.genuine, ~pairs.genuine)]
        size = min(map(len, sides))
        chosen += [np.sort(rng.permutation(side)[:size]) for side in sides]
    pair = np.concatenate(chosen).astype(np.int64)
    return accuracy_of_folds(pairs, pair, fold_of_pair[pair].astype(np.int32))


def accuracy_of_folds(pairs: PairScores, pair: NDArray[np.int64], fold: Ints) -> FoldAccuracy:
    """Accuracy on given folds: the share of right answers in each, with the threshold that is best on the others.

    pair: int64 (n,), places in `pairs`. fold: int32 (n,), 0 .. n_folds - 1, two or more and none of them empty. The
    threshold lies midway between two scores of the other folds, the middle one of the places with the most right
    answers there. A pair that FAILED is wrong. Raises ValueError where the other folds of one have no genuine or no
    impostor pair. Source: Huang et al. 2007, UMass Amherst TR 07-49, view 2: mean p = sum p_i / 10 and standard
    error S_E = s / sqrt(10), with s the standard deviation of the ten p_i (divided by 9).
    """
    score, genuine, n_folds = pairs.score[pair], pairs.genuine[pair], int(fold.max()) + 1
    if n_folds < 2:
        raise ValueError("an accuracy needs two folds: the threshold of one is chosen on the others")
    threshold = np.asarray([_best_threshold(score[fold != k], genuine[fold != k]) for k in range(n_folds)])
    correct = ((score >= threshold[fold]) == genuine) & (score > FAILED)
    of_fold = np.bincount(fold, weights=correct) / np.bincount(fold)
    error = float(of_fold.std(ddof=1) / np.sqrt(n_folds))
    return FoldAccuracy(float(of_fold.mean()), error, n_folds, len(pair), pair, fold, correct, of_fold, threshold)
