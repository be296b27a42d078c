"""Low-rank changes of weights that stay as they are (LoRA), and how they become part of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

ADAPTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class LowRank(nn.Module):
    """A weight W of shape (outputs, ...), given and frozen -> W + up @ down, of rank `rank` at most.

    W counts as a matrix (outputs, the rest): a convolution to `rank` channels with W's kernel and stride, then a 1 x 1
    one, as adapters of convolutions are in peft and LoCon (Yeh et al. 2024, section 3.2). `down` is drawn as by
    Hu et al. 2021 (LoRA, section 4.1; loralib: Kaiming, a = sqrt 5), `up` begins at 0, so that at first W is as it was.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        rank = min(rank, outputs, inputs)
        self.down = nn.Parameter(weight.new_empty(rank, inputs))
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.up @ self.down).view(weight.shape)


def insert(net: nn.Module, rank: int, besides: tuple[str, ...] = ()) -> None:
    """Freeze `net`, and put an adapter at the weight of each convolution and linear map.

    Modules whose names begin with one of `besides` are trained as they are.
    """
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(besides))
    for name, module in list(net.named_modules()):
        if isinstance(module, ADAPTED) and not f"{name}.".startswith(besides):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of `net.state_dict()` as it would be without adapters: each weight with what its adapter adds.

    Where that is still nothing, the weight's very bytes.
    """
    state = copy.deepcopy(net.state_dict())
    for name, module, adapter in _adapted(net):
        prefix = f"{name}.parametrizations.weight."
        original = state[f"{prefix}original"]
        with torch.no_grad():
            state[f"{name}.weight"] = adapter(original) if adapter.up.any() else original
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]
        assert state[f"{name}.weight"].shape == module.weight.shape
    return state


def _adapted(net: nn.Module) -> Iterator[tuple[str, nn.Module, LowRank]]:
    for name, module in net.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            adapter = module.parametrizations["weight"][0]  # type: ignore[index, union-attr]
            if isinstance(adapter, LowRank):
                yield name, module, adapter
