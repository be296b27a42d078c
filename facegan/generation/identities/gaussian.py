"""New people drawn from a Gaussian fitted to the training people's identity codes (as Vec2Face does in PCA space)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.generation.identities import IDENTITIES, IdentitiesConfig, Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


@IDENTITIES.register
class Gaussian(IdentitiesConfig):
    """code = mean + spread * sum_k sigma_k a_k v_k, with v_k, sigma_k the codes' principal axes and a ~ N(0, 1).

    Every training person is a parent: the draw descends from all of them.
    """

    kind: Literal["gaussian"] = "gaussian"
    spread: float = Field(1.0, gt=0, le=3, description="in standard deviations of the real codes")

    def proposals(self, codes: np.ndarray, rng: np.random.Generator) -> Iterator[Proposal]:
        """See IdentitiesConfig; raises ValueError with fewer than two training people."""
        import numpy as np

        if len(codes) < 2:
            raise ValueError(f"a Gaussian needs the codes of two people or more, got {len(codes)}")
        mean = codes.mean(axis=0)
        shares_of_axes, singular, axes = np.linalg.svd(codes - mean, full_matrices=False)
        sigma = singular / np.sqrt(len(codes) - 1)
        everyone, shares = tuple(range(len(codes))), np.full(len(codes), 1 / len(codes))
        while True:
            deviation = rng.standard_normal(len(sigma)) * sigma * self.spread
            code_weights = shares + shares_of_axes @ (deviation / np.maximum(singular, 1e-8))
            yield Proposal((mean + deviation @ axes).astype(np.float32), everyone, shares, code_weights)
