"""How often the audit takes a real stranger for a train person, and a train person's fresh photos for a stranger.

For each split of the ORL people (`prepare.split.seed`) the recipe orl-quick is prepared with 7 photos of each train
person; the rule of `audit.new_people` is then asked about

    strangers  test people, whom nothing has learned from
    fresh      the other 3 photos of each train person, under a new name

    python benchmarks/calibration/new_people.py DIR 0 1 2      # seconds a split
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from facegan.data.dataset import ManifestImages
from facegan.evaluation import leakage_gate
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import JudgedFaces
from facegan.pipeline import execute, graph
from facegan.recipe.load import load
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


def ask(root: Path, split: int) -> dict[str, Any]:
    """The rule's answers on one split: level, and how many of each set match."""
    whole = Made(root, split).stage("prepare")
    prepared = Made(root, split, f"prepare.train_images={PHOTOS}").stage("prepare")
    train, val = (judged(ManifestImages(prepared, side)) for side in ("train", "val"))
    photos, kept = ManifestImages(whole, "train"), set(train.images.image_id)
    fresh = photos.only(np.flatnonzero([image_id not in kept for image_id in photos.image_id]))
    none = train.only(np.zeros(0, np.int64))
    gates = {
        name: leakage_gate.new_people(judged(images), none, val, train, Audit())
        for name, images in {"strangers": ManifestImages(whole, "test"), "fresh": fresh}.items()
    }
    told = gates["fresh"]["new"]
    # Fresh photos must match their own person, not just any.
    right = [
        w for w in told["worst"] if w["likeness"] >= gates["fresh"]["level"] and w["train_person"] == w["identity"]
    ]
    return {
        "split": split,
        "level": gates["fresh"]["level"],
        "strangers": f"{gates['strangers']['new']['matched']} of {gates['strangers']['new']['people']}",
        "fresh": f"{len(right)} of {told['people']}",
        "power": gates["fresh"]["power_unseen"],
    }


def judged(images: ManifestImages) -> JudgedFaces:
    """The faces, with nobody's embeddings."""
    return JudgedFaces(images, np.zeros((len(images), 1), np.float32), *images.codes())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for the stages")
    parser.add_argument("splits", type=int, nargs="+")
    args = parser.parse_args()
    print("split  level  strangers  fresh     halves of train people", flush=True)
    for split in args.splits:
        line = ask(args.root, split)
        print(
            f"{split:5}  {line['level']:5.2f}  {line['strangers']:9}  {line['fresh']:8}  {line['power']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
