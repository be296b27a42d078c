"""How new identities are made in a generator's code space. One file adds a member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

IDENTITIES = Registry("identity sampler", __name__)


@dataclass(frozen=True)
class Proposal:
    """A proposed person: `code` (code_dim,) float32, the rows of its parents among the training people, and the share
    of each (sums to 1).

    `code_weights` (people,) are signed and sum to 1, and `code` is their sum of all people's codes; None: the shares.
    """

    code: np.ndarray
    parents: tuple[int, ...]
    weights: np.ndarray
    code_weights: np.ndarray | None = None

    def all_weights(self, people: int) -> np.ndarray:
        """`code_weights` (people,), from the shares where it is None."""
        import numpy as np

        if self.code_weights is not None:
            return self.code_weights
        return np.bincount(self.parents, self.weights, minlength=people)


class IdentitiesConfig(Options):
    """What every sampler of identities has: a literal `kind` and `proposals`."""

    kind: str

    def proposals(self, codes: np.ndarray, rng: np.random.Generator) -> Iterator[Proposal]:
        """Proposed people without end, from one sequence of random numbers; each is computed when it is requested.

        `codes` (people, code_dim) float32 are the training people's. Raises ValueError, when the next one is requested,
        where nobody can be proposed.
        """
        raise TypeError(f"{type(self).__name__} must define proposals()")
