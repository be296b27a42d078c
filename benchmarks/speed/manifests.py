"""How long do merging and validating a manifest take, and in how much memory, as its rows grow?

Rows of tiny images made for the purpose (16 px, grey, all different, 20 a person), each step in a process of its own:

    python benchmarks/speed/manifests.py                         # 50,000, 100,000 and 200,000 rows
    python benchmarks/speed/manifests.py --rows 1000000
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.recognition.options import Arm, Merge
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime
from facegan.stages import merge

SIDE, EACH = 16, 20


def rows(number: int) -> Iterator[dict[str, Any]]:
    """Noise, which no other row resembles."""
    rng = np.random.default_rng(0)
    shared = {"source": "real", "dataset": "d", "split": "train", "height": SIDE, "width": SIDE}
    for place in range(number):
        pixels = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
        yield manifest.row(encode_png(pixels), identity=f"d/p{place // EACH:06d}", **shared)


def make(root: Path, number: int) -> None:
    """The manifest itself."""
    manifest.write(root / "made", rows(number), "benchmark", {})


def validate(root: Path, number: int) -> None:
    """What `facegan inspect --validate` checks."""
    assert manifest.validate(root / "made") == []


def merged(root: Path, number: int) -> None:
    """The stage, as an arm of real images runs it."""
    extra = {"arm": Arm().model_dump(mode="json")}
    merge.run(Merge(), extra, {"real": root / "made"}, root / "merged", Context(Runtime()))


def alone(step: Callable[[Path, int], None], root: Path, number: int, send: Any) -> None:
    """Run a step and send its processor time in s and the peak of its memory in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    step(root, number)
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    send.send((spent, after.ru_maxrss / 1024))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print("| rows | step | processor s | us a row | peak MB |\n|--:|---|--:|--:|--:|")
    for number in options.rows:
        with tempfile.TemporaryDirectory() as root:
            for step in (make, validate, merged):
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=alone, args=(step, Path(root), number, send))
                process.start()
                send.close()  # else a step that fails leaves this waiting
                spent, peak = receive.recv()
                process.join()
                print(
                    f"| {number:,} | {step.__name__} | {spent:.1f} | {spent / number * 1e6:.0f} | {peak:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
