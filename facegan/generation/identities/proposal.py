"""What a sampler of identities hands back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Proposal:
    """A proposed person: `code` (code_dim,) float32, the training people, by row, whom it descends from, and the
    share of each (sums to 1)."""

    code: np.ndarray
    parents: tuple[int, ...]
    weights: np.ndarray
