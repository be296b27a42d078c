"""What is done to a person's variation codes between their first drawing and the images. One file adds a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from facegan.frozen import Frozen
from facegan.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from facegan.studio import Order, Studio

REFINEMENTS = Registry("refinement", __name__)


class RefinementConfig(Frozen):
    """What every refinement has: a literal `kind` and `refined`."""

    kind: str
    packages: ClassVar[tuple[str, ...]] = ()  # beside those that draw images, whose versions decide the codes

    def num_axes(self) -> int:
        """Along how many axes of variation, those of the largest variance, it moves; 0: it needs none."""
        return 0

    def refined(self, studio: Studio, order: Order, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Better variation codes (N, z_dim) float32 for a person's candidates, from those that were drawn.

        What comes out depends on `order`, `z`, the random numbers and what the studio measured once, and on no other
        person. The filters judge the images as ever.
        """
        raise TypeError(f"{type(self).__name__} must define refined()")
