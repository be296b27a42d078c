"""The distance of two images in the features of a recognizer: the perceptual and the identity term."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.errors import UserError
from facegan.recognition.embedder import Embedder


class GuideFeatures(nn.Module):
    """The guide's maps, the last of each side, and its embedding, of images NCHW float32 in -1..1.

    Raises UserError for a guide without a gradient.
    """

    def __init__(self, guide: Embedder) -> None:
        super().__init__()
        if not guide.has_gradient:
            raise UserError(
                "the guide has no gradient (it is ONNX), so nothing can be learned from its features",
                fix="set guide.start to another network, or perceptual and identity of the set to 0",
            )
        self.guide = guide.eval().requires_grad_(False)
        self.maps: dict[int, torch.Tensor] = {}
        for module in guide.backbone.modules():
            module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            self.maps[output.shape[-1]] = output

    def forward(self, img: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(maps, from large to small, each of unit length in its channels; embedding (N, d) of unit length)."""
        self.maps = {}
        embedding = F.normalize(self.guide(img.contiguous(memory_format=torch.channels_last)).float())
        maps = [F.normalize(self.maps[side].float(), dim=1) for side in sorted(self.maps, reverse=True)]
        self.maps = {}
        return maps, embedding


def distances(features: GuideFeatures, img: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(perceptual, identity) of images and the clean ones, NCHW in -1..1 -> two scalars; the gradient is of `img`.

    Perceptual: the squared distance of channels of unit length, mean over places, images and maps (Zhang et al. 2018,
    equation 1, without learned weights). Identity: 1 - cosine of the embeddings.
    """
    with torch.no_grad():
        wanted, who = features(clean)
    found, embedding = features(img)
    parts = [(a - b).square().sum(dim=1).mean() for a, b in zip(found, wanted, strict=True)]
    perceptual = torch.stack(parts).mean() if parts else img.new_zeros(())
    return perceptual, (1 - (embedding * who).sum(dim=1)).mean()
