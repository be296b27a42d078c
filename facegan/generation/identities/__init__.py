"""How new identities are made in a generator's code space. One file adds a member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from facegan.generation.identities.proposal import Proposal

IDENTITIES = Registry("identity sampler", __name__)


class IdentitiesConfig(Options):
    """What every sampler of identities has: a literal `kind` and `proposals`."""

    kind: str

    def proposals(self, codes: np.ndarray, centres: np.ndarray, rng: np.random.Generator) -> Iterator[Proposal]:
        """Proposed people without end, from one sequence of random numbers; none is worked out before it is asked for.

        `codes` (people, code_dim) float32 are the training people's, and `centres` (people, d) float32, unit rows, are
        where the guide sees them. Raises ValueError, when the next one is asked for, where nobody can be proposed.
        """
        raise TypeError(f"{type(self).__name__} must define proposals()")
