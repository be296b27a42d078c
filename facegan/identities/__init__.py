"""How new identities are made in a generator's code space. One file adds a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from facegan.frozen import Frozen
from facegan.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from facegan.identities._proposal import Proposal

IDENTITIES = Registry("identity sampler", __name__)


class IdentitiesConfig(Frozen):
    """What every sampler of identities has: a literal `kind` and `propose`."""

    kind: str
    mixes: ClassVar[bool] = False  # whether the weights of a proposal say how much of each parent is in it

    def propose(self, codes: np.ndarray, count: int, rng: np.random.Generator) -> list[Proposal]:
        """`count` proposed people from the training people's codes (num_identities, code_dim) float32."""
        raise TypeError(f"{type(self).__name__} must define propose()")
