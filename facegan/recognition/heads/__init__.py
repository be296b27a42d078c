"""Classification heads: the loss that shapes the embedding. One file adds a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

HEADS = Registry("head", __name__)


class HeadConfig(Options):
    """What every head config has: a literal `kind` and `build`.

    `sees_batch`: what an image's logits are depends on the others of its batch, or of batches before.
    """

    sees_batch: ClassVar[bool] = False
    kind: str

    def build(self, num_classes: int, embedding_dim: int) -> nn.Module:
        """The head as a module: forward(embedding (N, embedding_dim) float, not normalised; label (N,) int64)
        -> logits (N, num_classes) float, scaled and with the margin applied, ready for cross-entropy.
        """
        raise TypeError(f"{type(self).__name__} must define build()")
