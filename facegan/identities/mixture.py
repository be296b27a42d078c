"""New people as mixtures of training people's identity codes (AugGen, SynFace)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

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
    mixes: ClassVar[bool] = True
    parents: int = Field(
        2, ge=2, le=20, title="Parents", description="training people in each mixture; all where there are fewer"
    )
    concentration: float = Field(
        5.0, gt=0, title="Concentration", description="of the Dirichlet weights; large means equal shares"
    )

    def propose(self, codes: np.ndarray, count: int, rng: np.random.Generator) -> list[Proposal]:
        """See IdentitiesConfig; raises ValueError with one training person.

        Where all people are in every mixture the weights still tell mixtures apart: what is scaled to length is
        how far the weights are from equal.
        """
        import numpy as np

        from facegan.identities._proposal import Proposal

        if len(codes) < 2:
            raise ValueError(f"a mixture needs two people or more, got {len(codes)}")
        mean, num_parents = codes.mean(axis=0), min(self.parents, len(codes))
        proposals = []
        for _ in range(count):
            parents = rng.choice(len(codes), num_parents, replace=False)
            weights = rng.dirichlet(np.full(num_parents, self.concentration))
            deviations = codes[parents] - mean
            mixed = weights @ deviations
            length = weights @ np.linalg.norm(deviations, axis=1)
            mixed *= length / max(float(np.linalg.norm(mixed)), 1e-8)
            proposals.append(Proposal((mean + mixed).astype(np.float32), tuple(map(int, parents)), weights))
        return proposals
