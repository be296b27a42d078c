"""How long does the search for near-duplicates take beside comparing each image with each, on one thread?

Of a manifest, and of thumbnails made for the purpose, each with a hundred copies at the end (darker, some mirrored):
noise, which differs as much in every direction (the worst case), and blurred noise, which has few directions as faces
have. Both ways must give the same pairs and numbers. Prints Markdown.

    python benchmarks/perf/near_duplicates.py                    # made ones, 50,000 of each
    python benchmarks/perf/near_duplicates.py lfw --rows 20000   # a folder that `facegan import` or a stage wrote
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import itertools
import time
from pathlib import Path

import numpy as np

from facegan import manifest, thumbnails
from facegan.images import to_pixels
from facegan.thumbnails import BLOCK, SIDE, alike, shrunk

COPIES, CELLS = 100, 6


def copied(small: np.ndarray) -> np.ndarray:
    """The same, with darker copies of some at the end, every second one mirrored."""
    copies = (small[:: max(1, len(small) // COPIES)][:COPIES] * 0.8).astype(np.uint8).reshape(-1, SIDE, SIDE)
    copies[::2] = copies[::2, :, ::-1]
    return np.concatenate([small, copies.reshape(len(copies), -1)])


def noise(rows: int) -> np.ndarray:
    """(N, SIDE^2) uint8."""
    return np.random.default_rng(0).integers(0, 256, (rows, SIDE * SIDE), np.uint8)


def blurred(rows: int) -> np.ndarray:
    """(N, SIDE^2) uint8: CELLS x CELLS values, and what lies between them by linear interpolation."""
    between = np.stack([np.interp(np.linspace(0, CELLS - 1, SIDE), range(CELLS), row) for row in np.eye(CELLS)], 1)
    coarse = np.random.default_rng(0).integers(0, 256, (rows, CELLS, CELLS))
    return (between @ coarse @ between.T).reshape(rows, -1).astype(np.uint8)


def stored(folder: Path) -> np.ndarray:
    """(N, SIDE^2) uint8 of a manifest's images."""
    return shrunk(to_pixels(row["image"]["bytes"]) for row in manifest.iterate(folder, columns=["image"]))


def line(name: str, small: np.ndarray, correlation: float) -> None:
    """Measure both, and print a line."""
    start = time.process_time()
    found = list(alike(small, correlation))
    searched_s = time.process_time() - start
    looked_at = thumbnails._blocks(small, correlation, BLOCK)
    every = list(itertools.combinations_with_replacement(range(0, len(small), BLOCK), 2))
    original, thumbnails._blocks = thumbnails._blocks, lambda *_: every
    start = time.process_time()
    assert list(alike(small, correlation)) == found
    all_s, thumbnails._blocks = time.process_time() - start, original
    blocks = f"{len(looked_at)} of {len(every)}"
    print(f"| {name} | {len(small):,} | {all_s:.1f} | {searched_s:.1f} | {blocks} | {len(found)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=50_000, help="of the made ones")
    parser.add_argument("--correlation", type=float, default=0.98)
    args = parser.parse_args()
    print(
        "| thumbnails | number | each with each, s | search, s | blocks compared | pairs |\n|---|--:|--:|--:|--:|--:|"
    )
    if args.manifest:
        line(args.manifest.name, stored(args.manifest), args.correlation)
    line("noise", copied(noise(args.rows)), args.correlation)
    line("blurred noise", copied(blurred(args.rows)), args.correlation)


if __name__ == "__main__":
    main()
