"""How often do the intervals of a study (facegan.reporting.study.pooled) hold the truth, how often is a `gain` false?

Simulated studies whose arms do not differ at all in the mean over train people, test people and seeds. A split's
difference is the sum of

- what its train people do: each adds an effect of their own; splits draw them from a pool, so that two splits share
  them by chance (mean overlap = train people / pool; 0: none are shared);
- what belongs to the split alone (its generator, its val people);
- its seeds' mean, whose standard deviation is the unit of all that follows, estimated from five seeds;
- the mean over its test people of effects of the person (the same in every split) and of the person in this split.

`orl`: each split tests 14 of 40 people, others in each. `lfw`: all splits test the same 200. The interval is made by
facegan.metrics.intervals from replicates of the people, with the overlap counted by name. Beside it: `plain`, which
takes the splits for independent, and `less seeds`, which widens only by what the splits vary beyond their seeds.

    python benchmarks/calibration/study_coverage.py              # the tables of docs/experiments/study-intervals.md
    python benchmarks/calibration/study_coverage.py --one-split  # what a `gain` of one split is worth
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from facegan.metrics import intervals

TRAIN, SEEDS, REPLICATES = 20, 5, 100
OVERLAPS, EFFECTS, SPLITS = (0.0, 0.2, 0.5, 0.8), (0.0, 0.5, 1.0, 2.0), (3, 4, 5, 7, 10)


@dataclass(frozen=True)
class Tested:
    """Who is tested: `tested` of `people` in each split; standard deviations of a person's effects."""

    people: int
    tested: int
    person: float
    person_split: float


WORLDS = {"orl": Tested(40, 14, 2, 2), "lfw": Tested(200, 200, 4, 4)}


class Study(NamedTuple):
    """One simulated study: the interval, half-widths of the two others, and the mean overlap of train people."""

    found: intervals.MetricDifference
    plain: float
    less_seeds: float


def pool_size(splits: int, overlap: float) -> int:
    """How many people the splits' train people are drawn from."""
    return splits * TRAIN if overlap == 0 else round(TRAIN / overlap)


