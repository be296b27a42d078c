"""ArcFace: a margin on the angle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.recognition.heads import HEADS, HeadConfig
from facegan.recognition.heads.scale import QUARTER, Scale, scale_for

if TYPE_CHECKING:
    from torch import nn


@HEADS.register
class ArcFace(HeadConfig):
    """s cos(theta + m) for the own class (Deng et al. 2019, equation 3)."""

    kind: Literal["arcface"] = "arcface"
    s: Scale = 0.0
    m: float = Field(0.5, ge=0, le=0.7, description="added to the angle to the own class")

    def build(self, num_classes: int, embedding_dim: int) -> nn.Module:
        """See HeadConfig; raises ValueError for fewer than two classes."""
        from facegan.recognition.heads.networks.margins import ArcFaceHead

        s = scale_for(self.s, num_classes, math.cos(QUARTER + self.m))
        return ArcFaceHead(num_classes, embedding_dim, s, self.m)
