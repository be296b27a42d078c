"""Train photos laid on each other by the registration of `morphable`."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facegan.core.seeds import subseed
from facegan.generation.gans.networks.registration import REFERENCE_PX, blur, dense, inverse, register, unit_grid, warp
from facegan.generation.train_photos import TrainPhotos

Floats = NDArray[np.float32]

LEAST_LIKENESS = 0.1  # of 200 photos of ORL at 64 px one has less, of 200 of LFW none; of pure noise most has


class RegisteredPhotos:
    """The photos with a smooth displacement for each, found at a side of REFERENCE_PX at most.

    `likeness` (N,) is the correlation of each registered face with the mean of the others, `usable` (N,) bool says
    where it is at least LEAST_LIKENESS.
    """

    def __init__(self, photos: TrainPhotos, seed: int) -> None:
        self.photos = photos
        self.side = photos.pixels[:1].shape[1]
        side = min(self.side, REFERENCE_PX)
        greys = (photos.picture(row).mean(axis=2) for row in range(len(photos.person)))
        small = [cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA) for grey in greys]
        grey = torch.from_numpy(np.stack(small).astype(np.float32)[:, None] / 127.5 - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subseed("registered photos", seed))
            self.controls = register(grey)
        self.likeness = likeness(grey, self.controls)
        self.usable = self.likeness >= LEAST_LIKENESS

    def nearest(self, photo: int, others: list[int]) -> int:
        """Which of the `others` has the displacements most like those of `photo`: shape, and so pose."""
        distance = (self.controls[others] - self.controls[photo]).square().mean(dim=(1, 2, 3))
        return others[int(distance.argmin())]

    @torch.no_grad()
    def place(self, frame: int) -> torch.Tensor:
        """From the pixels of photo `frame` to the common frame: displacements (1, side, side, 2)."""
        return inverse(dense(self.controls[frame, None], self.side))

    @torch.no_grad()
    def carried(self, photo: int, place: torch.Tensor) -> Floats:
        """A photo where `place` (1, side, side, 2) puts the common frame: (side, side, C) float32, 0..255."""
        field = dense(self.controls[photo, None], self.side).permute(0, 3, 1, 2)
        there = place + warp(field, place).permute(0, 2, 3, 1)  # both displacements, so that pixels are read once
        values = torch.from_numpy(self.photos.picture(photo).astype(np.float32)).permute(2, 0, 1)[None]
        return warp(values, there)[0].permute(1, 2, 0).numpy()

    def position(self, place: torch.Tensor) -> Floats:
        """Where each pixel lies in the common frame: (side, side, 2), (x, y) from -1 to 1."""
        return (unit_grid(self.side) + place)[0].numpy()


@torch.no_grad()
def likeness(grey: torch.Tensor, controls: torch.Tensor) -> Floats:
    """Correlation of each registered face (N, 1, side, side) with the mean of the others, in an ellipse: (N,)."""
    side = grey.shape[-1]
    faces = blur(warp(grey, dense(controls, side)), side / REFERENCE_PX)[:, 0]
    x, y = unit_grid(side)[0].unbind(-1)
    inside = faces[:, (x / 0.6).square() + ((y - 0.2) / 0.65).square() < 1]
    unit = inside - inside.mean(dim=1, keepdim=True)
    unit = unit / unit.norm(dim=1, keepdim=True).clamp(min=1e-6)
    others = unit.sum(dim=0) - unit
    return (unit * others).sum(dim=1).div(others.norm(dim=1).clamp(min=1e-6)).numpy()
