"""A recognizer of an earlier run, or a backbone of timm's with weights of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.recognition.starts import STARTS, Asked, Begun, FromFile

if TYPE_CHECKING:
    from torch import nn


@STARTS.register
class File(FromFile):
    """A safetensors file with a whole recognizer of ours, or with `train_recognizer.backbone` alone.

    Of a backbone alone the embedding layer begins at random, and the run says so.
    """

    words: ClassVar[str] = "weights from a file of one's own"
    kind: Literal["file"] = "file"

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        from facegan.recognition.starts.networks.backbone import timm_backbone

        return timm_backbone(asked.backbone, asked.backbone_args, asked.channels, asked.size_px)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig."""
        from facegan.training.weights import load_weights

        fit = load_weights(
            self.file,
            {"recognizer": net, "backbone": backbone},
            fix="choose what they were trained with: train_recognizer.backbone, backbone_args, and prepare.color",
        )
        whole = fit.part == "recognizer"
        return Begun(fit.text + ("" if whole else "; the embedding layer begins at random"), whole)
