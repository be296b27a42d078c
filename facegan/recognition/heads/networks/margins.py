"""The heads as modules: cosines to the class centres, and what each margin does to the own class's cosine."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facegan.training import ranks

EPS = 1e-7  # keeps acos off +-1, where its slope is infinite: finite gradients, 5e-4 rad off at worst


def angle_of(cos: Tensor) -> Tensor:
    """The angle in radians; its gradient is finite everywhere and 0 within EPS of cos = +-1."""
    return torch.acos(cos.clamp(-1 + EPS, 1 - EPS))


def moments(values: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of (N,) float over all ranks; None where there is but one value."""
    if ranks.world_size() == 1:
        return (values.mean(), values.std()) if len(values) > 1 else None
    exact = values.double()  # sums of squares cancel
    count, total, squares = ranks.total(torch.stack([exact.new_tensor(len(values)), exact.sum(), exact.square().sum()]))
    if count < 2:
        return None
    var = ((squares - total.square() / count) / (count - 1)).clamp_min(0)
    return (total / count).to(values.dtype), var.sqrt().to(values.dtype)


def cosines(embedding: Tensor, centres: Tensor) -> Tensor:
    """Cosines (N, C) of embeddings (N, D) and class centres (C, D); what CosineHead says of short embeddings holds."""
    return F.linear(F.normalize(embedding, eps=1e-3), F.normalize(centres)).clamp(-1, 1)


class CosineHead(nn.Module):
    """Softmax over scaled cosines, no margin (NormFace, Wang et al. 2017, with s fixed)."""

    def __init__(self, num_classes: int, embedding_dim: int, s: float) -> None:
        super().__init__()
        self.s = s
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))  # class centres, one a row
        nn.init.normal_(self.weight, std=embedding_dim**-0.5)  # rows of about unit length

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """embedding (N, D) float, not normalised; label (N,) int64 -> scaled logits (N, C), float32.

        Computed in the weight's precision, autocast or not. An embedding shorter than 1e-3 counts as that
        long: its gradient stays bounded, and a zero embedding is at right angles to every centre.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            embedding = embedding.to(self.weight.dtype)
            norm = embedding.detach().norm(dim=1)
            self.observe(norm)
            cos = cosines(embedding, self.weight)
            own = self.margin(cos.gather(1, label[:, None]).squeeze(1), norm)  # N
            return self.s * cos.scatter(1, label[:, None], own[:, None])

    def observe(self, norm: Tensor) -> None:
        """See this rank's embeddings' lengths (N,) of a batch, before `margin` is called."""

    def margin(self, cos: Tensor, norm: Tensor) -> Tensor:
        """The own class's cosines (N,) and the embeddings' lengths (N,), no gradient -> harder cosines."""
        return cos


class CosFaceHead(CosineHead):
    """cos(theta) - m (Wang et al. 2018, equation 4)."""

    def __init__(self, num_classes: int, embedding_dim: int, s: float, m: float) -> None:
        super().__init__(num_classes, embedding_dim, s)
        self.m = m

    def margin(self, cos: Tensor, norm: Tensor) -> Tensor:
        return cos - self.m


class ArcFaceHead(CosineHead):
    """cos(theta + m), m in radians (Deng et al. 2019, equation 3).

    Beyond theta = pi - m, where cos(theta + m) would rise again, it is cos(theta) - m sin(m), as in
    insightface: falling everywhere, with a step down at that angle.
    """

    def __init__(self, num_classes: int, embedding_dim: int, s: float, m: float) -> None:
        super().__init__(num_classes, embedding_dim, s)
        self.m = m

    def margin(self, cos: Tensor, norm: Tensor) -> Tensor:
        theta = angle_of(cos)
        beyond = cos - self.m * math.sin(self.m)
        return torch.where(theta <= math.pi - self.m, torch.cos(theta + self.m), beyond)


class AdaFaceHead(CosineHead):
    """cos(theta + g_angle) - g_add, both from the embedding's length (Kim et al. 2022, section 3.3).

    z = clip((norm - mean) / (std / h), -1, 1), g_angle = -m z, g_add = m z + m, with the norm clipped to
    1e-3..100 and theta + g_angle to 0..pi (as the authors do). mean and std are running averages over
    training batches, the new batch at weight t_alpha; the first 1 / t_alpha batches count alike, where the
    authors start from mean 20 and std 100: a short run sees real statistics from its first batch on. The
    averages are buffers, hence in state_dict; eval mode leaves them alone, and so does a batch of one, which
    has no std.
    """

    norm_mean: Tensor
    norm_std: Tensor
    batches: Tensor

    def __init__(self, num_classes: int, embedding_dim: int, s: float, m: float, h: float, t_alpha: float) -> None:
        super().__init__(num_classes, embedding_dim, s)
        self.m, self.h, self.t_alpha = m, h, t_alpha
        # On the CPU also where the centres are left to others (facegan/recognition/heads/networks/sharded.py)
        self.register_buffer("norm_mean", torch.zeros((), device="cpu"))
        self.register_buffer("norm_std", torch.ones((), device="cpu"))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64, device="cpu"))

    def observe(self, norm: Tensor) -> None:
        norm = norm.clamp(1e-3, 100)
        if self.training and (batch := moments(norm)) is not None:
            self.batches.add_(1)
            weight = (1 / self.batches.to(norm.dtype)).clamp_min(self.t_alpha)
            self.norm_mean.lerp_(batch[0], weight)
            self.norm_std.lerp_(batch[1], weight)

    def margin(self, cos: Tensor, norm: Tensor) -> Tensor:
        norm = norm.clamp(1e-3, 100)
        z = (self.h * (norm - self.norm_mean) / (self.norm_std + 1e-3)).clamp(-1, 1)
        theta = (angle_of(cos) - self.m * z).clamp(0, math.pi)
        return torch.cos(theta) - (self.m * z + self.m)
