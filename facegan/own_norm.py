"""Batch norm with statistics of their own for real and for synthetic images, which share all other layers.

The auxiliary batch norm of AdvProp (Xie et al. 2020, section 4.2), or domain-specific batch norm (Chang et al. 2019).
As in both, scale and shift are parted too: the network that is handed over has only those of real images, and they
have then been learned from real images alone.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

N = TypeVar("N", bound=nn.Module)


class PartedNorm(nn.Module):
    """Two batch norms, which begin alike: in training the first `images` of a batch go through `real`, the rest not.

    In eval mode all images go through `real`.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.real, self.synthetic = norm, copy.deepcopy(norm)
        self.images = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NC... -> the same."""
        if not self.training:
            y: torch.Tensor = self.real(x)
            return y
        return torch.cat([self.real(x[: self.images]), self.synthetic(x[self.images :])])


def parted(net: N) -> N:
    """`net` with a PartedNorm in the place of each batch norm."""
    parted: N = _parted(net)
    return parted


def _parted(module: nn.Module) -> Any:
    if isinstance(module, _BatchNorm):
        return PartedNorm(module)
    for name, child in module.named_children():
        module.add_module(name, _parted(child))
    return module


def by_source(net: nn.Module, img: torch.Tensor, synthetic: np.ndarray) -> torch.Tensor:
    """What a parted `net` in training makes of images (N, ...), of which `synthetic` (N,) bool are normalised apart."""
    order = torch.from_numpy(np.argsort(synthetic, kind="stable")).to(img.device)
    for module in net.modules():
        if isinstance(module, PartedNorm):
            module.images = int((~synthetic).sum())
    found: torch.Tensor = net(img[order])
    return found[torch.argsort(order)]


def of_real(net: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state of `net` as it was before `parted`: the batch norms are those of real images."""
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for place, module in net.named_modules():
        if isinstance(module, PartedNorm):
            for name in module.real.state_dict():
                state[f"{place}.{name}"] = state.pop(f"{place}.real.{name}")
                del state[f"{place}.synthetic.{name}"]
    return state
