"""Softmax over cosines, without a margin: the baseline of the family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from facegan.recognition.heads import HEADS, HeadConfig
from facegan.recognition.heads.scale import QUARTER, Scale, scale_for

if TYPE_CHECKING:
    from torch import nn


@HEADS.register
class Softmax(HeadConfig):
    """s cos(theta): embedding and class centres normalised, as verification does (Wang et al. 2017)."""

    kind: Literal["softmax"] = "softmax"
    s: Scale = 0.0

    def build(self, num_classes: int, embedding_dim: int) -> nn.Module:
        """See HeadConfig; raises ValueError for fewer than two classes."""
        from facegan.recognition.heads.networks.margins import CosineHead

        return CosineHead(num_classes, embedding_dim, scale_for(self.s, num_classes, math.cos(QUARTER)))
