"""One synthetic person at a time: candidates are drawn, judged by the guide, and the best of them kept.

What becomes of a person depends on nobody else who is made, so that people can be worked on anywhere and in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from facegan.data.images import encode_png
from facegan.data.latents import latent_json, packed
from facegan.generation.draw import draw
from facegan.generation.gans.networks.base import Generator
from facegan.generation.options import Synthesize
from facegan.metrics import leakage
from facegan.metrics.set_statistics import robust_centre
from facegan.recognition.embedder import embed

SURELY = 1e-3  # of a cosine: far more than products of other sizes round differently


@dataclass(frozen=True)
class PersonRequest:
    """A person to draw: `code` (code_dim,) float32, whom it descends from, by row, and the share of each.

    `train` is the row of a train person, None for a new one; `seed` is that of the variation codes.
    """

    code: np.ndarray
    parents: tuple[int, ...]
    weights: np.ndarray
    seed: int
    train: int | None = None


@dataclass(frozen=True)
class PersonResult:
    """What came of an order: the kept images as (PNG bytes, `latent` column), and what each filter removed.

    `removed` are (filter, seen, removed, why). Of a new person also the `centre` (d,) float32 of its embeddings (else
    empty) and whether it is `near` a train person. One who is, or who surely resembles a new person that there is
    already, is turned down: nothing else is known of it.
    """

    images: list[tuple[bytes, str]] = field(default_factory=list)
    removed: list[tuple[str, int, int, str]] = field(default_factory=list)
    centre: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    near: bool = False


@dataclass
class Synthesizer:
    """Generator, guide, donors of variation and bounds: draws and judges images."""

    G: Generator
    guide: torch.nn.Module
    donors: np.ndarray | None  # variation codes of real train images (N, z_dim); None: N(0, 1)
    donor_person: np.ndarray
    photos: np.ndarray  # real train images, grey (N, 64, 64) float32, by row as `donor_person`
    centres: np.ndarray  # of the train people under the guide (people, d) float32, unit rows
    options: Synthesize
    device: torch.device
    copy: float  # the similarity from which an image is a near-copy of a photo: see facegan.metrics.leakage
    person: float  # the cosine above which two people's centres are too close
    image: float  # an image no closer to its person than this has left it: strangers' photos are as close

    def take(self, order: PersonRequest, made: np.ndarray | None = None) -> PersonResult:
        """The best images of a person, by closeness to its centre: of a train person that of the real photos.

        `made` (n, d) float32 are the centres of new people that there are already, as far as one knows here.
        """
        options = self.options
        wanted = options.images_per_new if order.train is None else options.images_per_existing
        candidates = round(wanted * options.oversample)
        rng = np.random.default_rng(order.seed)
        z = self.variation(candidates, order.parents, order.weights, rng)
        pixels, embedding = self.shoot(order.code, z)
        removed: list[tuple[str, int, int, str]] = []
        if order.train is None:
            who, surplus = "new", "images of new people"
            why = "more candidates than wanted: those least like the rest of their person under the guide"
            centre = robust_centre(embedding)
            if (self.centres @ centre).max() > self.person:
                return PersonResult(centre=centre, near=True)
            if made is not None and (made @ centre).max(initial=-1.0) > self.person + SURELY:
                return PersonResult(centre=centre)
            # A blend in which no photo weighs half is a copy of none: the audit looks again.
            origin = [person for person, share in zip(order.parents, order.weights, strict=True) if share >= 0.5]
        else:
            who, surplus = "train", "images of train people"
            why = "more candidates than wanted: those least like their person under the guide"
            centre, origin = np.asarray(self.centres[order.train]), [order.train]
        new = np.ones(candidates, bool)
        if origin:
            new = self.fresh(pixels, origin)
            copies = int((~new).sum())
            removed.append(("near-copies of a train photo", len(new), copies, f"similarity from {self.copy:.3f}"))
        score = np.where(new, embedding @ centre, -2)
        left, fresh = int((score[new] <= self.image).sum()), int(new.sum())
        removed.append((f"images that left their {who} person", fresh, left, f"cosine up to {self.image:.3f}"))
        kept = best(score, wanted, self.image)
        removed.append((f"surplus {surplus}", fresh - left, fresh - left - len(kept), why))
        code = packed(order.code)
        latents = [latent_json(code, packed(z[index]), index, options.batch_size) for index in kept]
        images = [(encode_png(pixels[index]), latent) for index, latent in zip(kept, latents, strict=True)]
        return PersonResult(images, removed, centre if order.train is None else PersonResult().centre)

    def variation(self, count: int, people: Sequence[int], weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Variation codes (count, z_dim): a photo of each of `people`, blended, turned towards photos of others."""
        if self.donors is None:
            return rng.standard_normal((count, self.G.z_dim)).astype(np.float32)
        photos = [rng.choice(np.flatnonzero(self.donor_person == person), count) for person in people]
        own = self.G.blend(np.stack([self.donors[photo] for photo in photos]), weights)
        strangers = np.flatnonzero(~np.isin(self.donor_person, people))
        other = self.donors[rng.choice(strangers if len(strangers) else len(self.donors), count)]
        return self.G.vary(own, other, self.options.borrowed, self.options.variation_noise, rng).astype(np.float32)

    def shoot(self, code: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of one person (N, H, W, C) uint8 and the guide's embeddings of them (N, embedding_dim)."""
        pixels = draw(self.G, np.repeat(code[None], len(z), axis=0), z, self.options.batch_size)
        return pixels, embed(self.guide, pixels, self.options.batch_size, self.device)

    def fresh(self, pixels: np.ndarray, people: Sequence[int]) -> np.ndarray:
        """Which images (N,) bool are no near-copy of a photo of the people they descend from."""
        near, _ = leakage.closest(leakage.grey(pixels), self.photos[np.isin(self.donor_person, people)])
        return np.asarray(near < self.copy)


def best(score: np.ndarray, count: int, above: float) -> np.ndarray:
    """Places of the `count` highest scores that are greater than `above`, in ascending order of place."""
    order = np.argsort(-score, kind="stable")[:count]
    return np.sort(order[score[order] > above])
