"""Images laid on photos by a bilinear map of the square: Gauss-Newton with the photo's gradient, coarse to fine.

The gradient, and the matrix that is solved with, are the photo's and are made once for all images that are laid on it
(Baker and Matthews 2004, IJCV 56(3), section 3). Smooth pictures are read at every second pixel: what a level blurs
does not tell more at the others. Functions over arrays; nothing loops over pairs, memory grows with chunks alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


class Level(NamedTuple):
    """How far pictures of SIDE_PX are shrunk and blurred (px, before), and the steps that are taken."""

    shrink: int
    blur_px: float
    steps: int


LEVELS = (Level(2, 2.5, 12), Level(1, 1.2, 8), Level(1, 0.7, 6))
STRIDE = 2  # every so many pixels of a level's pictures are compared
LOCAL_PX = 6.0
AT_ONCE = 1 << 17  # read points of a chunk of pairs: what stays in a core's cache


@lru_cache(maxsize=32)
def _blurring(side: int, sigma_px: float) -> torch.Tensor:
    """(side, side): the Gaussian blur of a line of pixels, the edge's pixels going on."""
    reach = max(1, int(3 * sigma_px + 0.5))
    steps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (steps / sigma_px) ** 2)
    rows = torch.arange(side)[:, None].expand(-1, len(steps))
    at = (rows + steps).clamp(0, side - 1)
    return torch.zeros(side, side).index_put_((rows, at), (kernel / kernel.sum()).expand_as(at), accumulate=True)


def blur(img: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Gaussian blur of (..., S, S), the edge's pixels going on: two products, faster here than convolutions."""
    along = _blurring(img.shape[-1], sigma_px)
    return along @ img @ along.T


def toned(img: torch.Tensor) -> torch.Tensor:
    """Brightness relative to the neighbourhood, in its standard deviations: what light changes little."""
    local = img - blur(img, LOCAL_PX)
    return local / (blur(local.square(), LOCAL_PX).sqrt() + 3.0)


@lru_cache(maxsize=8)
def unit_grid(side: int) -> torch.Tensor:
    """(side, side, 2): x and y of each pixel's centre, the image reaching from -1 to 1."""
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], dim=-1)


@lru_cache(maxsize=8)
def oval(side: int) -> torch.Tensor:
    """Weights (side, side): the face counts, the corners hardly do."""
    return torch.exp(-(unit_grid(side).square().sum(-1) ** 2) / 0.9**4)


@lru_cache(maxsize=8)
def _along(side: int, stride: int) -> torch.Tensor:
    """(points,): where every `stride`-th pixel of a line lies between its first (0) and its last (1)."""
    return torch.linspace(0, 1, side)[::stride].clone()


@lru_cache(maxsize=8)
def _corners(side: int, stride: int) -> torch.Tensor:
    """(4, points x points): how much of each corner's displacement, row by row, a pixel has."""
    line = torch.stack([1 - _along(side, stride), _along(side, stride)])
    return torch.einsum("ay,bx->abyx", line, line).reshape(4, -1)


def positions(controls: torch.Tensor, side: int, stride: int = 1) -> torch.Tensor:
    """Displacements of the corners (N, 2, 2, 2), of x and of y -> where pixels read: (N, 2, points, points)."""
    grid, along = unit_grid(side), _along(side, stride)
    ends = controls + grid[:: side - 1, :: side - 1].permute(2, 0, 1)
    rows = ends[..., :1] + (ends[..., 1:] - ends[..., :1]) * along
    return torch.addcmul(rows[:, :, :1], rows[:, :, 1:] - rows[:, :, :1], along[:, None])


def outermost(at: torch.Tensor) -> torch.Tensor:
    """How far from the middle read points (N, 2, h, w) lie, 1 at the edge: (N, h, w)."""
    return torch.maximum(at[:, 0].abs(), at[:, 1].abs())


