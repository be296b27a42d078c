"""Photos of a poor camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from facegan.data.conditions import CONDITIONS, ConditionConfig
from facegan.data.degradation import Degradation

if TYPE_CHECKING:
    import numpy as np


@CONDITIONS.register
class Degraded(Degradation, ConditionConfig):
    """Blurred, scaled down, with noise and as JPEG, as the augmenter `degrade` does.

    Ranges and sources in facegan.data.degradation.
    """

    kind: Literal["degraded"] = "degraded"

    def changed(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See ConditionConfig."""
        return self.degraded(pixels, rng)
