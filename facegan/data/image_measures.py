"""What can be measured of a photo without a label and without a network, to group photos by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MEASURES = ("light", "sharpness")
"""light: mean grey value of the inner face, in [0, 1]. sharpness: facegan.data.preparation.quality, in [0, 1]."""
GREY = 0.02  # a photo of no more colour is grey: as JPEG, grey photos are not quite
"""colour: mean difference of the largest and the smallest channel, in [0, 1]; photos are grey or not, so no groups."""


def measure(name: str, pixels: Any) -> NDArray[np.float64]:
    """One of MEASURES, or colour, of each image: pixels (N, H, W, C) uint8 or what reads like it -> (N,)."""
    from facegan.data.preparation import quality

    of_image = {
        "light": lambda image: quality.central_grey(image).mean() / 255,
        "sharpness": quality.sharpness,
        "colour": lambda image: (image.max(axis=2) - image.min(axis=2)).mean() / 255,
    }[name]
    return np.asarray([of_image(pixels[row : row + 1][0]) for row in range(len(pixels))], np.float64)
