"""How often do the intervals of facegan.metrics.intervals hold the truth, and how often is a `gain` false?

Simulated recognizers whose true difference is known: people are points on a 16-dimensional normal cloud,
images lie around them with a spread of their own for each person (hard and easy people), and an arm changes
spread and place of everyone (people x arm), a seed changes the spread for all (seed) and for each person
(people x arm x seed). Both arms and all seeds see the same people and share a part of the image noise, as
recognizers do that look at the same pictures. Three worlds differ in what varies most. The second arm has a
spread smaller by a factor, or (null) the same. The truth is the value of the metric for a large population,
averaged over seeds (for rank-1 and accuracy, which depend on how many people there are, at the size of the
test set).

    python benchmarks/calibration/interval_coverage.py                      # the table of docs/method/intervals.md
    python benchmarks/calibration/interval_coverage.py --metric rank-1 --worlds balanced --trials 100

Prints Markdown. By default about eight minutes of processor time, so four on two quiet cores.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core is faster than one matmul on all
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "100000000")  # glibc: keep the working arrays, twice as fast
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "200000000")

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegan.metrics import identification, intervals, verification

Doubles = NDArray[np.float64]
DIM, IMAGES = 16, 10
LARGE = 60  # people in each of the 400 draws behind a truth that does not hang on their number


@dataclass(frozen=True)
class World:
    """Standard deviations of what varies; but for `place_*`, of the logarithm of the spread."""

    spread: float = 0.85  # of a person's images around their centre, which has 1 in each dimension
    person: float = 0.25  # hard and easy people, the same for all recognizers
    person_arm: float = 0.12
    seed: float = 0.04
    person_seed: float = 0.10
    place_arm: float = 0.15  # how far a person's centre moves from arm to arm
    place_seed: float = 0.25
    shared: float = 0.6  # share of an image's noise that all recognizers see alike


WORLDS = {
    "balanced": World(),
    "seeds": World(person_arm=0.05, seed=0.15, person_seed=0.08, place_arm=0.10, place_seed=0.20),
    "people": World(
        person=0.40, person_arm=0.30, seed=0.01, person_seed=0.03, place_arm=0.40, place_seed=0.05, shared=0.9
    ),
}


class Outcome(NamedTuple):
    """One interval: its value, ends and half of the percentile interval beside it."""

    value: float
    low: float
    high: float
    percentile_low: float
    percentile_high: float
    detectable: float


def identities(n_people: int, n_images: int) -> NDArray[np.int64]:
    """Person of each image, int64 (n_people * n_images,)."""
    return np.repeat(np.arange(n_people), n_images)


class People:
    """One draw of people and images, which any number of recognizers embed."""

    def __init__(self, world: World, n_people: int, n_images: int, rng: np.random.Generator) -> None:
        self.world, self.rng, self.shape = world, rng, (n_people, n_images, DIM)
        self.centre = rng.normal(size=(n_people, 1, DIM))
        self.size = world.spread * np.exp(world.person * rng.normal(size=(n_people, 1, 1)))
        self.noise = rng.normal(size=self.shape)

    def arm(self) -> tuple[Doubles, Doubles]:
        """How one arm sees each person: moved centres and log spreads."""
        n = len(self.centre)
        moved = self.centre + self.world.place_arm * self.rng.normal(size=(n, 1, DIM))
        return moved, self.world.person_arm * self.rng.normal(size=(n, 1, 1))

    def embed(self, arm: tuple[Doubles, Doubles], effects: tuple[float, ...]) -> list[NDArray[np.float32]]:
        """Embed with one new seed of an arm, once for each effect on the log spread: float32 (N, 16) each."""
        world, rng, n = self.world, self.rng, len(self.centre)
        centre = arm[0] + world.place_seed * rng.normal(size=(n, 1, DIM))
        log_size = arm[1] + world.seed * rng.normal() + world.person_seed * rng.normal(size=(n, 1, 1))
        noise = np.sqrt(world.shared) * self.noise + np.sqrt(1 - world.shared) * rng.normal(size=self.shape)
        spread = self.size * np.exp(log_size) * noise
        return [(centre + np.exp(e) * spread).reshape(-1, DIM).astype(np.float32) for e in effects]


def measure(
    metric: str,
    embedding: NDArray[np.float32],
    identity: NDArray[np.int64],
    weights: intervals.Weights | None,
) -> tuple[float, Doubles]:
    """Value of the metric on the data and on each replicate (none where weights is None)."""
    none = np.empty(0)
    if metric == "rank-1":
        ranks = identification.search_ranks(embedding, identity)
        return identification.rank_k(ranks), none if weights is None else intervals.bootstrap_rank_k(ranks, weights)
    pairs = verification.pair_scores(embedding, identity)
    if metric == "eer":
        value = verification.eer(pairs.score, pairs.genuine)
        return value, none if weights is None else intervals.bootstrap_eer(pairs, weights)
    if metric == "accuracy":
        found = verification.accuracy_10fold(pairs)
        return found.mean, none if weights is None else intervals.bootstrap_accuracy(pairs, found, weights)
    far = float(metric.removeprefix("tar@far="))
    tar = verification.tar_at_far(pairs.score, pairs.genuine, far)
    if tar is None:
        raise ValueError(f"{metric}: {verification.resolvable(far, pairs.n_impostor).reason}: choose a larger FAR")
    return tar, none if weights is None else intervals.bootstrap_tar_at_far(pairs, far, weights)


@cache
def truth(world: World, metric: str, n_people: int, effect: float, repeats: int = 400) -> Doubles:
    """True baseline, true delta and its Monte Carlo error; the two arms share all draws here."""
    n, m = n_people, 4 if n_people == LARGE else IMAGES
    values = np.empty((repeats, 2))
    for repeat in range(repeats):
        people = People(world, n, m, np.random.default_rng([repeat, 77]))
        seen = people.embed(people.arm(), (0.0, effect))
        values[repeat] = [measure(metric, one, identities(n, m), None)[0] for one in seen]
    delta = values[:, 1] - values[:, 0]
    return np.array([values[:, 0].mean(), delta.mean(), delta.std(ddof=1) / repeats**0.5])


def _outcome(values: Doubles, points: Doubles, n_people: int, picks: NDArray[np.int64]) -> Outcome:
    """Both intervals of (n_seeds, n_boot) values; the percentile one resamples seeds and people together."""
    found = intervals.paired_difference(values, values * 0, points, points * 0, n_people)
    means = values[picks % len(values), np.arange(values.shape[1])].mean(axis=0)
    low, high = np.nanquantile(means, [0.025, 0.975])
    detectable = intervals.smallest_detectable(found)
    return Outcome(found.value, found.ci_low, found.ci_high, float(low), float(high), detectable)


def trial(
    number: int, world: World, metric: str, n_people: int, seeds: tuple[int, ...], effect: float, n_boot: int
) -> Doubles:
    """One test set: outcomes (seeds, [one arm, difference under null, difference with effect], fields)."""
    rng = np.random.default_rng([number, n_people])
    people = People(world, n_people, IMAGES, rng)
    weights = intervals.person_weights(n_people, n_boot, number)
    most = max(seeds)
    points, values = np.empty((3, most)), np.empty((3, most, n_boot))
    baseline, arm = people.arm(), people.arm()
    for s in range(most):
        seen = people.embed(baseline, (0.0,)) + people.embed(arm, (0.0, effect))
        for k, embedding in enumerate(seen):
            points[k, s], values[k, s] = measure(metric, embedding, identities(n_people, IMAGES), weights)
    picks = rng.integers(0, 2**31, size=(most, n_boot))
    return np.array(
        [
            [_outcome(v[:s], p[:s], n_people, picks[:s]) for v, p in zip(
                (values[0], values[1] - values[0], values[2] - values[0]),
                (points[0], points[1] - points[0], points[2] - points[0]), strict=True)]
            for s in seeds
        ]
    )  # fmt: skip


def row(world: str, n: int, s: int, outcomes: Doubles, true: Doubles, better: int) -> str:
    """One line of the table from (trials, 3, fields) outcomes; better: -1 where lower is better."""
    targets = np.array([true[0], 0.0, true[1]])
    held = (outcomes[..., 1] <= targets) & (targets <= outcomes[..., 2])
    plain = (outcomes[..., 3] <= targets) & (targets <= outcomes[..., 4])
    gain, loss = (outcomes[..., 1] > 0, outcomes[..., 2] < 0)[::better]
    naive_gain = (outcomes[..., 3] > 0, outcomes[..., 4] < 0)[::better][0]
    percent = (*held.T, gain[:, 1], loss[:, 1], gain[:, 2], plain[:, 1], naive_gain[:, 1])
    cells = " | ".join(f"{100 * np.mean(p):.1f}" for p in percent)
    return f"| {world} | {n} | {s} | {cells} | {np.std(outcomes[:, 1, 0]):.4f} | {np.median(outcomes[:, 2, 5]):.3f} |"


HEADER = """
| world | people | seeds | one arm | delta = 0 | delta | false gain | false loss | true gain found \
| percentile: delta = 0 | percentile: false gain | sd of delta | detectable |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Run the simulation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="test sets for each row (default 400)")
    parser.add_argument("--people", type=int, nargs="+", default=[12, 14, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--metric", default="eer", help="eer, rank-1, accuracy or tar@far=X")
    parser.add_argument("--effect", type=float, default=-0.15, help="of the second arm on the log spread")
    parser.add_argument("--replicates", type=int, default=200, help="bootstrap replicates")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    print(f"metric {args.metric}, {args.trials} trials a row, {args.replicates} replicates, nominal 95 %\n")
    rows: list[str] = []
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        run: Callable[..., Any] = partial(pool.map, chunksize=4)
        for name in args.worlds:
            world = WORLDS[name]
            for n in args.people:
                sized = args.metric in ("rank-1", "accuracy")
                true = truth(world, args.metric, n if sized else LARGE, args.effect)
                if sized or n == args.people[0]:
                    people = f"{n} people" if sized else "any number of people"
                    print(f"- {name}, {people}: true baseline {true[0]:.3f}, delta {true[1]:+.4f} "
                          f"(Monte Carlo error {true[2]:.4f})", flush=True)  # fmt: skip
                one = partial(
                    trial, world=world, metric=args.metric, n_people=n, seeds=tuple(args.seeds),
                    effect=args.effect, n_boot=args.replicates,
                )  # fmt: skip
                pooled = np.array(list(run(one, range(args.trials))))
                better = -1 if args.metric == "eer" else 1
                rows += [row(name, n, s, pooled[:, k], true, better) for k, s in enumerate(args.seeds)]
    print(HEADER)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
