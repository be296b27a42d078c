"""What several controls do with photos: choose a person's, take means, warp, tone and light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facegan.core.seeds import subseed
from facegan.data.pixels import to_uint8
from facegan.generation.gans.networks.registration import REFERENCE_PX, dense, unit_grid, warp
from facegan.generation.train_photos import TrainPhotos

Floats = NDArray[np.float32]

GRID = 4  # control points of a warp, across and down
BLOCK = 64  # images at once


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most BLOCK that cover 0 .. count."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def mean_photo(photos: TrainPhotos) -> Floats:
    """The mean of all photos (H, W, C) float32."""
    total = sum(photos.pixels[rows].sum(axis=0, dtype=np.float64) for rows in blocks(len(photos.pixels)))
    return np.asarray(total / len(photos.pixels), np.float32)


def level_and_contrast(photos: TrainPhotos) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the grey values within a photo, by channel, mean over the photos: (C,) each."""
    sums = [np.zeros(photos.pixels[:1].shape[-1]) for _ in range(2)]
    for rows in blocks(len(photos.pixels)):
        values = photos.pixels[rows].astype(np.float64)
        sums[0] += values.mean(axis=(1, 2)).sum(axis=0)
        sums[1] += values.std(axis=(1, 2)).sum(axis=0)
    level, contrast = (np.asarray(total / len(photos.pixels), np.float32) for total in sums)
    return level, contrast


def people_in_turn(photos: TrainPhotos, classes: int, seed: int) -> np.ndarray:
    """The train person of each class (classes,) int64: all in a seeded order, then from the first on again."""
    order = np.random.default_rng(subseed("people in turn", seed)).permutation(len(photos.names))
    return order[np.arange(classes) % len(order)]


def some_photos(photos: TrainPhotos, person: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows of a person's photos: all in a random order, then from the first on again where they are fewer."""
    rows = rng.permutation(np.flatnonzero(photos.person == person))
    return rows[np.arange(count) % len(rows)]


@dataclass(frozen=True)
class Change:
    """One change of a picture, smooth over it: a warp, a tone curve, a gradient of light, a mirror image.

    `controls` (2, GRID, GRID) float32 are displacements (x, y) in halves of the side; `gamma` is the exponent of the
    tone curve; `light` (2,) the grey levels added at the right and at the lower edge, and taken off at the other.
    """

    controls: Floats
    gamma: float
    light: Floats
    mirror: bool

    @staticmethod
    def draw(
        rng: np.random.Generator, *, shape_px: float, tone: float, light: float, mirror: float = 0.0
    ) -> Change:  # fmt: skip
        """A random change: displacements N(0, shape_px) px at a side of REFERENCE_PX, gamma exp N(0, tone), light
        N(0, light)."""
        controls = rng.normal(0, shape_px * 2 / REFERENCE_PX, (2, GRID, GRID)).astype(np.float32)
        gamma = float(np.exp(rng.normal(0, tone)))
        return Change(controls, gamma, rng.normal(0, light, 2).astype(np.float32), bool(rng.random() < mirror))


@torch.no_grad()
def changed(pictures: np.ndarray, changes: list[Change]) -> NDArray[np.uint8]:
    """Square pictures (N, side, side, C) of grey values in 0..255, each with its change -> uint8.

    Mirrored first, then warped (bicubic between the control points, bilinear between pixels), then tone, then light.
    """
    side = pictures.shape[1]
    values = torch.from_numpy(np.ascontiguousarray(pictures, np.float32)).permute(0, 3, 1, 2)
    mirror = torch.tensor([change.mirror for change in changes])[:, None, None, None]
    values = torch.where(mirror, values.flip(3), values)
    values = warp(values, dense(torch.from_numpy(np.stack([change.controls for change in changes])), side))
    gamma = torch.tensor([change.gamma for change in changes], dtype=torch.float32)[:, None, None, None]
    light = torch.from_numpy(np.stack([change.light for change in changes]))
    values = 255 * (values.clamp(0, 255) / 255) ** gamma
    gradient = (unit_grid(side) * light[:, None, None]).sum(dim=-1)
    return to_uint8((values + gradient[:, None]).permute(0, 2, 3, 1).numpy())