def sample(img: torch.Tensor, at: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """(N, H, W) read at x and y of -1..1 (N, 2, h, w), the edge's pixels going on: (N, h, w)."""
    grid = at.permute(0, 2, 3, 1)
    return F.grid_sample(img[:, None], grid, mode=mode, padding_mode="border", align_corners=False)[:, 0]


def features(tone: torch.Tensor, level: Level) -> torch.Tensor:
    """What a level compares of `toned` (N, 64, 64): blurred, shrunk."""
    return F.avg_pool2d(blur(tone, level.blur_px)[:, None], level.shrink)[:, 0]


def _gradient(img: torch.Tensor) -> torch.Tensor:
    """Central differences (N, 2, H, W), of x and of y, in coordinates of -1..1."""
    padded = F.pad(img[:, None], (1, 1, 1, 1), mode="replicate")[:, 0] * (img.shape[-1] / 4)
    across, down = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]), (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    return torch.stack([across, down], 1)


class Target:
    """Photos on which images are laid at one level, `toned` (n, 64, 64)."""

    def __init__(self, tone: torch.Tensor, level: Level) -> None:
        self.level, self.pictures = level, features(tone, level)
        self.side = self.pictures.shape[-1]
        self.weight = oval(self.side)[::STRIDE, ::STRIDE] / oval(self.side)[::STRIDE, ::STRIDE].sum()
        self.slope = _gradient(self.pictures)[:, :, ::STRIDE, ::STRIDE].contiguous()
        self.fixed = self.pictures[:, ::STRIDE, ::STRIDE].contiguous()
        self.norm = (self.weight * self.fixed.square()).sum((1, 2), keepdim=True).sqrt()
        parts = [self._hessian(part) for part in self.slope.flatten(2).split(256)]
        hessian = torch.cat(parts) if parts else torch.zeros(0, 8, 8)
        self.inverse = torch.from_numpy(np.linalg.inv((hessian + 1e-3 * torch.eye(8)).numpy()))

    def _hessian(self, slope: torch.Tensor) -> torch.Tensor:
        """Of the squared difference, by the corners' displacements: slopes (n, 2, points) -> (n, 8, 8)."""
        steepest = (slope[:, :, None] * _corners(self.side, STRIDE)).flatten(1, 2)
        return (steepest * self.weight.flatten()) @ steepest.transpose(1, 2)

    def lay(
        self, moving: torch.Tensor, image: torch.Tensor, photo: torch.Tensor, controls: torch.Tensor
    ) -> torch.Tensor:
        """The corners' displacements (N, 2, 2, 2) that lay rows `image` of features on `photo`, begun at `controls`."""
        chunk = max(1, AT_ONCE // self.weight.numel())
        parts = zip(*(part.split(chunk) for part in (image, photo, controls)), strict=True)
        laid = [self._lay(moving[rows], on, begun) for rows, on, begun in parts]
        return torch.cat(laid) if laid else controls

    def _lay(self, moving: torch.Tensor, photo: torch.Tensor, controls: torch.Tensor) -> torch.Tensor:
        """`level.steps` of Gauss-Newton, tone and contrast free."""
        fixed, slope, norm, inverse = (part[photo] for part in (self.fixed, self.slope, self.norm, self.inverse))
        corners = _corners(self.side, STRIDE)
        for _ in range(self.level.steps):
            at = positions(controls, self.side, STRIDE)
            w = self.weight * ((1 - outermost(at)) * (self.side / 2)).clamp_(0, 1)  # fades in the last pixel
            warped = sample(moving, at)
            warped -= ((w * warped).sum((1, 2)) / w.sum((1, 2)).clamp(min=1e-6))[:, None, None]
            size = (w * warped.square()).sum((1, 2), keepdim=True).sqrt().clamp(min=1e-3)
            error = (fixed - warped * (norm / size)).mul_(w)
            force = (corners @ (slope * error[:, None]).view(-1, corners.shape[1]).T).T.reshape(-1, 8, 1)
            controls = controls + torch.bmm(inverse, force).view_as(controls).clamp(-0.1, 0.1)
        return controls


def correlation(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted correlations of pictures with pictures: (N,)."""
    total = weight.sum((1, 2), keepdim=True).clamp(min=1e-6)
    a = a - (weight * a).sum((1, 2), keepdim=True) / total
    b = b - (weight * b).sum((1, 2), keepdim=True) / total
    norm = ((weight * a.square()).sum((1, 2)) * (weight * b.square()).sum((1, 2))).sqrt().clamp(min=1e-6)
    return (weight * a * b).sum((1, 2)) / norm
