"""Batch norm over the whole batch of all ranks: torch's on GPUs, and one of our own on CPUs, where torch has none.

Ours is also used where gradients are differentiated twice, which torch's does not support.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facegan.training import ranks

N = TypeVar("N", bound=nn.Module)


def with_sync_batchnorm(net: N, device: torch.device, twice: bool = False) -> N:
    """`net` with batch norms that count the images of all ranks; its parameters, buffers and their names stay.

    With one rank, `net` unchanged. `twice`: gradients can be differentiated again, unlike those of torch's.
    """
    if ranks.world_size() == 1:
        return net
    if device.type != "cuda" or twice:
        converted: N = _with_summed_batch_norm(net)
        return converted
    from timm.layers import convert_sync_batchnorm

    converted = convert_sync_batchnorm(net)
    return converted


def _with_summed_batch_norm(module: nn.Module) -> Any:
    if isinstance(module, _BatchNorm):
        return SummedBatchNorm(module)
    for name, child in module.named_children():
        module.add_module(name, _with_summed_batch_norm(child))
    return module


class SummedBatchNorm(_BatchNorm):
    """`norm` with mean and variance of all ranks' images (Ioffe and Szegedy 2015, algorithm 1), in two passes.

    NC... of any float type -> the same; computed in float32 at least. Takes over timm's drop and activation, if any.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            y = self._normalised(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)
        else:
            y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        activated: torch.Tensor = self.act(self.drop(y))
        return activated

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        dims, shape = [d for d in range(x.ndim) if d != 1], [1, -1] + [1] * (x.ndim - 2)
        sums = ranks.sum_with_gradients(torch.cat([x.sum(dims), x.new_tensor([x.numel() // x.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count  # C
        centred = x - mean.view(shape)
        var = ranks.sum_with_gradients(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(var * count / (count - 1), weight)
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        return y if self.weight is None else y * self.weight.view(shape) + self.bias.view(shape)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any shape NC... will do."""
