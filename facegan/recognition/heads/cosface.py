"""CosFace: a margin on the cosine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.recognition.heads import HEADS, HeadConfig
from facegan.recognition.heads.scale import QUARTER, Scale, scale_for

if TYPE_CHECKING:
    from torch import nn


@HEADS.register
class CosFace(HeadConfig):
    """s (cos(theta) - m) for the own class (Wang et al. 2018, equation 4)."""

    kind: Literal["cosface"] = "cosface"
    s: Scale = 0.0
    m: float = Field(0.35, ge=0, le=0.6, description="taken off the own class's cosine")

    def build(self, num_classes: int, embedding_dim: int) -> nn.Module:
        """See HeadConfig; raises ValueError for fewer than two classes."""
        from facegan.recognition.heads.networks.margins import CosFaceHead

        s = scale_for(self.s, num_classes, math.cos(QUARTER) - self.m)
        return CosFaceHead(num_classes, embedding_dim, s, self.m)
