"""New people of several generators, before any filter: how they look, teach and leak.

    facegan run RECIPE --set train_gan.gan.kind=KIND --workdir DIR --until train_gan    # for each generator
    python benchmarks/generators.py DIR OUT              # minutes; OUT/<kind>.png: first image of a hundred new people

All train_gan folders in DIR that learned from the newest photos are drawn from, with mixtures of `--parents` people and
variation as the shipped recipes have it. Printed for each: images a second; EER of `classical` on val people, fitted
with photos, with these people too, with them alone (the whitening probe); the share of images that the gate takes for
near-copies, of people whom it takes for train people.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from facegan.core.seeds import subseed
from facegan.data.dataset import ManifestImages
from facegan.evaluation.cross_fitted import CrossFitted, match_level
from facegan.evaluation.leakage_gate import Copies
from facegan.evaluation.set_card import JudgedFaces
from facegan.evaluation.whitening_probe import whitening_probe
from facegan.generation.draw import draw
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.identities.mixture import Mixture
from facegan.generation.options import Synthesize
from facegan.generation.redraw import Redrawing
from facegan.generation.synthesizer import Synthesizer
from facegan.generation.thresholds import encode_all

CPU = torch.device("cpu")
OPTIONS = Synthesize(borrowed=0.7, variation_noise=0)  # as in the shipped recipes


def new_people(
    G: Generator, train: ManifestImages, person: np.ndarray, people: int, shots: int, parents: int
) -> np.ndarray:
    """(people, shots, H, W, C) uint8, as `synthesize` draws them; it is not asked what its filters would keep."""
    nothing = np.empty(0, np.float32)
    synthesizer = Synthesizer(
        G, torch.nn.Identity(), encode_all(G, train, person, OPTIONS, CPU), person, nothing, nothing, OPTIONS, CPU,
        copy_threshold=1, person_threshold=1, image_threshold=-1,
    )  # fmt: skip
    codes = G.codes().detach().numpy()
    proposals = Mixture(parents=parents).proposals(codes, codes, np.random.default_rng(subseed("new", 0)))
    drawn = []
    for n, proposal in enumerate(itertools.islice(proposals, people)):
        rng = np.random.default_rng(subseed("new", 0, n))
        z, _ = synthesizer.variation(shots, proposal.parents, proposal.weights, rng)
        drawn.append(draw(G, np.repeat(proposal.code[None], shots, axis=0), z, shots))
    return np.stack(drawn)


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
    parser.add_argument("--parents", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    def finished(stage: str) -> list[Path]:
        folders = [path.parent for path in (args.workdir / "data/store" / stage).glob("*/record.json")]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime)

    photos = finished("prepare")[-1]
    train, val = (ManifestImages(photos, split=split) for split in ("train", "val"))
    known, unknown = (JudgedFaces(part, np.zeros((len(part), 1), np.float32), *part.codes()) for part in (train, val))
    pixels = np.concatenate([train.pixels, val.pixels])
    person = np.concatenate([known.person, unknown.person + len(known.names)])
    judge = CrossFitted(pixels, person, len(known.names))
    level = match_level(judge.real()[0])
    for folder in finished("train_gan"):
        if json.loads((folder / "record.json").read_text())["inputs"]["manifest"]["fingerprint"] != photos.name:
            continue
        G, spec = load_generator(folder)
        rows = np.asarray([spec["identities"].index(name) for name in train.identity])
        started = time.monotonic()
        images = new_people(G, train, rows, args.people, args.shots, args.parents)
        rate = images.shape[0] * images.shape[1] / (time.monotonic() - started)
        kind = f"{spec['gan']['kind']}-{folder.name[:8]}"
        firsts = images[: len(images) // 10 * 10, 0]
        sheet = np.vstack([np.hstack(list(row)) for row in firsts.reshape(-1, 10, *firsts.shape[1:])])
        cv2.imwrite(str(args.out / f"{kind}.png"), sheet[..., ::-1])
        new = as_new(train, images)
        copies = Copies(known, Redrawing(folder, train, OPTIONS, CPU), 0.01)
        probe = {name: told and round(told["eer"], 4) for name, told in whitening_probe(train, new, val).items()}
        near = float((copies.nearest(new.pixels)[0] >= copies.value).mean())
        matched = float((judge.likeness(new.pixels, new.label).max(axis=1) >= level).mean())
        print(f"{kind} ({spec['nimg'] / 1000:g} kimg): {rate:.0f} images/s; EER {probe}; near-copies {near:.3f}, "
              f"people matched {matched:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
