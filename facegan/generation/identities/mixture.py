"""New people as mixtures of training people's identity codes (AugGen, SynFace)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.generation.identities import IDENTITIES, IdentitiesConfig, Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


@IDENTITIES.register
class Mixture(IdentitiesConfig):
    """A convex mixture of `parents` codes, brought back to the length that a training code has.

    Averaging shrinks codes towards the mean, where faces are bland and all alike; the mixture's deviation from the
    mean code is therefore scaled to the weighted mean of its parents' deviations.
    """

    kind: Literal["mixture"] = "mixture"
    parents: int = Field(12, ge=2, le=10_000, description="training people in each mixture; all where there are fewer")
    concentration: float = Field(10.0, gt=0, description="of the Dirichlet weights; large means equal shares")

    def proposals(self, codes: np.ndarray, rng: np.random.Generator) -> Iterator[Proposal]:
        """See IdentitiesConfig; raises ValueError with one training person.

        Where all people are in every mixture the weights still tell mixtures apart: what is scaled to length is
        how far the weights are from equal.
        """
        import numpy as np

        if len(codes) < 2:
            raise ValueError(f"a mixture needs two people or more, got {len(codes)}")
        mean, num_parents = codes.mean(axis=0), min(self.parents, len(codes))
        while True:
            parents = rng.choice(len(codes), num_parents, replace=False)
            weights = rng.dirichlet(np.full(num_parents, self.concentration))
            deviations = codes[parents] - mean
            mixed = weights @ deviations
            length = weights @ np.linalg.norm(deviations, axis=1)
            scale = length / max(float(np.linalg.norm(mixed)), 1e-8)
            code_weights = np.full(len(codes), (1 - scale) / len(codes))  # mean + scale (mix - mean), of everybody
            code_weights[parents] += scale * weights
            code = (mean + mixed * scale).astype(np.float32)
            yield Proposal(code, tuple(map(int, parents)), weights, code_weights)
