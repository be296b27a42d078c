"""Photos without colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from facegan.data.conditions import CONDITIONS, ConditionConfig

if TYPE_CHECKING:
    import numpy as np


@CONDITIONS.register
class Grey(ConditionConfig):
    """Without colour: the luma of ITU-R BT.601 in all channels."""

    kind: Literal["grey"] = "grey"

    def changed(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See ConditionConfig; a picture of one channel stays as it is."""
        import cv2
        import numpy as np

        if pixels.shape[2] == 1:
            return pixels
        return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
