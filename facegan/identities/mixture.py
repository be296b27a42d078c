"""New people as mixtures of training people's identity codes (AugGen, SynFace)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.identities import IDENTITIES, IdentitiesConfig

if TYPE_CHECKING:
    import numpy as np

    from facegan.identities._proposal import Proposal


@IDENTITIES.register
class Mixture(IdentitiesConfig):
    """A convex mixture of `parents` codes, brought back to the length that a training code has.

    Averaging shrinks codes towards the mean, where faces are bland and all alike; the mixture's deviation from the
    mean code is therefore scaled to the weighted mean of its parents' deviations.
    """

    kind: Literal["mixture"] = "mixture"
    parents: int = Field(2, ge=2, le=20, title="Parents", description="training people in each mixture")
    concentration: float = Field(
        5.0, gt=0, title="Concentration", description="of the Dirichlet weights; large means equal shares"
    )

    def propose(self, codes: np.ndarray, count: int, rng: np.random.Generator) -> list[Proposal]:
        """See IdentitiesConfig; raises ValueError with fewer training people than parents."""
        import numpy as np

        from facegan.identities._proposal import Proposal

        if len(codes) < self.parents:
            raise ValueError(f"a mixture of {self.parents} people needs as many, got {len(codes)}")
        mean = codes.mean(axis=0)
        proposals = []
        for _ in range(count):
            parents = rng.choice(len(codes), self.parents, replace=False)
            weights = rng.dirichlet(np.full(self.parents, self.concentration))
            deviations = codes[parents] - mean
            mixed = weights @ deviations
            length = weights @ np.linalg.norm(deviations, axis=1)
            mixed *= length / max(float(np.linalg.norm(mixed)), 1e-8)
            proposals.append(Proposal((mean + mixed).astype(np.float32), tuple(map(int, parents)), weights))
        return proposals
