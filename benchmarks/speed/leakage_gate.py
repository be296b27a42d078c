"""How long the leakage gate takes on a large set: its parts, in seconds of one thread.

ORL's photos stand for more people: each of 34 people (ORL's order by split) is there as they are, mirrored, darker and
both, four photos each. Synthetic images are means of two photos, warped and toned; the generator's drawings are warps.

    python benchmarks/speed/leakage_gate.py DIR                  # 6,000 images, 444 photos
    python benchmarks/speed/leakage_gate.py DIR --images 600
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from facegan.data.dataset import ManifestImages
from facegan.evaluation import leakage_gate
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import JudgedFaces
from facegan.metrics import leakage, planted
from facegan.pipeline import execute, graph
from facegan.recipe.load import load
from facegan.runtime.options import Runtime
from facegan.store.local import Store

PEOPLE, PHOTOS, EACH, TRAIN = 34, 4, 10, 111  # ORL's people who train; photos and images of each; train people in all


class Faces:
    """What the gate reads of a manifest's images."""

    def __init__(self, pixels: np.ndarray, person: np.ndarray, name: str) -> None:
        self.pixels, self.identity = pixels, np.asarray([f"{name}{code:05d}" for code in person])
        self.image_id = np.asarray([f"{name}-{n:060d}" for n in range(len(pixels))])

    def judged(self) -> JudgedFaces:
        """With nobody's embeddings."""
        names, person = np.unique(self.identity, return_inverse=True)
        return JudgedFaces(cast(Any, self), np.zeros((len(person), 1), np.float32), names.tolist(), person)


class Warps:
    """A generator that warps and tones a photo, and finds its own codes."""

    encodes = True

    def __init__(self, photos: np.ndarray) -> None:
        self.photos = photos

    def draw(self, photos: np.ndarray, count: int, seed: int) -> np.ndarray:
        """See leakage_gate.Redrawing."""
        drawn = warped(np.repeat(self.photos[photos], count, axis=0), 0.4, seed)
        return drawn.reshape(len(photos), count, *drawn.shape[1:])

    def grey(self, photos: np.ndarray, count: int, seed: int) -> leakage.Floats:
        """See leakage_gate.Redrawing."""
        drawn = self.draw(photos, count, seed)
        return leakage.grey(drawn.reshape(-1, *drawn.shape[2:])).reshape(len(photos), count, leakage.SIDE_PX, -1)


def warped(pixels: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Turned, scaled, shifted and toned, each at random."""
    rng, n = np.random.default_rng((seed, len(pixels))), len(pixels)
    turn, scale, shift = rng.normal(0, 3, n), rng.normal(0, 0.05, n), rng.normal(0, 0.05, (n, 2))
    moved = planted._moved(pixels, strength * turn, 1 + strength * scale, strength * shift)
    return planted._toned(moved, lambda unit, gamma: unit**gamma, np.exp(rng.normal(0, 0.2, n)))


def orl(root: Path) -> np.ndarray:
    """All photos (400, 64, 64, 1), ten of each person."""
    node = next(node for node in graph.build(load("orl-quick", [])) if node.stage == "prepare")
    folder = execute.execute(node, Store(root), {}, Runtime(device="cpu", jobs=1, threads=1)).path
    return np.concatenate([ManifestImages(folder, split).pixels for split in ("train", "val", "test")])


def train_photos(photos: np.ndarray) -> np.ndarray:
    """PHOTOS photos of each of TRAIN people."""

    def person(code: int) -> np.ndarray:
        own = photos[code % PEOPLE * EACH :][:EACH][(np.arange(PHOTOS) + 2 * (code // PEOPLE)) % EACH]
        own = own[:, :, ::-1] if code // PEOPLE % 2 else own
        return (own * (0.8 if code // PEOPLE >= 2 else 1)).astype(np.uint8)

    return np.concatenate([person(code) for code in range(TRAIN)])


def main() -> None:
    """Print the seconds of each part, and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for the stage prepare")
    parser.add_argument("--images", type=int, default=6000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos, rng = orl(args.root), np.random.default_rng(0)
    train = Faces(train_photos(photos), np.repeat(np.arange(TRAIN), PHOTOS), "orl/t").judged()
    held_out = photos[PEOPLE * EACH :]
    val = Faces(held_out, np.arange(len(held_out)) // EACH, "orl/v").judged()
    first, second = (photos[rng.integers(0, len(photos), args.images)].astype(np.float32) for _ in range(2))
    drawn = warped((0.55 * first + 0.45 * second).astype(np.uint8), 1, 0)
    new = Faces(drawn, np.arange(args.images) // EACH, "synthetic/new-").judged()
    none = Faces(drawn[:0], np.arange(0), "orl/t").judged()
    copies: list[leakage_gate.Copies] = []
    parts = {
        "calibration": lambda: copies.append(leakage_gate.Copies(train, Warps(train.images.pixels), 0.01)),
        "near-copies": lambda: leakage_gate.near_copies(new, train, val, copies[0]),
        "membership": lambda: leakage_gate.membership(new, train, val),
        "new people": lambda: leakage_gate.new_people(new, none, val, train, Audit()),
    }
    for name, part in parts.items():
        start, cpu = time.perf_counter(), time.process_time()
        part()
        print(
            f"{name:12} {time.perf_counter() - start:6.1f} s, {time.process_time() - cpu:6.1f} s of a core", flush=True
        )
    print(f"memory       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:6.1f} GB")


if __name__ == "__main__":
    main()
