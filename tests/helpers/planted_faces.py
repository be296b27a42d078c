"""Faces as points in space, for comparisons of models by hand."""

from __future__ import annotations

import numpy as np

from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.promotion.gates import GateResults


def planted(noise: float, seed: int, people: int = 14, shots: int = 5, **group_noise: float) -> EmbeddedFaces:
    """People as points in space with photos around them, in the groups a and b in turn; `group_noise` is of one."""
    centres = np.random.default_rng(7).normal(size=(people, 8))
    person = np.repeat(np.arange(people), shots)
    group = np.array(list("ab"))[person % 2]
    spread = np.array([group_noise.get(name, noise) for name in group])[:, None]
    rows = centres[person] + spread * np.random.default_rng(seed).normal(size=(len(person), 8))
    names = [f"d/p{n:02d}" for n in person]
    return embed_faces(rows, names, [str(n) for n in range(len(person))], group.tolist())


def outcomes(results: GateResults) -> dict[str, str]:
    """{name of a gate: its outcome}."""
    return {gate.name: gate.outcome for gate in results.gates}
