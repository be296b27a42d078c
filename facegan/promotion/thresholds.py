"""Operating thresholds: chosen on val people, and the rates that they give on test people, who chose nothing."""

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
    val_pairs, test_pairs = _pairs(val), _pairs(test)
    points: list[dict[str, Any]] = []
    for far in FARS:
        resolution = resolvable(far, val_pairs.n_impostor)
        if not resolution.ok:
            return [*points, {"far": far, "threshold": None, "why": resolution.reason}]
        threshold = threshold_at_far(_scores(val_pairs)[1], far)
        points.append(
            {
                "far": far,
                "threshold": threshold,
                "chosen_on": _rates(val_pairs, threshold),
                "measured_on": _rates(test_pairs, threshold),
            }
        )
    return points


def _pairs(faces: EmbeddedFaces) -> SmallSet | LargeSet:
    return all_pairs(faces.embedding, faces.person, faces.acquired)


def _scores(pairs: SmallSet | LargeSet) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor scores."""
    if isinstance(pairs, LargeSet):
        return pairs.genuine, pairs.sorted_impostors[0]
    return pairs.pairs.score[pairs.pairs.genuine], pairs.pairs.score[~pairs.pairs.genuine]


def _rates(pairs: SmallSet | LargeSet, threshold: float) -> dict[str, Any]:
    genuine, impostor = _scores(pairs)
    return {
        "people": pairs.n_people,
        "genuine": len(genuine),
        "impostor": len(impostor),
        "far": float(np.mean(impostor >= threshold)),
        "tar": float(np.mean(genuine >= threshold)),
    }
