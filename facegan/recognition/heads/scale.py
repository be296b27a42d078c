"""The scale s that all heads share, and how it is chosen where it is not given. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

Scale = Annotated[
    float,
    Field(
        ge=0,
        le=256,
        description="multiplies the cosines before the softmax; 0: chosen from the number of people and the "
        "margin (the papers' 64 is for 10k people and more)",
    ),
]

QUARTER = math.pi / 4  # AdaCos: a typical angle to the own class centre, about half way through training


def scale_for(s: float, num_classes: int, target: float) -> float:
    """s where it is not 0, else the s that gives p = 1/2 to an image 45 degrees from its class centre.

    `target` is the cosine of that image after the margin (cos(pi/4) without one); the other centres are taken
    to be at right angles: exp(s target) = C - 1, so s = log(C - 1) / target, at most 64. Without a margin it
    is AdaCos's fixed scale, sqrt(2) log(C - 1) (Zhang et al. 2019, section 4.1). Putting the margin in is
    ours: without it, CosFace would hold even a perfect image of one of 20 people at p < 1/2.
    Raises ValueError for fewer than two classes (fewer than 10 count as 10: log(1) is 0).
    """
    if num_classes < 2:
        raise ValueError(f"a head tells two or more classes apart, got {num_classes}")
    return s or min(64.0, math.log(max(num_classes, 10) - 1) / target)
