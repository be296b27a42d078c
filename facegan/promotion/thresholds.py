"""Operating thresholds: chosen on val people, and what they turn out to give on people who chose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.metrics.all_pairs import LargeSet, SmallSet, all_pairs
from facegan.metrics.verification import resolvable, threshold_at_far

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def operating_points(val: EmbeddedFaces, test: EmbeddedFaces) -> list[dict[str, Any]]:
    """For each of FARS the threshold (cosine; accept at or above), as far as val's impostor pairs resolve it.

    Each is {far, threshold, chosen_on, measured_on}, the latter {people, genuine, impostor, far, tar} on val and on
    test people; the first that is not resolvable is {far, threshold: None, why}, and ends the list. Of single images,
    never of templates. Raises ValueError where val or test has no genuine or no impostor pair. Source: metrics.
    """
    chosen, measured = _pairs(val), _pairs(test)
    found: list[dict[str, Any]] = []
    for far in FARS:
        resolution = resolvable(far, chosen.n_impostor)
        if not resolution.ok:
            return [*found, {"far": far, "threshold": None, "why": resolution.reason}]
        at = threshold_at_far(_scores(chosen)[1], far)
        found.append({"far": far, "threshold": at, "chosen_on": _at(chosen, at), "measured_on": _at(measured, at)})
    return found


def _pairs(faces: EmbeddedFaces) -> SmallSet | LargeSet:
    return all_pairs(faces.embedding, faces.person, faces.acquired)


def _scores(pairs: SmallSet | LargeSet) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor scores."""
    if isinstance(pairs, LargeSet):
        return pairs.genuine, pairs.sorted_impostors[0]
    return pairs.pairs.score[pairs.pairs.genuine], pairs.pairs.score[~pairs.pairs.genuine]


def _at(pairs: SmallSet | LargeSet, threshold: float) -> dict[str, Any]:
    genuine, impostor = _scores(pairs)
    return {
        "people": pairs.n_people,
        "genuine": len(genuine),
        "impostor": len(impostor),
        "far": float(np.mean(impostor >= threshold)),
        "tar": float(np.mean(genuine >= threshold)),
    }
