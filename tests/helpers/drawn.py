"""Small drawn faces, a tiny recipe over them, and a laboratory that runs single stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegan.core.seeds import subseed
from facegan.data.images import encode_png
from facegan.generation.gans import GANS
from facegan.pipeline import execute, graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.runtime.options import Runtime
from facegan.store.local import Artifact, Store

ROOT = Path(__file__).resolve().parents[2]  # of the repository
SHARED = ROOT.parent / "shared" / "data"  # real faces, where they lie beside it
RUNTIME = Runtime(device="cpu", jobs=1, threads=1, log_interval_s=1e-9)
SIZE_PX = 32
BACKBONE_ARGS = {"channels": [8, 8, 16, 16], "stem_width": 8}


def draw_face(person: int, shot: int, height: int = 48, width: int = 44) -> np.ndarray:
    """A face (H, W) uint8: the features belong to the person, place and light to the shot."""
    who = np.random.default_rng(subseed("face", person))
    now = np.random.default_rng(subseed("shot", person, shot))
    y, x = np.mgrid[0:height, 0:width]
    turn, lift = now.uniform(-0.12, 0.12, 2)
    v, u = (y / height - 0.5 + lift) * 2, (x / width - 0.5 + turn) * 2
    canvas = np.full((height, width), who.uniform(20, 90))
    wide, tall = who.uniform(0.5, 0.8), who.uniform(0.7, 0.95)

    def blob(cu: float, cv: float, ru: float, rv: float, value: float) -> None:
        edge = np.clip(8 * (1 - ((u - cu) / ru) ** 2 - ((v - cv) / rv) ** 2), 0, 1)
        canvas[:] = canvas * (1 - edge) + value * edge

    skin, apart, high = who.uniform(120, 230), who.uniform(0.2, 0.36), who.uniform(-0.35, -0.05)
    blob(0, who.uniform(-0.5, -0.25), wide + 0.12, who.uniform(0.5, 0.75), who.uniform(10, 200))  # hair
    blob(0, 0.05, wide, tall, skin)
    eye, size = who.uniform(0, 80), who.uniform(0.07, 0.16)
    for side in (-1, 1):
        blob(side * apart + turn, high, size, size * now.uniform(0.5, 1.1), eye)
    blob(turn, high + 0.3, who.uniform(0.05, 0.12), who.uniform(0.1, 0.24), skin * 0.75)
    open_ = now.uniform(0.03, 0.14)
    blob(
        turn,
        who.uniform(0.4, 0.6),
        who.uniform(0.15, 0.4),
        open_ + who.uniform(0, 0.06),
        who.uniform(20, 110),
    )
    light = 1 + now.uniform(-0.4, 0.4) * u + now.uniform(-0.3, 0.3) * v + now.uniform(-0.15, 0.15)
    return np.clip(canvas * light + now.normal(0, 2, canvas.shape), 0, 255).astype(np.uint8)


def draw_folder(root: Path, people: int = 8, shots: int = 5) -> Path:
    """`root/p<person>/<shot>.png` with drawn faces."""
    for person in range(people):
        folder = root / f"p{person:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for shot in range(shots):
            (folder / f"{shot}.png").write_bytes(encode_png(draw_face(person, shot)))
    return root


def draw_lfw(root: Path, people: dict[str, int]) -> Path:
    """`root/lfw/Name/Name_0001.jpg` with drawn faces, so many of each person."""
    for person, (name, shots) in enumerate(people.items()):
        folder = root / "lfw" / name
        folder.mkdir(parents=True)
        for shot in range(1, shots + 1):
            Image.fromarray(draw_face(person, shot)).save(folder / f"{name}_{shot:04d}.jpg", quality=95)
    return root


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, dicts within dicts."""
    both = dict(base)
    for key, value in changes.items():
        deep = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if deep else value
    return both


def tiny(root: Path | str, **changes: Any) -> Recipe:
    """A recipe over a folder of faces whose stages take a second or less each; `changes` are laid over it."""
    base: dict[str, Any] = {
        "name": "tiny",
        "prepare": {
            "source": {"kind": "folder", "root": str(root)},
            "size_px": SIZE_PX,
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
        },
        "train_gan": {
            "gan": {"kind": "cvae_gan", "channels": 8, "max_channels": 16, "code_dim": 8, "z_dim": 4},
            "kimg": 0.048,
            "batch_size": 8,
            "checkpoint_kimg": 0.016,
            "snapshot_kimg": 0.024,
        },
        "synthesize": {
            "images_per_existing": 3,
            "new_identities": 3,
            "images_per_new": 3,
            "batch_size": 4,
            "max_fmr": 0.49,
            "max_attempts": 20,
        },
        "train_recognizer": {
            "backbone": "resnet10t",
            "backbone_args": BACKBONE_ARGS,
            "embedding_dim": 16,
            "steps": 6,
            "batch_size": 8,
            "evaluations": 3,
        },
        "seeds": [0],
        "runtime": RUNTIME.model_dump(),
    }
    return Recipe.model_validate(merged(base, changes))


def with_gan(root: Path, kind: str, **changes: Any) -> Recipe:
    """The same with a small generator of a family, trained for two steps where it is trained."""
    data = tiny(root, **changes).model_dump(mode="json")
    small = {"channels": 8, "max_channels": 16, "code_dim": 8, "z_dim": 4, "ramp": None}
    data["train_gan"]["gan"] = {"kind": kind, **{k: v for k, v in small.items() if k in GANS.get(kind).model_fields}}
    data["train_gan"]["kimg"] = 0.016
    data["synthesize"]["seed"] = 7
    return Recipe.model_validate(data)


def pick(nodes: list[Node], stage: str, arm: str | None = None, seed: int | None = None) -> Node:
    """The first node of a stage (arm, seed)."""
    fitting = (n for n in nodes if n.stage == stage and arm in (None, n.arm) and seed in (None, n.seed))
    return next(fitting)


class Lab:
    """A store of its own; `make` runs a node and, first, what it needs."""

    def __init__(self, root: Path, runtime: Runtime = RUNTIME) -> None:
        self.store, self.runtime = Store(root), runtime
        self.done: dict[str, Artifact] = {}
        self.events: list[Event] = []

    def make(self, item: Node, on_event: Callable[[Event], None] | None = None) -> Artifact:
        """The artifact of `item`; what it needs is made once in a laboratory's life."""
        for needed in item.needs.values():
            if needed.key not in self.done:
                self.make(needed)
        artifact = execute.execute(item, self.store, self.done, self.runtime, on_event or self.events.append)
        self.done[item.key] = artifact
        return artifact

    def stage(self, recipe: Recipe, stage: str, arm: str | None = None, seed: int | None = None) -> Artifact:
        """The artifact of one stage of a recipe."""
        return self.make(pick(graph.build(recipe), stage, arm, seed))
