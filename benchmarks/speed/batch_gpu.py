"""Memory and rate of train_gan with `runtime.batch_gpu`, each setting in a process of its own; one thread of a CPU.

Rates are of processor time, memory is the largest resident set. `orl-quick`'s images; prints Markdown.

    python benchmarks/speed/batch_gpu.py --batch-size 128 --batch-gpu 0 16
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import itertools
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

from facegan.generation.options import TrainGan
from facegan.recipe.load import load
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime
from facegan.stages import prepare, train_gan


def measure(people: Path, options: TrainGan, batch_gpu: int) -> None:
    """Print one line of the table."""
    stamps: list[float] = []
    runtime = Runtime(device="cpu", jobs=1, threads=1, log_interval_s=1e-12, batch_gpu=batch_gpu)
    context = Context(runtime, lambda event: stamps.append(time.process_time()) if event.kind == "progress" else None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as out:
        train_gan.run(options, {}, {"manifest": people}, Path(out), context)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = options.batch_size / statistics.median(b - a for a, b in itertools.pairwise(stamps))
    print(f"| {options.gan.kind} | {batch_gpu} | {rate:.0f} | {peak:.0f} | {before:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="cvae_gan")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batch-gpu", type=int, nargs="+", default=[0, 16])
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    kimg = args.steps * args.batch_size / 1000
    options = TrainGan.model_validate(
        {"gan": {"kind": args.kind}, "batch_size": args.batch_size, "kimg": kimg, "checkpoint_kimg": 1e6}
    )
    spawn = multiprocessing.get_context("spawn")
    print("| family | batch_gpu | images/s | peak, MB | of these at the start |\n|---|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as people:
        context = Context(Runtime(device="cpu", jobs=1, threads=1))
        prepare.run(load("orl-quick").prepare, {}, {}, Path(people), context)
        for batch_gpu in args.batch_gpu:
            process = spawn.Process(target=measure, args=(Path(people), options, batch_gpu))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
