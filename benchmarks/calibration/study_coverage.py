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


class Rates(NamedTuple):
    """Shares of simulated studies: false gains, false gains and losses, false gains of the two others, power."""

    gain: float
    either: float
    plain: float
    less_seeds: float
    found: float


def row(name: str, splits: int, overlap: float, effect: float, own: float, trials: int) -> Rates:
    """The rates of one setting; `found`: a true gain as large as the median smallest detectable one."""
    world, rng = WORLDS[name], np.random.default_rng([splits, round(100 * overlap), round(100 * effect)])
    weights = intervals.person_weights(world.people, REPLICATES, 0).astype(float)
    studies = [study(rng, weights, world, splits, overlap, effect, own) for _ in range(trials)]
    delta = np.array([s.found.delta for s in studies])
    half = np.array([(s.found.ci_high - s.found.ci_low) / 2 for s in studies])
    plain, less = (np.array([getattr(s, part) for s in studies]) for part in ("plain", "less_seeds"))
    detectable = float(np.median([intervals.smallest_detectable(s.found) for s in studies]))
    gains = (delta + half < 0, abs(delta) > half, delta + plain < 0, delta + less < 0, delta - detectable + half < 0)
    return Rates(*(float(np.mean(share)) for share in gains))


def one_split(trials: int) -> None:
    """What a `gain` of one split is worth where a split has an effect that its seeds cannot show."""
    print("| seeds | split effect / sd of the seeds' mean | false gain | false gain or loss |\n|--:|--:|--:|--:|")
    rng = np.random.default_rng(0)
    for seeds in (3, 5):
        for effect in (0, 0.3, 0.6, 1, 2):
            values = rng.normal(size=(trials, seeds)) * seeds**0.5 + effect * rng.normal(size=(trials, 1))
            half = stdtrit(seeds - 1, 0.975) * values.std(axis=1, ddof=1) / seeds**0.5
            delta = values.mean(axis=1)
            print(f"| {seeds} | {effect:g} | {np.mean(delta < -half):.1%} | {np.mean(abs(delta) > half):.1%} |")


def main() -> None:
    """Run the simulation and print a line for each number of splits and overlap, the worst over the split effects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="studies for each setting")
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
    effects = "".join(f" {effect:g} |" for effect in args.effects)
    print(f"| test people | splits | overlap |{effects} gain or loss | plain: false gain | less seeds: false gain "
          f"| detectable found |\n|---|--:|--:|{'--:|' * len(args.effects)}--:|--:|--:|--:|", flush=True)  # fmt: skip
    everything = []
    for name in args.worlds:
        for splits in args.splits:
            for overlap in args.overlaps:
                rates = [row(name, splits, overlap, effect, args.own, args.trials) for effect in args.effects]
                everything += rates
                gains = "".join(f" {100 * rate.gain:.1f} |" for rate in rates)
                worst = [f"{100 * max(getattr(r, k) for r in rates):.1f}" for k in ("either", "plain", "less_seeds")]
                found = f"{100 * min(rate.found for rate in rates):.0f}"
                print(f"| {name} | {splits} | {overlap:g} |{gains} {' | '.join(worst)} | {found} |", flush=True)
    mean, most = np.mean(everything, axis=0), np.max(everything, axis=0)
    print(f"\n{len(everything)} settings of {args.trials} studies: false gain {mean[0]:.1%} in the mean, at most "
          f"{most[0]:.1%}; false gain or loss {mean[1]:.1%}, at most {most[1]:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