def train_effects(
    splits: int, overlap: float, effect: float, own: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Each split's effect (splits,), `own` of its variance the split's alone; and the overlap counted by name."""
    pool = pool_size(splits, overlap)
    if overlap == 0:
        chosen = rng.permutation(pool).reshape(splits, TRAIN)
    else:
        chosen = np.array([rng.permutation(pool)[:TRAIN] for _ in range(splits)])
    of_people = rng.normal(size=pool)[chosen].sum(axis=1) / TRAIN**0.5
    effects = effect * ((1 - own) ** 0.5 * of_people + own**0.5 * rng.normal(size=splits))
    return effects, intervals.mean_overlap([set(map(str, row)) for row in chosen])


def study(
    rng: np.random.Generator, weights: np.ndarray, world: Tested, splits: int, overlap: float, effect: float, own: float
) -> Study:
    """One study without a true difference; weights: (replicates, people)."""
    effects, shared = train_effects(splits, overlap, effect, own, rng)
    seeds = rng.normal(size=(splits, SEEDS)) * SEEDS**0.5  # their mean has standard deviation 1
    of_person = world.person * rng.normal(size=(world.people, 1))
    value = of_person + world.person_split * rng.normal(size=(world.people, splits)) + effects + seeds.mean(axis=1)
    tested = np.zeros((world.people, splits))
    for split in range(splits):
        tested[rng.permutation(world.people)[: world.tested], split] = 1
    replicates = ((weights @ (value * tested)) / (weights @ tested)).T
    points = (value * tested).sum(axis=0) / world.tested
    nothing = np.zeros_like(replicates), np.zeros_like(points)
    found = intervals.paired_difference(replicates, nothing[0], points, nothing[1], world.people, overlap=shared)
    t_splits, t_people = stdtrit(splits - 1, 0.975), stdtrit(world.people - 1, 0.975)
    variance, of_seeds = points.var(ddof=1), seeds.var(axis=1, ddof=1).mean() / SEEDS
    beyond = max(0.0, variance - of_seeds) * shared / (1 - shared)
    plain, less = (t_splits * (variance / splits + wider) ** 0.5 for wider in (0, beyond))
    return Study(found, *(float(np.hypot(t_people * found.people_error, part)) for part in (plain, less)))


HEADER = (
    "| test people | splits | overlap | split effect | false gain | false loss | plain: false gain "
    "| less seeds: false gain | sd of delta | half-width | found at the smallest detectable |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def row(name: str, splits: int, overlap: float, effect: float, own: float, trials: int) -> tuple[str, float, float]:
    """One line of the table; then the false gains and false gains and losses together, as shares."""
    world, rng = WORLDS[name], np.random.default_rng([splits, round(100 * overlap), round(100 * effect)])
    weights = intervals.person_weights(world.people, REPLICATES, 0).astype(float)
    studies = [study(rng, weights, world, splits, overlap, effect, own) for _ in range(trials)]
    delta = np.array([s.found.delta for s in studies])
    half = np.array([(s.found.ci_high - s.found.ci_low) / 2 for s in studies])
    gain, loss = np.mean(delta + half < 0), np.mean(delta - half > 0)
    others = [np.mean(delta + np.array([getattr(s, part) for s in studies]) < 0) for part in ("plain", "less_seeds")]
    detectable = float(np.median([intervals.smallest_detectable(s.found) for s in studies]))
    power = np.mean(delta - detectable + half < 0)
    cells = [f"{100 * share:.1f}" for share in (gain, loss, *others)]
    line = f"| {name} | {splits} | {overlap:g} | {effect:g} | {' | '.join(cells)} "
    return f"{line}| {delta.std():.2f} | {np.median(half):.2f} | {100 * power:.0f} |", float(gain), float(gain + loss)


def one_split(trials: int) -> None:
    """What a `gain` of one split is worth where a split has an effect that its seeds cannot show; 3,617 test people."""
    print("| seeds | split effect / sd of the seeds' mean | false gain | false loss |\n|--:|--:|--:|--:|")
    rng = np.random.default_rng(0)
    for seeds in (3, 5):
        for effect in (0, 0.3, 0.6, 1, 2):
            values = rng.normal(size=(trials, seeds)) * seeds**0.5 + effect * rng.normal(size=(trials, 1))
            half = stdtrit(seeds - 1, 0.975) * values.std(axis=1, ddof=1) / seeds**0.5
            gain, loss = np.mean(values.mean(axis=1) + half < 0), np.mean(values.mean(axis=1) - half > 0)
            print(f"| {seeds} | {effect:g} | {100 * gain:.1f} | {100 * loss:.1f} |")


def main() -> None:
    """Run the simulation and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="studies for each row")
    parser.add_argument("--splits", type=int, nargs="+", default=list(SPLITS))
    parser.add_argument("--overlaps", type=float, nargs="+", default=list(OVERLAPS))
    parser.add_argument("--effects", type=float, nargs="+", default=list(EFFECTS))
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--own", type=float, default=0.0, help="of the split effect's variance, no train person's part")
    parser.add_argument("--one-split", action="store_true")
    args = parser.parse_args()
    if args.one_split:
        one_split(100_000)
        return
    print(HEADER, flush=True)
    rates = []
    for name in args.worlds:
        for splits in args.splits:
            for overlap in args.overlaps:
                for effect in args.effects:
                    line, *shares = row(name, splits, overlap, effect, args.own, args.trials)
                    rates.append(shares)
                    print(line, flush=True)
    mean, worst = np.mean(rates, axis=0), np.max(rates, axis=0)
    print(f"\n{len(rates)} rows of {args.trials}: false gain {mean[0]:.1%} in the mean, at most {worst[0]:.1%}; "
          f"false gain or loss {mean[1]:.1%}, at most {worst[1]:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
