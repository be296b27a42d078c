"""The embeddings of the network that a training began with, to which those of the trained one are held."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.errors import UserError


class Teacher:
    """A network as it is now, frozen, in eval mode; raises UserError where it is not `whole` (see Begun)."""

    def __init__(self, net: nn.Module, whole: bool, in_bfloat16: bool = False) -> None:
        if not whole:
            raise UserError(
                "train_recognizer.distil holds embeddings to those of the start, whose embedding layer is random",
                fix="give a start with its own embedding layer, or leave distil out (l2_sp holds weights)",
            )
        self.net, self.in_bfloat16 = copy.deepcopy(net).eval().requires_grad_(False), in_bfloat16

    @torch.no_grad()
    def embed(self, img: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, d) float32 of images (n, C, H, W) in -1..1."""
        with torch.autocast(img.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            embedding: torch.Tensor = self.net(img)
        return embedding.float()


def distance(embedding: torch.Tensor, held_to: torch.Tensor) -> torch.Tensor:
    """1 - cosine of embeddings (n, d) and those that they are held to, added up over n; a scalar.

    Only directions count, as in the angular distillation of Duong et al. 2019 (ShrinkTeaNet), here without its square:
    near the start, where a tuned network stays, a square would hold by next to nothing.
    """
    return (1 - F.cosine_similarity(embedding, held_to, dim=1)).sum()
