"""New people as a population whose codes push each other, and the training people's, apart."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from facegan.identities import IDENTITIES, IdentitiesConfig
from facegan.identities.gaussian import Gaussian
from facegan.identities.mixture import Mixture
from facegan.registry import NAMED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from facegan.identities._proposal import Proposal
    from facegan.identities._repulsion import Dynamics


@IDENTITIES.register
class Langevin(IdentitiesConfig):
    """Repulsion dynamics (Geissbühler et al. 2024, arXiv 2405.00228): soft particles with Brownian noise.

    A population of codes, begun as `start` draws them, goes down the energy

        sum_ij (d0 - |f_i - f_j|)_+^2 / 2 + sum_ip (d0 - |f_i - f_p|)_+^2 / 2 + pull sum_i (|x_i| - l_i)^2 / 2

    over pairs of new people i, j and over training people p, with noise that fades out. x is a code's deviation from
    the training people's mean, and f where the guide would see it by the linear map that leads from people's codes to
    their centres; d0 is a quantile of the distances between training people there. Between the codes themselves
    distance may mean nothing: those of `morphable` are all equally far apart. The paper has real embeddings in place of
    a linear map, and pulls to the mean itself, where faces are bland: here l_i is the length at which a code began.
    """

    kind: Literal["langevin"] = "langevin"
    start: Annotated[Mixture | Gaussian, Field(discriminator="kind"), NAMED] = Field(
        Mixture(), title="Start", description="how codes are drawn before they move"
    )
    population: int = Field(
        1000, ge=1, le=20_000, title="Population", description="who move at once; the next ones know nothing of them"
    )
    steps: int = Field(200, ge=0, le=10_000, title="Steps", description="of the dynamics")
    nearest: float = Field(
        0.1, gt=0, lt=1, title="Nearest", description="share of pairs of training people who are closer than d0"
    )
    pull: float = Field(
        10.0, ge=0, title="Pull", description="towards the length at which a code began; a pair's repulsion has 1"
    )
    noise: float = Field(0.02, ge=0, le=1, title="Noise", description="length of the first step's noise, in d0")

    def proposals(self, codes: np.ndarray, centres: np.ndarray, rng: np.random.Generator) -> Iterator[Proposal]:
        """See IdentitiesConfig; raises ValueError with fewer than two training people.

        The parents, who lend variation, are those of the draw that a code began as. Where codes are weights of people
        they are as many, those of the largest weights now.
        """
        import numpy as np
        from threadpoolctl import threadpool_limits

        from facegan.identities._proposal import Proposal
        from facegan.identities._repulsion import Dynamics

        source = self.start.proposals(codes, centres, rng)
        first, dynamics = next(source), None
        weights_of_people = np.array_equal(codes, np.eye(len(codes)))
        while True:
            drawn = [first, *islice(source, self.population - 1)]
            with threadpool_limits(1):  # rounding grows in such dynamics: the same steps on any number of cores
                dynamics = dynamics or Dynamics.of(codes, centres, self.nearest, self.pull)
                moved = dynamics.codes(self.moved(dynamics, dynamics.places(np.stack([p.code for p in drawn])), rng))
            for begun, code in zip(drawn, moved, strict=True):
                parents, weights = begun.parents, begun.weights
                if weights_of_people:
                    largest = np.argsort(-code, kind="stable")[: len(parents)]
                    largest = largest[code[largest] > 0]
                    parents, weights = tuple(map(int, largest)), code[largest] / code[largest].sum(dtype=np.float64)
                yield Proposal(code, parents, weights)
            first = next(source)

    def moved(self, dynamics: Dynamics, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Where places (n, r) lead."""
        import numpy as np

        lengths = np.linalg.norm(places, axis=1)
        for number in range(self.steps):
            noise = self.noise * dynamics.reach * (1 - (number + 1) / self.steps) / np.sqrt(places.shape[1])
            places = dynamics.step(places, lengths) + noise * rng.standard_normal(places.shape)
        return places
