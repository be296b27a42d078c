"""AdaFace: a margin that asks more of hard images where they are good, less where they are poor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.recognition.heads import HEADS, HeadConfig
from facegan.recognition.heads.scale import QUARTER, Scale, scale_for

if TYPE_CHECKING:
    from torch import nn


@HEADS.register
class AdaFace(HeadConfig):
    """s (cos(theta - m z) - m z - m) for the own class (Kim et al. 2022, section 3.3).

    z in -1..1 is the embedding's length relative to the others', taken for the image's quality.
    """

    sees_batch: ClassVar[bool] = True
    kind: Literal["adaface"] = "adaface"
    s: Scale = 0.0
    m: float = Field(
        0.4,
        ge=0,
        le=0.6,
        description="taken off the cosine where quality is average, added to the angle where it is poor",
    )
    h: float = Field(
        0.333,
        gt=0,
        le=1,
        description="quality is cut off at 1 / h standard deviations",
    )
    t_alpha: float = Field(0.01, gt=0, le=1, description="weight of a new batch of lengths")

    def build(self, num_classes: int, embedding_dim: int) -> nn.Module:
        """See HeadConfig; raises ValueError for fewer than two classes."""
        from facegan.recognition.heads.networks.margins import AdaFaceHead

        s = scale_for(self.s, num_classes, math.cos(QUARTER) - self.m)  # at z = 0, where AdaFace is CosFace
        return AdaFaceHead(num_classes, embedding_dim, s, self.m, self.h, self.t_alpha)
