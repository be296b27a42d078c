"""How long do exact EER and TAR of all pairs of LFW take, in how much memory, beside scikit-learn's `roc_curve`?

Simulated embeddings (128 numbers each) of as many people and images as LFW has: 5,749 people, 1,680 of them with two
images or more, 13,233 images, 87.5 million pairs; or of a manifest's people. Each in a process of its own, on two
threads. Ours begins with the embeddings; `roc_curve` with the scores, and reading EER and TAR off its curve is not
counted. Both must give the same values. Prints Markdown.

    python benchmarks/speed/all_pairs.py
    python benchmarks/speed/all_pairs.py lfw        # a folder that `facegan import` or a stage wrote
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "2"

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from facegan.data import manifest
from facegan.metrics.all_pairs import LargeSet
from facegan.metrics.verification import pair_scores

PEOPLE, PAIRED, IMAGES, DIM, SPREAD = 5749, 1680, 13233, 128, 1.6
FARS = (1e-3, 1e-4, 1e-5, 1e-6)
Found = tuple[float, float, list[float]]  # seconds, peak GB, EER and TAR at FARS


def simulated(people: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 (N, DIM) and the person of each: those given, or few with many images, many with one."""
    rng = np.random.default_rng(0)
    if people is None:
        share = 1 / np.arange(1, PAIRED + 1) ** 0.9
        images = np.ones(PEOPLE, np.int64)
        images[:PAIRED] = 2 + rng.multinomial(IMAGES - PEOPLE - PAIRED, share / share.sum())
        people = np.repeat(np.arange(PEOPLE), images)
    who = np.unique(people, return_inverse=True)[1]
    rows = rng.normal(size=(who.max() + 1, DIM))[who] + SPREAD * rng.normal(size=(len(who), DIM))
    return rows.astype(np.float32), who


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def ours(embedding: np.ndarray, who: np.ndarray) -> Found:
    start = time.perf_counter()
    pairs = LargeSet(embedding, who)
    values = [pairs.eer(), *(pairs.tar_at_far(far) or float("nan") for far in FARS)]
    return time.perf_counter() - start, peak_gb(), values


def theirs(embedding: np.ndarray, who: np.ndarray) -> Found:
    pairs = pair_scores(embedding, who)
    genuine, score = pairs.genuine, pairs.score
    del pairs
    start = time.perf_counter()
    far, tar, _ = roc_curve(genuine, score, drop_intermediate=False)
    spent, gb = time.perf_counter() - start, peak_gb()
    at = int(np.argmax(far + tar >= 1))  # the rates cross between this point of the curve and the one before
    low, high = (far[at - 1] + tar[at - 1] - 1, far[at] + tar[at] - 1)
    crossed = far[at - 1] + (far[at] - far[at - 1]) * (0 - low) / (high - low)
    return spent, gb, [float(crossed), *(float(tar[np.searchsorted(far, one, "right") - 1]) for one in FARS)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", nargs="?", type=Path)
    folder = parser.parse_args().manifest
    people = manifest.read(folder, ["identity"])["identity"].to_numpy() if folder else None
    embedding, who = simulated(people)
    print(f"{len(who):,} images, {len(who) * (len(who) - 1) // 2:,} pairs\n")
    print("| | seconds | peak GB | EER | " + " | ".join(f"TAR@FAR={far:g}" for far in FARS) + " |")
    print("|---" + "|--:" * (3 + len(FARS)) + "|")
    found = {}
    for name, measured in (("facegan, from embeddings", ours), ("scikit-learn's roc_curve, from scores", theirs)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = seconds, gb, values = pool.apply(measured, (embedding, who))
        print(
            f"| {name} | {seconds:.1f} | {gb:.2f} | " + " | ".join(f"{value:.6f}" for value in values) + " |",
            flush=True,
        )
    (fast, _, mine), (slow, _, other) = found.values()
    print(f"\n{slow / fast:.0f} times as fast; largest difference {np.abs(np.subtract(mine, other)).max():.1e}")


if __name__ == "__main__":
    main()
