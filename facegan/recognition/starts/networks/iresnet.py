"""The improved residual networks of face recognition, under the names of insightface and of CVLFace and AdaFace.

Both are the network of Deng et al. 2019 (ArcFace, section 3.1), after Duta et al. 2020: blocks of batch norm, 3 x 3
convolution, batch norm, PReLU, 3 x 3 convolution and batch norm beside a shortcut, and as embedding layer batch norm,
a linear map and batch norm (output setting E). They differ in names and, where a block halves the side and keeps the
channels (the first of all), in its shortcut: a convolution in insightface's, every second pixel in CVLFace's. Sources:
recognition/arcface_torch/backbones/iresnet.py of insightface; models/iresnet/model.py of CVLFace, net.py of AdaFace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn

from facegan.recognition.starts.networks.stage_matcher import matcher

SIDE_PX = 112  # of the input
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
"""Residual blocks of the four stages by depth; CVLFace calls that of 100 ir101, and has none of 200."""
LAST_SIDE = 7  # of the last map


class Block(nn.Module):
    """A residual block under insightface's names."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None if stride == 1 else _convolved(inputs, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        shortcut: torch.Tensor = x if self.downsample is None else self.downsample(x)
        total: torch.Tensor = y + shortcut
        return total


class IResNet(nn.Module):
    """insightface's iresnet: RGB (N, 3, 112, 112) float32 in -1..1 -> (N, embedding_dim), not of unit length.

    `width`: channels of the first stage, doubled in each later one; the published networks have 64.
    """

    block_name: ClassVar = re.compile(r"(?:^|\.)layer([1-4])\.(\d+)\.")
    embedding_weight: ClassVar = "fc.weight"

    def __init__(self, depth: int, embedding_dim: int, width: int = 64) -> None:
        super().__init__()
        self.num_features = embedding_dim  # as timm says how many numbers a network gives
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        sides = [width, *(width << stage for stage in range(4))]
        for number, ((inputs, channels), count) in enumerate(zip(pairwise(sides), BLOCKS[depth], strict=True), start=1):
            blocks = [Block(channels if block else inputs, channels, 1 if block else 2) for block in range(count)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(sides[-1])
        self.fc = nn.Linear(sides[-1] * LAST_SIDE**2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim)
        self.features.weight.requires_grad_(False)  # 1, as published: no number of an embedding is preferred

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        embedding: torch.Tensor = self.features(self.fc(self.bn2(x).flatten(1)).float())
        return embedding

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters are one stage, as in timm; those of the embedding layer are of none."""
        return {"stem": r"^(?:conv1|bn1|prelu)", "blocks": r"^layer(\d+)"}


class IrBlock(nn.Module):
    """A residual block under the names of CVLFace and AdaFace."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        same = inputs == channels
        self.shortcut_layer = nn.MaxPool2d(1, stride) if same else _convolved(inputs, channels, stride)
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return total


class Ir(nn.Module):
    """The `ir` networks of CVLFace and AdaFace, without squeeze and excitation; input and output as IResNet's."""

    block_name: ClassVar = re.compile(r"(?:^|\.)body\.(\d+)\.")
    embedding_weight: ClassVar = "output_layer.3.weight"

    def __init__(self, depth: int, embedding_dim: int, width: int = 64) -> None:
        super().__init__()
        self.num_features = embedding_dim
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        sides = [width, *(width << stage for stage in range(4))]
        blocks, self.stage_of_block = [], list[int]()
        for stage, ((inputs, channels), count) in enumerate(zip(pairwise(sides), BLOCKS[depth], strict=True), start=1):
            for block in range(count):
                blocks.append(IrBlock(channels if block else inputs, channels, 1 if block else 2))
                self.stage_of_block.append(stage)
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(sides[-1]),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(sides[-1] * LAST_SIDE**2, embedding_dim),
            nn.BatchNorm1d(embedding_dim, affine=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.output_layer(self.body(self.input_layer(x)))
        return embedding

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[float]]:
        """See IResNet."""
        return matcher({"input_layer": 0}, "body", self.stage_of_block)


def _convolved(inputs: int, channels: int, stride: int) -> nn.Sequential:
    """The shortcut of a block that changes the shape: a 1 x 1 convolution and batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def depth_of(names: Iterable[str], network: type[IResNet] | type[Ir]) -> int | None:
    """The depth of the network whose blocks have such names, whatever stands before them; None where there is none."""
    found = {match.groups() for name in names if (match := network.block_name.search(name))}
    if network is Ir:  # its blocks are counted through all stages
        return next((depth for depth, counts in BLOCKS.items() if sum(counts) == len(found)), None)
    counts = tuple(sum(layer == str(number) for layer, _ in found) for number in (1, 2, 3, 4))
    return next((depth for depth in BLOCKS if BLOCKS[depth] == counts), None)
