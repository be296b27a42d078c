"""New people of a `morphable` generator, drawn in several ways: how they look, teach and leak, before any filter.

`mixture N` is what `synthesize` draws: N people's shapes and textures added. `regions` takes hair and rim of one
person, eyes of a second, nose and mouth of a third (near in light and pose to the first), blended by Laplacian bands
(Burt and Adelson 1983, ACM TOG 2(4)) in the common frame, under a shape mixed of the three: no pixel is a sum of faces.

    facegan run RECIPE --workdir DIR --until train_gan
    python benchmarks/drafts.py DIR OUT              # newest prepare and train_gan in DIR; minutes; OUT/<way>.png

Printed for each way: EER of `classical` on val people, fitted with photos, with these people too, with them alone (the
whitening probe); the share of images that the gate takes for near-copies, of people whom it takes for train people.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facegan.data.dataset import ManifestImages
from facegan.evaluation.cross_fitted import CrossFitted, match_level
from facegan.evaluation.leakage_gate import Copies
from facegan.evaluation.set_card import JudgedFaces
from facegan.evaluation.whitening_probe import whitening_probe
from facegan.generation.draw import draw
from facegan.generation.gans.networks.morphable import MorphableGenerator
from facegan.generation.gans.networks.registration import dense, inverse, warp
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.identities.mixture import Mixture
from facegan.generation.options import Synthesize
from facegan.generation.redraw import Redrawing

CPU = torch.device("cpu")
CANDIDATES = 12  # people of whom the nearest in light and pose lend eyes and mouth
EXAGGERATED = 1.5  # distance of a mixed shape from the mean one, so that shapes differ as those of people do
BORROWED = 0.7  # of a stranger's pose, as in the recipes
Floats = NDArray[np.float32]


def mixture(G: MorphableGenerator, train: ManifestImages, people: int, shots: int, parents: int) -> np.ndarray:
    """(people, shots, H, W, C) uint8 as `synthesize` draws them."""
    rng, person = np.random.default_rng(0), G.person.numpy()
    codes, units = G.codes().numpy(), np.tile(np.eye(len(person), dtype=np.float32), (1, 2))
    units = np.concatenate([units, np.zeros((len(person), len(person)), np.float32)], axis=1)
    drawn = []
    for proposal, _ in zip(Mixture(parents=parents).proposals(codes, codes, rng), range(people), strict=False):
        photos = [rng.choice(np.flatnonzero(person == p), shots) for p in proposal.parents]
        own = G.blend(np.stack([units[photo] for photo in photos]), proposal.weights)
        lent = rng.choice(np.flatnonzero(~np.isin(person, proposal.parents)), shots)
        z = G.vary(own, units[lent], BORROWED, 0, rng).astype(np.float32)
        drawn.append(draw(G, np.repeat(proposal.code[None], shots, axis=0), z, shots))
    return np.stack(drawn)


class Regions:
    """Draws new people region by region."""

    def __init__(self, G: MorphableGenerator, few: bool) -> None:
        self.texture = G.texture.float().div(127.5).sub(1).permute(0, 2, 3, 1).numpy()
        self.controls, self.person = G.controls.numpy(), G.person.numpy()
        self.people, self.side = G.num_identities, self.texture.shape[1]
        self.shape = np.stack([self.controls[self.person == p].mean(axis=0) for p in range(self.people)])
        self.low = np.stack([self._blur(texture, 5) for texture in self.texture])
        y, x = np.mgrid[: self.side, : self.side] / self.side
        eyes = (y > 0.27) & (y < 0.5) & (x > 0.1) & (x < 0.9)
        if few:
            mouth = (y >= 0.5) & (y < 0.88) & (x > 0.22) & (x < 0.78)
            regions = [~(eyes | mouth), eyes, mouth]
        else:
            nose = (y >= 0.5) & (y < 0.67) & (x > 0.3) & (x < 0.7)
            regions = [(y < 0.5) & ~eyes, eyes, nose, (y >= 0.5) & ~nose]
        self.masks = [mask.astype(np.float32)[..., None] for mask in regions]
        self.regions = range(1, len(regions))
        self.seen = [(self.low * mask)[:, ::4, ::4].reshape(len(self.low), -1) for mask in self.masks]

    def _blur(self, image: Floats, sigma: float) -> Floats:
        """sigma in px of 64."""
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma * self.side / 64).reshape(image.shape), np.float32)

    def draw(self, people: int, shots: int) -> np.ndarray:
        """(people, shots, H, W, C) uint8."""
        rng = np.random.default_rng(0)
        return np.stack([self._person(shots, rng) for _ in range(people)])

    def _person(self, shots: int, rng: np.random.Generator) -> np.ndarray:
        parents = [int(rng.integers(self.people))]
        others = np.setdiff1d(np.arange(self.people), parents)
        candidates = rng.choice(others, min(CANDIDATES, len(others)), replace=False)
        for region in self.regions:
            left = [p for p in candidates if p not in parents]
            parents.append(int(min(left, key=lambda p: self._distance(region, parents[0], p).min())))
        shapes = parents if len(parents) == 3 else [int(p) for p in rng.choice(self.people, 8, replace=False)]
        mixed = np.tensordot(rng.dirichlet(np.full(len(shapes), 10.0)), self.shape[shapes], axes=1)
        shape = self.shape.mean(axis=0) + EXAGGERATED * (mixed - self.shape.mean(axis=0))
        return np.stack([self._image(parents, shape, rng) for _ in range(shots)])

    def _distance(self, region: int, first: int, second: int) -> Floats:
        """Squared, in light and pose of a region, of all photos of two people."""
        of = [self.seen[region][self.person == p] for p in (first, second)]
        return np.asarray(((of[0][:, None] - of[1][None]) ** 2).sum(axis=2), np.float32)

    def _image(self, parents: list[int], shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first = int(rng.choice(np.flatnonzero(self.person == parents[0])))
        textures = [self.texture[first]]
        for region in self.regions:
            photos = np.flatnonzero(self.person == parents[region])
            distance = ((self.seen[region][photos] - self.seen[region][first]) ** 2).sum(axis=1)
            photo = photos[np.argsort(distance)[int(rng.integers(min(2, len(photos))))]]
            textures.append(self.texture[photo] + 0.7 * (self.low[first] - self.low[photo]))  # the first one's light
        lent = int(rng.integers(len(self.person)))
        own = 0.5 * (self.controls[first] - self.shape[parents[0]])
        pose = own + BORROWED * (self.controls[lent] - self.shape[self.person[lent]])
        texture = torch.from_numpy(self._blended(textures).transpose(2, 0, 1).copy())[None].clamp(-1, 1)
        field = dense(torch.from_numpy((shape + pose).astype(np.float32))[None], self.side)
        drawn = warp(texture, inverse(field))[0].permute(1, 2, 0).numpy()
        return np.asarray(((drawn + 1) * 127.5).round().clip(0, 255), np.uint8)

    def _blended(self, textures: list[Floats]) -> Floats:
        """Each band of the textures under masks that are as soft as the band is coarse."""
        blended = np.zeros_like(textures[0])
        for sigma in (1, 2, 4, None):
            lows = textures if sigma is None else [self._blur(texture, sigma) for texture in textures]
            soft = [self._blur(mask, sigma or 5) for mask in self.masks]
            bands = lows if sigma is None else [a - b for a, b in zip(textures, lows, strict=True)]
            blended += sum(band * mask for band, mask in zip(bands, soft, strict=True)) / sum(soft)
            textures = lows
        return blended


def as_new(train: ManifestImages, images: np.ndarray) -> ManifestImages:
    """Drawn people (people, shots, ...) as a set of synthetic ones."""
    people, shots = images.shape[:2]
    new = train.only(np.zeros(people * shots, np.int64))
    new.pixels = images.reshape(-1, *images.shape[2:])
    new.identity = np.repeat([f"synthetic/new/{n:06d}" for n in range(people)], shots).astype(object)
    new.image_id = np.asarray([f"{n:06d}" for n in range(people * shots)], object)
    new.source = np.repeat(np.asarray(["synthetic"], object), people * shots)
    new.label = new.codes()[1]
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--shots", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    def newest(stage: str) -> Path:
        folders = [folder for folder in (args.workdir / "data/store" / stage).iterdir() if folder.is_dir()]
        return max(folders, key=lambda folder: folder.stat().st_mtime)

    train, val = (ManifestImages(newest("prepare"), split=split) for split in ("train", "val"))
    G, _ = load_generator(newest("train_gan"))
    if not isinstance(G, MorphableGenerator):
        raise SystemExit(f"the generator in {args.workdir} is no `morphable`: give a run whose train_gan.gan is")
    known, unknown = (JudgedFaces(part, np.zeros((len(part), 1), np.float32), *part.codes()) for part in (train, val))
    copies = Copies(known, Redrawing(newest("train_gan"), train, Synthesize(), CPU), 0.01)
    pixels = np.concatenate([train.pixels, val.pixels])
    person = np.concatenate([known.person, unknown.person + len(known.names)])
    judge = CrossFitted(pixels, person, len(known.names))
    level = match_level(judge.real()[0])
    ways = {f"mixture {n}": mixture(G, train, args.people, args.shots, n) for n in (8, 3, 2)}
    ways |= {f"regions {n}": Regions(G, n == 3).draw(args.people, args.shots) for n in (3, 4)}
    for way, images in ways.items():
        firsts = images[: len(images) // 10 * 10, 0]
        sheet = np.vstack([np.hstack(list(row)) for row in firsts.reshape(-1, 10, *firsts.shape[1:])])
        cv2.imwrite(str(args.out / f"{way.replace(' ', '-')}.png"), sheet[..., ::-1])
        new = as_new(train, images)
        probe = {name: told and round(told["eer"], 4) for name, told in whitening_probe(train, new, val).items()}
        near = float((copies.nearest(new.pixels)[0] >= copies.value).mean())
        matched = float((judge.likeness(new.pixels, new.label).max(axis=1) >= level).mean())
        print(f"{way}: EER {probe}; near-copies {near:.3f}, people matched {matched:.3f}", flush=True)


if __name__ == "__main__":
    main()
