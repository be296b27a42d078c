"""From nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.recognition.starts import STARTS, Asked, StartConfig

if TYPE_CHECKING:
    from torch import nn


@STARTS.register
class Random(StartConfig):
    """`train_recognizer.backbone` and an embedding layer with random weights: the default."""

    words: ClassVar[str] = "random weights"
    licenses: ClassVar[tuple[str, ...] | None] = ()
    kind: Literal["random"] = "random"

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        from facegan.recognition.starts.networks.backbone import timm_backbone

        return timm_backbone(asked.backbone, asked.backbone_args, asked.channels, asked.size_px)
