"""Truncation: codes nearer to the middle of what the generator has learned, for fewer kinds of faces and better ones.

`benchmarks/generators.py` measures both ends of that trade.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import ndtr, ndtri

from facegan.generation.identities import Proposal


def variation(rng: np.random.Generator, count: int, dim: int, bound: float | None) -> np.ndarray:
    """Variation codes (count, dim) float64 from N(0, 1), within -bound..bound where there is one.

    The truncation trick (Brock et al. 2019, section 3.1): distributed as if values beyond the bound were drawn again.
    """
    if bound is None:
        return rng.standard_normal((count, dim))
    outside = ndtr(-bound)
    drawn: np.ndarray = ndtri(outside + rng.random((count, dim)) * (1 - 2 * outside))
    return drawn


def identity(proposal: Proposal, codes: np.ndarray, psi: float) -> Proposal:
    """The proposed person, whose code is mean + psi (code - mean) (Karras et al. 2019, StyleGAN, appendix B).

    `codes` (people, code_dim) are the training people's, of whom everybody has a share of the mean: its
    `code_weights` say how much.
    """
    if psi == 1:
        return proposal
    people, mean = len(codes), codes.mean(axis=0)
    weights = proposal.all_weights(people)
    code = (mean + psi * (proposal.code - mean)).astype(np.float32)
    return dataclasses.replace(proposal, code=code, code_weights=psi * weights + (1 - psi) / people)
