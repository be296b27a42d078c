"""Real photos blended into images of new people, which then count as both persons, each by its share.

Domain mixup (Qiu et al. 2021, SynFace) brings synthetic images closer to photos: psi X_S + (1 - psi) X_R
is trained towards psi Y_S + (1 - psi) Y_R. The share psi comes from Beta(a, a), as in mixup (Zhang et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facegan.seeds import subseed
from facegan.training import Sampler


@dataclass(frozen=True)
class Blend:
    """For each place of a batch the row of the photo that is blended in, `partner` (N,) int64, and which share of the
    image itself stays, `share` (N,) float32: 1, and its own row as partner, where nothing is blended in."""

    partner: np.ndarray
    share: np.ndarray

    def asked(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(image, row, share), each (T,): whose person, by its row, each image of a batch with `rows` (N,) counts as,
        and how much."""
        places = np.flatnonzero(self.share < 1)
        image = np.concatenate([np.arange(len(rows)), places])
        row = np.concatenate([rows, self.partner[places]])
        return image, row, np.concatenate([self.share, 1 - self.share[places]])

    def into(self, pixels: np.ndarray, part: slice, photos: Callable[[np.ndarray, int], np.ndarray]) -> None:
        """Blend photos into `pixels` (n, H, W, C) uint8, the images of a batch's `part`.

        `photos` makes those of rows (k,), before which so many others of the batch come, which other ranks make.
        """
        places = np.flatnonzero(self.share < 1)
        before, mine = int((places < part.start).sum()), places[(places >= part.start) & (places < part.stop)]
        if len(mine):
            at = mine - part.start
            pixels[at] = blended(pixels[at], photos(self.partner[mine], before), self.share[mine])


def blended(pixels: np.ndarray, photos: np.ndarray, share: np.ndarray) -> np.ndarray:
    """share x pixels + (1 - share) x photos, (N, H, W, C) uint8 both, to whole grey levels; `share` (N,) float32."""
    share = share[:, None, None, None]
    mixed: np.ndarray = np.rint(share * pixels + (1 - share) * photos).astype(np.uint8)
    return mixed


class Partners:
    """The photos blended into the new people's images of a step; they depend on the step and the seed alone.

    `group` (rows,) as `facegan.mixing.groups_of` says; shares come from Beta(`shape`, `shape`).
    """

    def __init__(self, group: np.ndarray, shape: float, size: int, seed: int) -> None:
        self.group, self.photos = group, np.flatnonzero(group == 0)
        self.shape, self.size, self.seed = shape, size, seed
        self.sampler = Sampler(len(self.photos), subseed("partners", seed))

    def of(self, step: int, rows: np.ndarray) -> Blend:
        """What is blended into a step's `rows` (size,), whose places alone say what each draws."""
        partner = self.photos[self.sampler.batch(step * self.size, self.size)]
        share = np.random.default_rng(subseed("blend", self.seed, step)).beta(self.shape, self.shape, self.size)
        share = np.where(self.group[rows] == 2, share, 1).astype(np.float32)  # which may round to 1
        return Blend(np.where(share < 1, partner, rows), share)
