"""Memory and time of a classification head: the full one beside one shared out over the ranks (`sharded`).

Each measurement is a step's head alone (random embeddings, CosFace, forward, backward, optimizer), by the code that
`train_recognizer` runs, in fresh processes of one thread that meet over gloo. *Peak* is by how much the resident memory
of a rank grew at most, from before the head was built to after the last step (VmHWM, so Linux); *kept* is arithmetic:
centres and two moments, 12 bytes a number. Time is processor time a step, the median of the steps but the first; ranks
that wait for each other use little of it.

    python benchmarks/speed/head_memory.py                          # 10,000 and 100,000 classes
    python benchmarks/speed/head_memory.py --classes 1000000        # takes 6 GB

The full head of a million is measured in one process only: two ranks hold it twice. Prints Markdown.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "1000000")  # of the ranks: glibc hands freed tensors back at once

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facegan.recognition.classifier import Heads
from facegan.recognition.options import Sharded, TrainRecognizer
from facegan.recognition.tuning import decay_groups
from facegan.training import ranks

CPU = torch.device("cpu")


def resident(which: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(which))


def measure(
    classes: int, dim: int, batch: int, steps: int, rate: float | None, rank: int, size: int, folder: str
) -> None:
    """In a rank's process: write {"peak": MB, "seconds": of each step} to `folder`."""
    torch.set_num_threads(1)
    meeting = ranks.process_group(CPU, f"{folder}/meet", rank, size, 600) if size > 1 else contextlib.nullcontext()
    with meeting:
        train(10, dim, batch, 2, rate)  # what is loaded at the first step is not the head's
        before = resident("VmRSS")
        seconds = train(classes, dim, batch, steps, rate)
    Path(folder, f"{rank}.json").write_text(json.dumps({"peak": resident("VmHWM") - before, "seconds": seconds}))


def train(classes: int, dim: int, batch: int, steps: int, rate: float | None) -> list[float]:
    """Processor seconds of each step; `rate` is the sample rate of a sharded head, None: the full one."""
    options = TrainRecognizer(embedding_dim=dim, sharded=None if rate is None else Sharded(sample_rate=rate))
    torch.manual_seed(0)
    head = Heads(options, np.arange(classes), np.zeros(classes, np.int64))
    loss_of: nn.Module = head
    if rate is None:
        loss_of = ranks.parallel(head, CPU)
        optimizer = torch.optim.AdamW(decay_groups(nn.Identity(), head, options), lr=1e-3, foreach=True)
    rng, mine, seconds = np.random.default_rng(0), ranks.part(batch), []
    for step in range(steps):
        embedding = torch.randn(mine.stop - mine.start, dim, requires_grad=True)
        rows = rng.integers(0, classes, batch)
        started = time.process_time()
        loss = loss_of(embedding, rows, mine, step)
        if rate is None:
            optimizer.zero_grad(set_to_none=True)
        (loss * ranks.world_size()).backward()
        if rate is None:
            optimizer.step()
        head.update(1e-3, options.weight_decay)
        seconds.append(time.process_time() - started)
    return seconds


def row(classes: int, dim: int, batch: int, steps: int, rate: float | None, size: int) -> str:
    """A line of the table, of the rank that took most."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="facegan-") as folder:
        given = (classes, dim, batch, steps, rate)
        processes = [spawn.Process(target=measure, args=(*given, rank, size, folder)) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]
    kept = 12 * classes * dim / (1 if rate is None else size) / 1e6
    peak = max(each["peak"] for each in found)
    seconds = max(statistics.median(each["seconds"][1:]) for each in found)
    kind = "full" if rate is None else f"shared out, rate {rate:g}"
    return f"| {classes:,} | {kind} | {size} | {kept:,.0f} MB | {peak:,.0f} MB | {seconds:.2g} s |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="images of a step, shared by the ranks")
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    print("| classes | head | ranks | kept, each rank | peak, each rank | processor time a step |")
    print("|--:|---|--:|--:|--:|--:|")
    for classes in given.classes:
        for rate in (None, 1.0, 0.1):
            for size in (1, 2):
                if rate is not None or size == 1 or classes < 1_000_000:
                    print(row(classes, given.dim, given.batch, given.steps, rate, size), flush=True)


if __name__ == "__main__":
    main()
