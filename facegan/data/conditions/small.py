"""Photos of few pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.data.conditions import CONDITIONS, ConditionConfig

if TYPE_CHECKING:
    import numpy as np


@CONDITIONS.register
class Small(ConditionConfig):
    """Scaled down to few pixels (means of areas), and up again (linear)."""

    kind: Literal["small"] = "small"
    side_px: int = Field(32, ge=4, description="side of the small photo; one that is smaller already stays as it is")

    def changed(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See ConditionConfig."""
        from facegan.data.pixels import resized

        side = len(pixels)
        return pixels if side <= self.side_px else resized(resized(pixels, self.side_px), side)
