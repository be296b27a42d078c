"""A generator's own redrawing of the photos that it was fitted on: what the audit plants, and learns to see through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from facegan.core.seeds import subseed
from facegan.data.dataset import ManifestImages
from facegan.generation import truncation
from facegan.generation.draw import draw
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.options import Synthesize
from facegan.generation.thresholds import encode_all
from facegan.metrics import leakage


class Redrawing:
    """Drawings of train photos by the settings with which `synthesize` draws images of train people.

    `encodes` is whether the generator finds a photo's own codes. One that does not gives any drawings of its person.
    """

    def __init__(self, folder: Path, train: ManifestImages, options: Synthesize, device: torch.device) -> None:
        self.G, spec = load_generator(folder, device)
        self.options = options
        self.person = np.asarray([spec["identities"].index(name) for name in train.identity])
        self._codes = self.G.codes().detach().cpu().numpy()
        self._donors = encode_all(self.G, train, self.person, options, device)
        self.encodes = self._donors is not None

    def draw(self, photos: np.ndarray, count: int, seed: int) -> np.ndarray:
        """`count` drawings of each of the photos (n,), by row: (n, count, H, W, C) uint8; its own for each photo."""
        w = np.repeat(self._codes[self.person[photos]], count, axis=0)
        z = np.concatenate([self._variation(int(photo), count, seed) for photo in photos])
        pixels = draw(self.G, w, z.astype(np.float32), self.options.batch_size)
        return pixels.reshape(len(photos), count, *pixels.shape[1:])

    def grey(self, photos: np.ndarray, count: int, seed: int) -> leakage.Floats:
        """`draw`, as the gate compares images: (n, count, 64, 64) float32 in 0..255."""
        pixels = self.draw(photos, count, seed)
        return leakage.grey(pixels.reshape(-1, *pixels.shape[2:])).reshape(len(photos), count, leakage.SIDE_PX, -1)

    def _variation(self, photo: int, count: int, seed: int) -> np.ndarray:
        """The photo's own variation code, turned towards photos of others: (count, z_dim)."""
        rng = np.random.default_rng(subseed("redraw", seed, str(photo)))
        if self._donors is None:
            return truncation.variation(rng, count, self.G.z_dim, self.options.truncate_z)
        strangers = np.flatnonzero(self.person != self.person[photo])
        own = self.G.blend(np.repeat(self._donors[photo][None, None], count, axis=1), np.ones(1))
        borrowed = self._donors[rng.choice(strangers if len(strangers) else len(self._donors), count)]
        return self.G.vary(own, borrowed, self.options.borrowed, self.options.variation_noise, rng)
