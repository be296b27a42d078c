"""One synthetic person at a time: candidates are drawn, scored by the guide, and the best of them kept.

The result for a person depends on no other person, so that people can be made in any process and in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from facegan.data.images import encode_png
from facegan.data.latents import latent_json, pack
from facegan.generation import truncation
from facegan.generation.draw import draw
from facegan.generation.gans.networks.base import Generator
from facegan.generation.options import Synthesize
from facegan.metrics import leakage
from facegan.metrics.set_statistics import robust_centre
from facegan.recognition.embedder import embed

MARGIN = 1e-3  # of a cosine: far above the rounding differences between matrix products of different sizes


@dataclass(frozen=True)
class PersonRequest:
    """A person to draw: `code` (code_dim,) float32, the rows of its parents, and the share of each.

    `train` is the row of a train person, None for a new one; `seed` is that of the variation codes.
    """

    code: np.ndarray
    parents: tuple[int, ...]
    weights: np.ndarray
    seed: int
    train: int | None = None


@dataclass(frozen=True)
class PersonResult:
    """The result of a request: the kept images, and what each filter removed.

    `images` are (PNG bytes, `latent` column, row of the train person whose photo lent variation; -1: nobody).

    `removed` are (filter, seen, removed, why). A new person also has the `centre` (d,) float32 of its embeddings (else
    empty) and whether it is `near` a train person. One that is, or that resembles an accepted new person by more than
    rounding could change, is rejected: it has no images and no counts.
    """

    images: list[tuple[bytes, str, int]] = field(default_factory=list)
    removed: list[tuple[str, int, int, str]] = field(default_factory=list)
    centre: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    near: bool = False


@dataclass
class Synthesizer:
    """Generator, guide, donors of variation and bounds: draws and filters images."""

    G: Generator
    guide: torch.nn.Module
    donors: np.ndarray | None  # variation codes of real train images (N, z_dim); None: N(0, 1)
    donor_person: np.ndarray
    photos: np.ndarray  # real train images, grey (N, 64, 64) float32, by row as `donor_person`
    centres: np.ndarray  # of the train people under the guide (people, d) float32, unit rows
    options: Synthesize
    device: torch.device
    copy_threshold: float  # the similarity from which an image is a near-copy of a photo: see facegan.metrics.leakage
    person_threshold: float  # the cosine above which two people's centres are too close
    image_threshold: float  # the cosine up to which an image has left its person: strangers' photos are as close

    def make_person(self, request: PersonRequest, accepted: np.ndarray | None = None) -> PersonResult:
        """The best images of a person, by closeness to its centre: for a train person, that of the real photos.

        `accepted` (n, d) float32 are the centres of the new people accepted before the shard was submitted.
        """
        options = self.options
        count = options.images_per_new if request.train is None else options.images_per_existing
        candidates = round(count * options.oversample)
        rng = np.random.default_rng(request.seed)
        z, lenders = self.variation(candidates, request.parents, request.weights, rng)
        pixels, embedding = self.render(request.code, z)
        removed: list[tuple[str, int, int, str]] = []
        if request.train is None:
            kind, surplus = "new", "images of new people"
            why = "more candidates than wanted: those least like the rest of their person under the guide"
            centre = robust_centre(embedding)
            if (self.centres @ centre).max() > self.person_threshold:
                return PersonResult(centre=centre, near=True)
            if accepted is not None and (accepted @ centre).max(initial=-1.0) > self.person_threshold + MARGIN:
                return PersonResult(centre=centre)
            # A blend in which no photo weighs half is a copy of none; the audit checks again.
            main_parents = [
                person for person, share in zip(request.parents, request.weights, strict=True) if share >= 0.5
            ]
        else:
            kind, surplus = "train", "images of train people"
            why = "more candidates than wanted: those least like their person under the guide"
            centre, main_parents = np.asarray(self.centres[request.train]), [request.train]
        fresh = np.ones(candidates, bool)
        if main_parents:
            fresh = self.fresh(pixels, main_parents)
            copies = int((~fresh).sum())
            removed.append(
                ("near-copies of a train photo", len(fresh), copies, f"similarity from {self.copy_threshold:.3f}")
            )
        score = np.where(fresh, embedding @ centre, -2)
        too_far, passed = int((score[fresh] <= self.image_threshold).sum()), int(fresh.sum())
        removed.append(
            (f"images that left their {kind} person", passed, too_far, f"cosine up to {self.image_threshold:.3f}")
        )
        kept = best(score, count, self.image_threshold)
        removed.append((f"surplus {surplus}", passed - too_far, passed - too_far - len(kept), why))
        code = pack(request.code)
        latents = [
            latent_json(code, pack(z[index]), index, options.batch_size, lent=int(lenders[index]) >= 0)
            for index in kept
        ]
        images = [
            (encode_png(pixels[index]), latent, int(lenders[index]))
            for index, latent in zip(kept, latents, strict=True)
        ]
        return PersonResult(images, removed, centre if request.train is None else PersonResult().centre)

    def variation(
        self, count: int, people: Sequence[int], weights: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Variation codes (count, z_dim): a photo of each of `people`, blended, turned towards photos of others.

        And who lent those photos, by row (count,); -1 where nobody did.
        """
        if self.donors is None:
            z = truncation.variation(rng, count, self.G.z_dim, self.options.truncate_z)
            return z.astype(np.float32), np.full(count, -1)
        photos = [rng.choice(np.flatnonzero(self.donor_person == person), count) for person in people]
        own = self.G.blend(np.stack([self.donors[photo] for photo in photos]), weights)
        strangers = np.flatnonzero(~np.isin(self.donor_person, people))
        lent = rng.choice(strangers if len(strangers) else len(self.donors), count)
        options = self.options
        z = self.G.vary(own, self.donors[lent], options.borrowed, options.variation_noise, rng)
        nobody = self.G.lent(options.borrowed) == 0
        return z.astype(np.float32), np.full(count, -1) if nobody else self.donor_person[lent]

    def render(self, code: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of one person (N, H, W, C) uint8 and the guide's embeddings of them (N, embedding_dim)."""
        pixels = draw(self.G, np.repeat(code[None], len(z), axis=0), z, self.options.batch_size)
        return pixels, embed(self.guide, pixels, self.options.batch_size, self.device)

    def fresh(self, pixels: np.ndarray, people: Sequence[int]) -> np.ndarray:
        """Which images (N,) bool are no near-copy of a photo of their parents, `people`."""
        similarity, _ = leakage.closest(leakage.grey(pixels), self.photos[np.isin(self.donor_person, people)])
        return np.asarray(similarity < self.copy_threshold)


def best(score: np.ndarray, count: int, threshold: float) -> np.ndarray:
    """Indices of the `count` highest scores that are greater than `threshold`, in ascending order."""
    order = np.argsort(-score, kind="stable")[:count]
    return np.sort(order[score[order] > threshold])
