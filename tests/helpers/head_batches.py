"""Heads and batches that are hard for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facegan.recognition.heads import HEADS

KINDS = list(HEADS.load())


CLASSES, DIM = 7, 5


def make(kind: str, num_classes: int = CLASSES, embedding_dim: int = DIM, **config: Any) -> Any:
    torch.manual_seed(0)
    return HEADS.get(kind)(**config).build(num_classes, embedding_dim)


def hard_batch(head: Any) -> tuple[Tensor, Tensor]:
    """Random embeddings of many lengths, some close to their class centre, some opposite (theta > pi - m)."""
    label = torch.arange(40) % CLASSES
    centre = F.normalize(head.weight.detach()[label])
    side = torch.tensor([0.0, 3.0, -3.0, -30.0]).repeat(10)[:, None]
    embedding = F.normalize(side * centre + torch.randn(40, DIM, dtype=centre.dtype))
    return embedding * torch.logspace(-4, 2.5, 40, dtype=centre.dtype)[torch.randperm(40), None], label
