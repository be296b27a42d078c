"""Groupwise registration: a smooth displacement for each face that lays eyes on eyes and mouths on mouths.

All faces are warped at once towards what they have in common (congealing, Learned-Miller 2006, IEEE PAMI 28(2)),
which is not one mean face but the nearest point of a low-rank subspace that is learned along the way (as in RASL,
Peng et al. 2012, IEEE PAMI 34(11)): glasses, for example, can then be matched. No landmarks, no labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

REFERENCE_PX = 64  # the side at which blurs and weights were chosen; other sides are scaled to it


@dataclass(frozen=True)
class Level:
    """One step from coarse to fine: a control grid of `grid` x `grid` points, at 1 / `shrink` of the side."""

    grid: int
    shrink: int
    blur_px: float
    rank: int
    iterations: int


LEVELS = (Level(3, 4, 4.0, 2, 60), Level(5, 2, 2.5, 12, 60), Level(9, 2, 1.5, 12, 80), Level(13, 1, 0.8, 12, 60))
GRID = LEVELS[-1].grid
BEND, STRETCH = 20.0, 2.0  # weights of the second and first differences of the control grid
LR = 0.02  # of half the side: 0.6 px at 64
REFRESH_EVERY = 5  # iterations between two looks at the subspace
FACES_PER_AXIS = 8  # of the subspace, at least: with fewer, it holds the very misplacements that it is to correct
FACES_AT_ONCE = 32  # faces at once: bounds memory, and stays in a CPU's cache


def register(img: torch.Tensor) -> torch.Tensor:
    """Displacements of NCHW float32 faces in -1..1: controls (N, 2, GRID, GRID), (x, y) in halves of the side.

    Where `warp(img, dense(controls))` reads, eyes lie on eyes. The subspace is learned from the faces and their
    mirror images, so that the common frame is symmetric; the mean displacement is zero. Its axes are found from
    random starts (torch's global generator): seed it for the same bits again.
    """
    controls = torch.zeros(len(img), 2, LEVELS[0].grid, LEVELS[0].grid, device=img.device)
    with torch.enable_grad():
        for level in LEVELS:
            controls = _descend(_features(img, level), resample(controls, level.grid), level)
    return controls


def _descend(feature: torch.Tensor, controls: torch.Tensor, level: Level) -> torch.Tensor:
    """Adam on the distance to the subspace, plus the roughness of the grid."""
    side = feature.shape[-1]
    x, y = unit_grid(side, feature.device).unbind(-1)
    window = torch.exp(-(x.square() + y.square()) / 0.9**2)  # the face counts, the corners hardly do
    controls = controls.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([controls], lr=LR, betas=(0.8, 0.95))
    for iteration in range(level.iterations):
        if iteration % REFRESH_EVERY == 0:
            with torch.no_grad():
                mean, axes = _common(_warped(feature, controls), level.rank)
        optimizer.zero_grad(set_to_none=True)
        for features, controls_chunk in zip(feature.split(FACES_AT_ONCE), controls.split(FACES_AT_ONCE), strict=True):
            warped = warp(features, dense(controls_chunk, side))
            centred = warped.detach().flatten(1) - mean
            target = (mean + centred @ axes @ axes.T).view_as(warped)  # the subspace's nearest point
            # Sums over the faces, so that a face moves alike among few and many.
            loss = ((warped - target).square() * window).mean(dim=(1, 2, 3)).sum()
            (loss + _roughness(controls_chunk, level.grid)).backward()
        optimizer.step()
        with torch.no_grad():  # the frame stays where the faces are on average, and symmetric
            offset = controls.mean(dim=0, keepdim=True)
            controls -= (offset + mirrored(offset)) / 2
    return controls.detach()


def _warped(feature: torch.Tensor, controls: torch.Tensor) -> torch.Tensor:
    side, pairs = feature.shape[-1], zip(feature.split(FACES_AT_ONCE), controls.split(FACES_AT_ONCE), strict=True)
    return torch.cat([warp(features, dense(controls_chunk, side)) for features, controls_chunk in pairs])


def _common(warped: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What faces (N, 1, side, side) and their mirror images have in common: mean (P,), orthonormal axes (P, rank)."""
    flat = torch.cat([warped, warped.flip(3)]).flatten(1)
    mean = flat.mean(dim=0)
    rank = max(1, min(rank, len(warped) // FACES_PER_AXIS))
    return mean, torch.svd_lowrank(flat - mean, q=rank, niter=2)[2]


def _roughness(controls: torch.Tensor, grid: int) -> torch.Tensor:
    """BEND x second differences and STRETCH x first ones, per face a mean of squares; summed over the faces."""

    def size(order: int) -> torch.Tensor:
        across, down = (controls.diff(n=order, dim=dim).square().mean(dim=(1, 2, 3)).sum() for dim in (3, 2))
        return across + down

    return BEND * (grid - 1) ** 2 / 4 * size(2) + STRETCH * (grid - 1) / 2 * size(1)


def _features(img: torch.Tensor, level: Level) -> torch.Tensor:
    """Brightness relative to the neighbourhood, in its standard deviations: what light does not change much."""
    scale = img.shape[-1] / REFERENCE_PX
    grey = img.mean(dim=1, keepdim=True)
    local = grey - blur(grey, 6.0 * scale)
    local = local / (blur(local.square(), 6.0 * scale).sqrt() + 0.05)
    return F.avg_pool2d(blur(local, level.blur_px * scale), level.shrink)


def blur(img: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Gaussian blur of NCHW, the edge's pixels going on."""
    reach = max(1, int(3 * sigma_px + 0.5))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=img.device) / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(img.dtype).expand(img.shape[1], 1, 1, -1)
    img = F.conv2d(F.pad(img, (reach, reach, 0, 0), mode="replicate"), kernel, groups=img.shape[1])
    img = F.pad(img, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(img, kernel.transpose(2, 3), groups=img.shape[1])


@lru_cache(maxsize=16)
def unit_grid(side: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(1, side, side, 2): x and y of each pixel's centre, the image reaching from -1 to 1. Not to be written to."""
    at = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def resample(controls: torch.Tensor, grid: int) -> torch.Tensor:
    """Controls (N, 2, g, g) on another grid (N, 2, grid, grid), bicubic with the corners fixed.

    Separable, so two products with a (grid, g) matrix do it: many times faster than F.interpolate's backward.
    """
    side = controls.shape[-1]
    unit = torch.eye(side, device=controls.device, dtype=controls.dtype)[None, None]
    along = F.interpolate(unit, size=(grid, side), mode="bicubic", align_corners=True)[0, 0]
    return along @ controls @ along.T


def dense(controls: torch.Tensor, side: int) -> torch.Tensor:
    """Controls (N, 2, g, g) -> a displacement for each pixel (N, side, side, 2), bicubic."""
    return resample(controls, side).permute(0, 2, 3, 1)


def mirrored(controls: torch.Tensor) -> torch.Tensor:
    """The controls of the mirror image: seen in the mirror, and x turned round."""
    turn = torch.tensor([-1.0, 1.0], device=controls.device, dtype=controls.dtype)
    return controls.flip(3) * turn[:, None, None]


def warp(img: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """img read at each pixel's place plus its displacement (N, side, side, 2); the edge's pixels go on."""
    at = unit_grid(img.shape[-1], img.device).to(displacement) + displacement
    return F.grid_sample(img, at, mode="bilinear", padding_mode="border", align_corners=False)


def inverse(displacement: torch.Tensor, iterations: int = 10) -> torch.Tensor:
    """The way back: e with e(y) = -d(y + e(y)), by fixed-point iteration (Chen et al. 2008, Medical Physics 35(1)).

    Converges where d changes by less than its distance; the grid's smoothness sees to that.
    """
    field = displacement.permute(0, 3, 1, 2)
    back = -displacement
    for _ in range(iterations):
        back = -warp(field, back).permute(0, 2, 3, 1)
    return back
