"""Membership by likelihood ratio: is a score that of recognizers which knew the person, or of those which did not?

    facegan run orl-quick --workdir DIR
    python benchmarks/membership_references.py --prepared PREPARE --target TRAIN_RECOGNIZER [--target ...] --out OUT

Reference recognizers are trained with the first target's options, each on a half of train and test people together;
the halves of two make up all, so that half of them know each person. A photo's score is that of the benchmark
`membership`: its mean cosine with the person's other photos. The references that know the person give each photo a mean
score, and so do those that do not; with one spread for all on either side, since they are few. The figure is the log
ratio of the two normal densities at the target's score, a person's the mean over the photos (Carlini et al. 2022, IEEE
S&P, algorithm 1 and section VI.B). Printed for each target beside the plain score: AUC of train people against test
people with its 95 % interval over people. Each reference takes a training; OUT keeps them, and the same command goes on
after a stop.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.seeds import subseed
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.protocols.membership import photo_scores
from facegan.metrics import membership
from facegan.recognition.embedder import embed, embedder_spec, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.training import train_in_ranks
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime


def reference(prepared: Path, known: set[str], options: TrainRecognizer, seed: int, out: Path) -> Path:
    """The folder of a recognizer that was trained on the photos of `known`, train and test people alike."""
    folder = out / "recognizer"
    if (folder / "summary.json").is_file():
        return folder
    rows = [row for row in manifest.read(prepared).to_pylist() if row["identity"] in known]
    label = {name: n for n, name in enumerate(sorted(known))}
    manifest.write(out / "people", [{**r, "split": "train", "label": label[r["identity"]]} for r in rows], "merge", {})
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {"train": out / "people", "val": prepared}
    train_in_ranks(options, {"seed": seed}, inputs, folder, Context(Runtime(device="cpu", threads=1)))
    return folder


def scores(folder: Path, sides: dict[str, ManifestImages], n_images: int) -> dict[str, np.ndarray]:
    """{side: the score of each drawn photo (people, n_images)} by one recognizer."""
    net, _ = load_embedder(folder)
    found = {}
    for side, images in sides.items():
        faces: EmbeddedFaces = embed_faces(embed(net, images.pixels, 64), images.identity)
        found[side] = photo_scores(faces, n_images, 0)[1]
    return found


def log_ratio(target: np.ndarray, by_reference: np.ndarray, knows: np.ndarray) -> np.ndarray:
    """log p(target | known) - log p(target | unknown) of each photo: (people, photos) of (references, people, photos).

    knows: bool (references, people). Normal densities, means of each photo, one variance for all of either side.
    """
    weight = knows[:, :, None]
    means, variances = [], []
    for side in (weight, ~weight):
        mean = (by_reference * side).sum(axis=0) / np.maximum(side.sum(axis=0), 1)
        means.append(mean)
        variances.append(((by_reference - mean) ** 2 * side).sum() / (side.sum() * by_reference.shape[2]))
    density = [-((target - mean) ** 2) / (2 * v) - np.log(v) / 2 for mean, v in zip(means, variances, strict=True)]
    return density[0] - density[1]


def told(members: np.ndarray, others: np.ndarray) -> str:
    """AUC of a person and of a photo, with intervals, and TPR of photos at a FPR of 0.1."""
    flat = [(side.ravel(), np.repeat(np.arange(len(side)), side.shape[1])) for side in (members, others)]
    found: dict[str, Any] = membership.membership(*flat[0], *flat[1])
    words = [f"{w} {found[w]['auc']:.3f} ({found[w]['interval'][0]:.3f} to {found[w]['interval'][1]:.3f})"
             for w in ("person", "photo")]  # fmt: skip
    tpr = membership.tpr_at_fpr(members.ravel(), others.ravel(), 0.1)
    return ", ".join(words) + (f", photos at FPR 0.1: {tpr:.3f}" if tpr is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--target", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--images", type=int, default=10)
    options = parser.parse_args()
    sides = {
        side: ManifestImages(options.prepared, split=split)
        for side, split in (("members", "train"), ("others", "test"))
    }
    enough = {side: people_with(images, options.images) for side, images in sides.items()}
    everybody = sorted({*enough["members"], *enough["others"]})
    config = TrainRecognizer.model_validate(embedder_spec(options.target[0])["options"])
    by_reference, knows = [], []
    for n in range(options.references):
        drawn = np.random.default_rng(subseed("reference", n // 2)).permutation(len(everybody))
        half = drawn[: len(drawn) // 2] if n % 2 == 0 else drawn[len(drawn) // 2 :]  # each person in one of two
        known = {everybody[place] for place in half}
        folder = reference(options.prepared, known, config, n, options.out / f"{n:02d}")
        by_reference.append(scores(folder, sides, options.images))
        knows.append({side: np.asarray([name in known for name in enough[side]]) for side in sides})
        print(f"reference {n + 1} of {options.references}", flush=True)
    print(f"{len(enough['members'])} train people against {len(enough['others'])} test people, {options.images} photos")
    for target in options.target:
        plain = scores(target, sides, options.images)
        ratios = {
            side: log_ratio(plain[side], np.stack([s[side] for s in by_reference]), np.stack([k[side] for k in knows]))
            for side in sides
        }
        print(f"{target.name[:12]}  plain: {told(plain['members'], plain['others'])}")
        print(f"{'':12}  ratio: {told(ratios['members'], ratios['others'])}", flush=True)


def people_with(images: ManifestImages, count: int) -> list[str]:
    """The names of those with so many photos, sorted."""
    names, person = images.codes()
    return [name for name, n in zip(names, np.bincount(person), strict=True) if n >= count]


if __name__ == "__main__":
    main()
