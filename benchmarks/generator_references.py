"""Membership in a synthetic set by likelihood ratio: is a photo as near to it as to sets that were made of it, or not?

    python benchmarks/generator_references.py RECIPE DIR [--set stage.field=VALUE ...]

The target is the set of RECIPE. Reference sets are those of the same recipe with other train people: each of a half of
its train and test people together, the halves of two make up all, so that half of them were made of each person. With
as many test people as train people (--others) they are as large as the target's: other test people are in none, train
people with too few photos in all. The guide of a set learns from the same people as its generator. A photo's score is
its largest similarity to any image of a set, in place (facegan.metrics.leakage.closest); ratio and figures are those of
membership_references.py. Printed: AUC of train people against test people with its 95 % interval over people, plain and
by ratio. DIR is the working directory of all runs: the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from membership_references import log_ratio, people_with, told  # the script beside this one

from facegan.core.seeds import subseed
from facegan.data.dataset import ManifestImages
from facegan.data.options import SplitName
from facegan.data.preparation.splits import splits_of
from facegan.metrics import leakage
from facegan.recipe.load import load

BLOCK = 500  # synthetic images compared at once


def stage(name: str, recipe: str, workdir: Path, options: list[str]) -> Path:
    """The folder of a finished stage of a recipe, which is run if need be."""
    answer = workdir / "answer.json"
    command = [sys.executable, "-m", "facegan", "stage", name, recipe, "--workdir", str(workdir), "--json", str(answer)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return Path(next(one["path"] for one in json.loads(answer.read_bytes())["stages"] if one["stage"] == name))


def scores(photos: np.ndarray, synthetic: Path) -> np.ndarray:
    """The largest similarity of photos (N, H, W, C) uint8 to any image of a set: (N,)."""
    grey, best = leakage.grey(photos), np.full(len(photos), -1.0)
    images = ManifestImages(synthetic).pixels
    for start in range(0, len(images), BLOCK):
        best = np.maximum(best, leakage.closest(grey, leakage.grey(images[start : start + BLOCK]))[0])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="options")
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--images", type=int, default=10, help="photos of each person; who has fewer is left out")
    parser.add_argument("--others", type=int, help="take so many test people, drawn by chance; by default all")
    args = parser.parse_args()
    if args.others is not None and args.others < 2:
        parser.error("give two --others or more: they stand for those who were not in the set")
    if load(args.recipe, args.options).prepare.train_identities is not None:
        parser.error(
            "train_identities would leave other people out of each reference: set prepare.train_identities=null"
        )
    if args.references < 4:
        parser.error("give four references or more: of two, one knows a person and one does not, and nothing varies")
    args.workdir.mkdir(parents=True, exist_ok=True)
    options = [part for option in args.options for part in ("--set", option)]
    prepared = stage("prepare", args.recipe, args.workdir, options)
    split = splits_of(prepared)
    photos, names = [], {}
    for side, most in (("train", None), ("test", args.others)):
        images = ManifestImages(prepared, split=side)
        names[side] = people_with(images, args.images)
        if most is not None:
            names[side] = list(np.random.default_rng(subseed("others")).permutation(names[side])[:most])
        photos += [images.pixels[np.flatnonzero(images.identity == name)[: args.images]] for name in names[side]]
    everybody, pixels = [*names["train"], *names["test"]], np.concatenate(photos)

    def by_set(extra: list[str]) -> np.ndarray:
        found = scores(pixels, stage("synthesize", args.recipe, args.workdir, [*options, *extra]))
        return found.reshape(len(everybody), args.images)

    target, by_reference, knows = by_set([]), [], []
    for n in range(args.references):
        drawn = np.random.default_rng(subseed("reference", n // 2)).permutation(len(everybody))
        half = drawn[: len(drawn) // 2] if n % 2 == 0 else drawn[len(drawn) // 2 :]  # each person in one of two
        known = np.isin(np.arange(len(everybody)), half)
        sides: dict[str, SplitName] = {
            **split,
            **{name: "train" if in_it else "test" for name, in_it in zip(everybody, known, strict=True)},
        }
        by_reference.append(by_set(["--set", f"prepare.split.frozen={json.dumps(sides)}"]))
        knows.append(known)
        print(f"reference {n + 1} of {args.references}", flush=True)
    ratio, members = log_ratio(target, np.stack(by_reference), np.stack(knows)), len(names["train"])
    print(f"{members} train people against {len(everybody) - members} test people, {args.images} photos of each")
    for what, score in (("plain", target), ("ratio", ratio)):
        print(f"{what}: {told(score[:members], score[members:])}")


if __name__ == "__main__":
    main()
