"""A list of pairs in the form of LFW's View 2, and embeddings of its images."""

from __future__ import annotations

import numpy as np

from drawn import draw_face
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces

FOLDS, EACH = 5, 6


def view2(folds: int = FOLDS, count: int = EACH) -> str:
    """A list in the form of View 2 whose folds share no person: person P<fold>_<n> has four images."""
    rng = np.random.default_rng(0)
    lines = [f"{folds}\t{count}"]
    for fold in range(folds):
        for n in range(count):
            one, other = rng.choice(4, 2, replace=False) + 1
            lines.append(f"P{fold}_{n}\t{one}\t{other}")
        for n in range(count):
            lines.append(f"P{fold}_{n}\t{rng.integers(4) + 1}\tP{fold}_{(n + 1) % count}\t{rng.integers(4) + 1}")
    return "\n".join(lines) + "\n"


def drawn_faces(**options: object) -> EmbeddedFaces:
    """A fixed random projection of the pixels of drawn faces, of all people of `view2`."""
    who = [(f"P{fold}_{n}", fold * EACH + n) for fold in range(FOLDS) for n in range(EACH)]
    pixels = np.stack([draw_face(seed, shot, 24, 24).ravel() for _, seed in who for shot in range(4)])
    rows = (pixels - pixels.mean(axis=1, keepdims=True)) @ np.random.default_rng(1).normal(size=(24 * 24, 32))
    names = [f"d/{name}" for name, _ in who for _ in range(4)]
    return embed_faces(
        rows, names, [f"{name}/{name}_{shot:04d}.png" for name, _ in who for shot in range(1, 5)], **options
    )  # type: ignore[arg-type]
