"""What can be measured of a photo without a label and without a network, to group photos by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MEASURES = ("light", "sharpness")
"""light: mean grey value of the inner face, in [0, 1]. sharpness: facegan.data.preparation.quality, in [0, 1]."""


def measure(name: str, pixels: Any) -> NDArray[np.float64]:
    """One of MEASURES of each image: pixels (N, H, W, C) uint8 -> (N,)."""
    from facegan.data.preparation import quality

    of_image = {"light": lambda image: quality.central_grey(image).mean() / 255, "sharpness": quality.sharpness}[name]
    return np.asarray([of_image(pixels[row]) for row in range(len(pixels))], np.float64)
