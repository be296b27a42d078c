"""How long do figures and replicates of a large test set take, and in how much memory?

Simulated embeddings (128 numbers each) of as many people and images as the test of `lfw-limited`: 3,617 people, 735 of
them with two images or more, 6,548 images, 21.4 million pairs. On one thread:

    python benchmarks/speed/large_test_set.py                    # 500 replicates
    python benchmarks/speed/large_test_set.py --replicates 2000
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.protocols import ProtocolConfig
from facegan.evaluation.protocols.identification import Identification
from facegan.evaluation.protocols.verification import Verification
from facegan.metrics import intervals

PEOPLE, PAIRED, IMAGES, DIM = 3617, 735, 6548, 128


def simulated(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 (IMAGES, DIM) and the person of each: few people with many images, many with one."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, PAIRED + 1) ** 0.9
    more = rng.multinomial(IMAGES - PEOPLE - PAIRED, share / share.sum())
    images = np.ones(PEOPLE, dtype=np.int64)
    images[:PAIRED] = 2 + more
    who = np.repeat(np.arange(PEOPLE), images)
    rows = rng.normal(size=(PEOPLE, DIM))[who] + spread * rng.normal(size=(len(who), DIM))
    return rows.astype(np.float32), who


def timed(what: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work(*arguments)`, whose time and the process's peak memory so far are printed."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work(*arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"| {what} | {wall:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)
    return found


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--spread", type=float, default=1.6, help="of a person's images about their centre")
    options = parser.parse_args()
    embedding, who = simulated(options.spread)
    weights = intervals.person_weights(PEOPLE, options.replicates, seed=0)
    benchmarks: list[ProtocolConfig] = [Verification(), Identification()]
    print("| what | seconds | of processor | peak GB |\n|---|--:|--:|--:|")
    for benchmark in benchmarks:
        result = timed(f"{benchmark.kind}: figures", benchmark.run, embed_faces(embedding, who))
        what = f"{benchmark.kind}: {options.replicates} replicates of each"
        drawn = timed(what, benchmark.replicates, embed_faces(embedding, who), weights)
        for metric in result.metrics:
            spread = drawn[metric.name].std() if metric.name in drawn else float("nan")
            print(f"|   {metric.name} {metric.value:.4f}, sd over people {spread:.4f} | | | |")


if __name__ == "__main__":
    main()
