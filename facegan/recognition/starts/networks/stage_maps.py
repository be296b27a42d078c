"""The maps of several stages of a network from ImageNet, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from facegan.recognition.fitted.methods.imagenet import maps_of


class StageMaps(nn.Module):
    """(N, 3, size_px, size_px) as `net` knows images -> (N, num_features), the maps of `stages` one after the other.

    Maps with more than `grid` cells a side are averaged to (grid, grid). `block_sizes`: how many numbers each has.
    """

    def __init__(self, net: nn.Module, stages: Sequence[int], grid: int, size_px: int) -> None:
        super().__init__()
        self.net, self.stages, self.grid = net, tuple(stages), grid
        with torch.no_grad():
            net.eval()  # no batch statistics of an empty image
            maps = maps_of(net, torch.zeros(1, 3, size_px, size_px), self.stages, grid)
            net.train()
        self.block_sizes = tuple(maps[stage].shape[1] for stage in self.stages)
        self.num_features = sum(self.block_sizes)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        maps = maps_of(self.net, img, self.stages, self.grid)
        return torch.cat([maps[stage] for stage in self.stages], dim=1)
