"""How long does the search for near-duplicates take beside comparing each image with each, on one thread?

Of a manifest, and of thumbnails made for the purpose: noise, which differs as much in every direction; blurred noise,
which has few directions as faces have; and, where a manifest is given, thumbnails drawn from a Gaussian with the mean
and covariance of its own. A hundredth of the made ones once more at the end, as noisy as a near-duplicate may be,
every second one mirrored. Each with each is compared up to --most thumbnails, and must give the same pairs and numbers;
above, the planted pairs that are near enough must be found. Prints Markdown.

    python benchmarks/speed/near_duplicates.py                    # made ones, 50,000 of each
    python benchmarks/speed/near_duplicates.py lfw --rows 50000 1000000   # a folder that `facegan import` wrote
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facegan.data import manifest
from facegan.data.duplicates import near_duplicates
from facegan.data.duplicates.lsh import Plan, plan
from facegan.data.duplicates.near_duplicates import near_duplicate_pairs
from facegan.data.duplicates.thumbnails import BLOCK, SIDE, correlations, shrink
from facegan.data.images import decode_pixels

PLANTED, CELLS, STRENGTH = 100, 6, 0.2  # one in so many; of blurred noise; of a copy's noise, in deviations


def copied(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, with noisy copies of some at the end, every second one mirrored; and which they are copies of."""
    rng = np.random.default_rng(1)
    originals = np.arange(0, len(small), PLANTED)
    copies = small[originals] * 0.5 + 64
    copies += STRENGTH * copies.std(1, keepdims=True) * rng.standard_normal(copies.shape)
    copies = copies.clip(0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
    copies[::2] = copies[::2, :, ::-1]
    return np.concatenate([small, copies.reshape(len(copies), -1)]), originals


def noise(rows: int) -> np.ndarray:
    """(N, SIDE^2) uint8."""
    return np.random.default_rng(0).integers(0, 256, (rows, SIDE * SIDE), np.uint8)


def blurred(rows: int) -> np.ndarray:
    """(N, SIDE^2) uint8: CELLS x CELLS values, and what lies between them by linear interpolation."""
    between = np.stack([np.interp(np.linspace(0, CELLS - 1, SIDE), range(CELLS), row) for row in np.eye(CELLS)], 1)
    coarse = np.random.default_rng(0).integers(0, 256, (rows, CELLS, CELLS), np.uint8)
    made = np.empty((rows, SIDE * SIDE), np.uint8)
    for at in range(0, rows, BLOCK):
        made[at : at + BLOCK] = (between @ coarse[at : at + BLOCK] @ between.T).reshape(-1, SIDE * SIDE)
    return made


def drawn(small: np.ndarray, rows: int) -> np.ndarray:
    """(N, SIDE^2) uint8 from a Gaussian with the mean and covariance of some."""
    values, axes = np.linalg.eigh(np.cov(small.T.astype(np.float64)))
    across = (axes * np.sqrt(np.maximum(values, 0))).T
    rng, mean, made = np.random.default_rng(0), small.mean(0), np.empty((rows, SIDE * SIDE), np.uint8)
    for at in range(0, rows, BLOCK):
        here = made[at : at + BLOCK]
        here[:] = np.clip(rng.standard_normal(here.shape) @ across + mean, 0, 255)
    return made


def stored(folder: Path) -> np.ndarray:
    """(N, SIDE^2) uint8 of a manifest's images."""
    return shrink(decode_pixels(row["image"]["bytes"]) for row in manifest.iterate(folder, columns=["image"]))


def compared(small: np.ndarray, correlation: float) -> Iterator[tuple[int, int, float]]:
    """Each with each."""
    for start, other in itertools.combinations_with_replacement(range(0, len(small), BLOCK), 2):
        yield from near_duplicates.pairs_of_blocks(small, start, other, correlation, BLOCK)


def line(name: str, small: np.ndarray, originals: np.ndarray, correlation: float, most: int) -> None:
    """Measure, and print a line."""
    plans: list[Plan | None] = []
    near_duplicates.plan = lambda *of: plans.append(plan(*of)) or plans[-1]
    start = time.process_time()
    found = list(near_duplicate_pairs(small, correlation))
    searched_s = time.process_time() - start
    tables = f"{plans[0].tables} of {plans[0].functions}" if plans[0] else "none"
    each, missed = "", 0
    if len(small) <= most:
        start = time.process_time()
        every = list(compared(small, correlation))
        each, missed = f"{time.process_time() - start:.1f}", len(set(every) - set(found))
        assert set(found) <= set(every) and (missed or found == every)
    copies = np.arange(len(small) - len(originals), len(small))
    near = correlations(small, originals, copies) > correlation + near_duplicates.ROUNDING
    planted = set(zip(originals[near].tolist(), copies[near].tolist(), strict=True))
    missed = max(missed, len(planted - {(i, j) for i, j, _ in found}))
    print(
        f"| {name} | {len(small):,} | {each} | {searched_s:.1f} | {searched_s / len(small) * 1e6:.0f} | "
        f"{tables} | {len(found):,} | {len(planted):,} | {missed} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000], help="of the made ones")
    parser.add_argument("--most", type=int, default=60_000, help="thumbnails of which each is compared with each")
    parser.add_argument("--correlation", type=float, default=0.98)
    args = parser.parse_args()
    print(
        "| thumbnails | number | each with each, s | search, s | us each | tables of functions | pairs | planted | "
        "missed |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    small = None
    if args.manifest:
        small = stored(args.manifest)
        line(args.manifest.name, small, np.empty(0, np.int64), args.correlation, args.most)
    for rows in args.rows:
        line("noise", *copied(noise(rows)), args.correlation, args.most)
        line("blurred noise", *copied(blurred(rows)), args.correlation, args.most)
        if small is not None:
            line(f"drawn like {args.manifest.name}", *copied(drawn(small, rows)), args.correlation, args.most)


if __name__ == "__main__":
    main()
