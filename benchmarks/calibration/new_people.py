"""How often the audit takes a real stranger for a train person, and a train person's fresh photos for a stranger.

For each split of the ORL people (`prepare.split.seed`) the recipe orl-quick runs on 7 photos of each train person up to
its synthetic set, with the generator that is solved; the rule of `audit.new_people` is then asked, with the judge and
with the guide in its place, about

    new        the synthetic new people
    strangers  val and test people, whom nothing has learned from
    fresh      the other 3 photos of each train person, under a new name

    python benchmarks/calibration/new_people.py DIR 6 7      # minutes a split; goes on where it was
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facegan.data.dataset import ManifestImages
from facegan.evaluation import leakage_gate
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import JudgedFaces
from facegan.metrics import set_statistics
from facegan.pipeline import execute, graph
from facegan.recipe.load import load
from facegan.recognition.embedder import embed, load_embedder
from facegan.runtime.options import Runtime
from facegan.store.local import Artifact, Store

RUNTIME = Runtime(device="cpu", jobs=1, threads=1)
PHOTOS = 7


class Made:
    """The stages of one split, each made once."""

    def __init__(self, root: Path, split: int, *sets: str) -> None:
        self.nodes = graph.build(load("orl-quick", [f"prepare.split.seed={split}", *sets]))
        self.store, self.done = Store(root), dict[str, Artifact]()

    def stage(self, stage: str, arm: str | None = None) -> Path:
        """The folder of a stage."""
        chosen = next(node for node in self.nodes if node.stage == stage and arm in (None, node.arm))
        for node in self.nodes:
            if node.key in {chosen.key, *_needed(chosen)} and node.key not in self.done:
                self.done[node.key] = execute.execute(node, self.store, self.done, RUNTIME)
        return self.done[chosen.key].path


def _needed(node: graph.Node) -> set[str]:
    return {key for need in node.needs.values() for key in (need.key, *_needed(need))}


def ask(root: Path, split: int) -> list[dict[str, Any]]:
    """The rule's answers on one split, one line for each recognizer."""
    whole = Made(root, split).stage("prepare")
    few = Made(root, split, f"prepare.train_images={PHOTOS}", "train_gan.gan.kind=morphable")
    prepared, made = few.stage("prepare"), ManifestImages(few.stage("synthesize"))
    photos, train = ManifestImages(whole, "train"), ManifestImages(prepared, "train")
    kept = set(train.image_id)
    fresh = photos.only(np.flatnonzero([image_id not in kept for image_id in photos.image_id]))
    invented = np.asarray([name.startswith("synthetic/") for name in made.identity])
    sets = {
        "train": train,
        "val": ManifestImages(prepared, "val"),
        "test": ManifestImages(whole, "test"),
        "fresh": fresh,
        "existing": made.only(np.flatnonzero(~invented)),
        "new": made.only(np.flatnonzero(invented)),
    }
    return [{"split": split, "by": by, **answers(few.stage("train_recognizer", by), sets)} for by in ("judge", "guide")]


def answers(recognizer: Path, sets: dict[str, ManifestImages]) -> dict[str, Any]:
    """Level, and how many of each set match: {what: "n of N"}."""
    net, _ = load_embedder(recognizer, "cpu")
    seen = {name: JudgedFaces(images, embed(net, images.pixels, 64), *images.codes()) for name, images in sets.items()}
    train, val, existing = seen["train"], seen["val"], seen["existing"]
    limits = set_statistics.thresholds(val.embedding, val.person, Audit().max_fmr)
    found: dict[str, Any] = {}
    gate: Callable[[JudgedFaces], dict[str, Any]] = lambda faces: leakage_gate.new_people(  # noqa: E731
        faces, existing, val, train, limits, Audit()
    )
    for name in ("new", "val", "test", "fresh"):
        told = gate(seen[name])
        worst = told["new"]["worst"]
        # A fresh photo set must match its own person, not just any.
        right = [w for w in worst if w["likeness"] >= told["level"] and w["train_person"] == w["identity"]]
        matched = len(right) if name == "fresh" else told["new"]["matched"]
        found |= {"level": told["level"], name: f"{matched} of {told['new']['people']}"}
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for the stages")
    parser.add_argument("splits", type=int, nargs="+")
    args = parser.parse_args()
    print("split  by     level  new       val      test      fresh", flush=True)
    for split in args.splits:
        for line in ask(args.root, split):
            print(
                f"{line['split']:5}  {line['by']}  {line['level']:.3f}  {line['new']:8}  {line['val']:7}  "
                f"{line['test']:8}  {line['fresh']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
