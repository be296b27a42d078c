"""Conditions under which photos are tested: the same photos, poorer or in another light. One file adds a member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np

CONDITIONS = Registry("condition", __name__)


class ConditionConfig(Options):
    """What every condition has: a literal `kind`, and `changed`."""

    kind: str

    def changed(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A square picture (side, side, C) uint8 under the condition, of the same shape; `rng` draws what is random."""
        raise TypeError(f"{type(self).__name__} must define changed()")
