"""How often is a `gain` called where there is none, and how often is a real one found? For the designs in use.

Two sources. (1) Real trainings (`copies.py`): the second arm has each real image twice, so nothing can be
gained; verdicts are made of all choices of their seeds. These share trainings, so a rate has no bound of its
own: they check the simulation. (2) Simulated recognizers, with parts of variance like those measured in 1 and
many independent studies for each design, by two models: `faces` (the people, arms and seeds of
interval_coverage.py, scored) and `parts` (normal parts of the EER itself: see designs.py).

- `14 x 3`, `14 x 5`: one split with 14 test people, three or five seeds;
- `pooled`: five splits of 40 people into 20 train, 6 val and 14 test, five seeds in each, averaged. The splits
  take the seeds' place in facegan.metrics.intervals, and people are drawn from all who are tested somewhere;
- `300 x 5`: one split with 300 test people who have two images each.

Either the arms are copies of each other, or (`useless`) the second arm is another kind of training that sees
single people differently but is neither better nor worse for people at large. In the pooled design each arm
also has an effect of its own in each split (generator and training people, common to that split's seeds), of
which `shared` is the part that belongs to the single training people, who come back in other splits.

    python benchmarks/calibration/copies.py COPIES
    python benchmarks/calibration/false_gain.py --copies COPIES

Prints Markdown.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from designs import DESIGNS, Case, Parts, Scores, overlap_half, study, study_interval
from interval_coverage import LARGE, Doubles, World, measure, truth
from scipy.stats import beta

from facegan.metrics import intervals

GAINS = (0.2, 0.3)  # true relative falls of the EER whose discovery is counted
LEVEL = 0.1  # true EER in the model `parts`
AS_TRAINED = World(spread=1.05, person=0.18, person_arm=0.0, seed=0.07, place_arm=0.0)
"""Copies as arms: fitted by hand to the first table that check_real prints."""
USELESS = replace(AS_TRAINED, spread=0.81, person_arm=0.12, place_arm=0.15)
"""Arms that differ, at a true EER of 0.10."""


def trial(
    number: int, case: Case, effects: tuple[float, ...], n_boot: int, power_trials: int
) -> list[tuple[float, float, float]]:
    """(delta, half-width, half-width for overlap) of the equal arm and, in the first trials, the better ones."""
    given = (0.0, *effects) if number < power_trials else (0.0,)
    (baseline, *arms), n_people, overlap = study(number, case, given, n_boot)
    found = [study_interval(arm, baseline, n_people) for arm in arms]
    return [(f.delta, (f.ci_high - f.ci_low) / 2, overlap_half(f, overlap)) for f in found]


def upper_bound(hits: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided upper bound of a rate. Source: Clopper and Pearson 1934, Biometrika 26, 404-413."""
    return 1.0 if hits >= trials else float(beta.ppf(confidence, hits + 1, trials - hits))


def effect_for(world: World, relative: float) -> tuple[float, float]:
    """Effect on the log spread that lowers the true EER by the relative share, and that fall in EER."""
    low, high = -0.8, 0.0
    for _ in range(5):
        middle = (low + high) / 2
        base, delta, _ = truth(world, "eer", LARGE, middle, 30)
        low, high = (middle, high) if -delta / base > relative else (low, middle)
    effect = (low + high) / 2
    return effect, float(truth(world, "eer", LARGE, effect, 100)[1])


# Real trainings and what varies in them.


def real_scores(path: Path, n_boot: int) -> tuple[list[Scores], int]:
    """Both arms' EERs from `copies.py`: points (1, seeds); and the number of test people."""
    stored = np.load(path, allow_pickle=False)
    who = np.unique(stored["identity"], return_inverse=True)[1].astype(np.int64)
    n = int(who.max()) + 1
    weights = intervals.person_weights(n, n_boot, 0)
    arms = []
    for runs in stored["embedding"]:
        found = [measure("eer", embedding, who, weights) for embedding in runs]
        arms.append(Scores(np.array([[f[0] for f in found]]), np.array([[f[1] for f in found]])))
    return arms, n


def components(studies: list[tuple[list[Scores], int]]) -> Doubles:
    """Mean EER; then as standard deviations, in EER: one arm's people and seeds, a difference's people and seeds.

    Over studies of one split each. People: what other test people would change in the mean over many seeds;
    seeds: what another seed would change. Root mean squares over the studies.
    """
    squares = []
    for (baseline, arm), n in studies:
        alone = [intervals.single_interval(a.values[0], a.points[0], n) for a in (baseline, arm)]
        both = study_interval(arm, baseline, n)
        per_seed = [f.seeds_error**2 * f.n_seeds for f in (*alone, both)]
        people = [f.people_error**2 for f in (*alone, both)]
        mean = (alone[0].value + alone[1].value) / 2
        squares.append([mean**2, *(np.mean(v) for v in (people[:2], per_seed[:2])), people[2], per_seed[2]])
    return np.asarray(np.mean(squares, axis=0) ** 0.5)


def real_rates(studies: list[tuple[list[Scores], int]], seeds: int) -> tuple[float, float, int]:
    """Shares of false gains and losses over all choices of `seeds` trainings of one split, and their number."""
    verdicts = []
    for (baseline, arm), n in studies:
        for chosen in combinations(range(baseline.points.shape[1]), seeds):
            some = list(chosen)
            pair = [Scores(a.points[:, some], a.values[:, some]) for a in (arm, baseline)]
            verdicts.append(intervals.verdict(study_interval(*pair, n), "lower").verdict)
    return verdicts.count("gain") / len(verdicts), verdicts.count("loss") / len(verdicts), len(verdicts)


def check_real(root: Path, world: World, n_boot: int) -> None:
    """Print what varies in the real trainings beside the world, and the verdicts on them."""
    real = [real_scores(path, n_boot) for path in sorted(root.glob("split-*.npz"))]
    n_seeds = real[0][0][0].points.shape[1]
    design = replace(DESIGNS["14 x 5"], seeds=n_seeds)
    DESIGNS["as trained"] = design
    simulated = [study(number, Case("as trained", "copies", world), (0.0,), 100)[:2] for number in range(40)]
    print("| standard deviations, in EER | mean EER | people, one arm | seeds, one arm | people, difference "
          "| seeds, difference |\n|---|--:|--:|--:|--:|--:|")  # fmt: skip
    for name, studies in ((f"real trainings ({len(real)} splits x {n_seeds} seeds)", real), ("simulated", simulated)):
        print(f"| {name} | " + " | ".join(f"{v:.4f}" for v in components(studies)) + " |")
    for seeds in (3, 5):
        gain, loss, count = real_rates(real, seeds)
        print(f"\n{count} choices of {seeds} seeds: false gain {gain:.1%}, false loss {loss:.1%}")


_FOUND = " | ".join(f"gain of {g:.0%} found" for g in GAINS)
HEADER = f"""
| model | design | arms | split effect | of training people | studies | false gain | bound | false loss | 0 held \
| {_FOUND} | corrected: false gain | bound | {_FOUND} | sd of delta |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def row(case: Case, outcomes: list[list[tuple[float, float, float]]]) -> str:
    """One line of the table; rates in per cent, `corrected` as a study's interval is (overlap_half)."""
    equal = np.array([o[0] for o in outcomes])
    better = np.array([o[1:] for o in outcomes if len(o) > 1])  # (power trials, gains, 3)
    trials, cells = len(equal), [case.model, case.design, case.arms, f"{case.split:g}", f"{case.shared:g}"]
    cells.append(f"{trials}")
    for half in (1, 2):
        gains = int(np.sum(equal[:, 0] + equal[:, half] < 0))
        cells += [f"{100 * gains / trials:.1f}", f"{100 * upper_bound(gains, trials):.1f}"]
        if half == 1:
            losses, held = equal[:, 0] - equal[:, 1] > 0, np.abs(equal[:, 0]) <= equal[:, 1]
            cells += [f"{100 * np.mean(losses):.1f}", f"{100 * np.mean(held):.1f}"]
        found = np.mean(better[..., 0] + better[..., half] < 0, axis=0) if len(better) else []
        cells += [f"{100 * x:.0f}" for x in found] or ["-"] * len(GAINS)
    return "| " + " | ".join([*cells, f"{equal[:, 0].std():.4f}"]) + " |"


PARTS = Parts()
OTHER = Parts(person_arm=0.027)
PARTS_CASES = [
    *(Case(design, "copies", PARTS) for design in DESIGNS),
    *(Case(design, "useless", OTHER) for design in DESIGNS),
    *(Case(design, "useless", OTHER, split) for split in (0.01, 0.02) for design in ("14 x 5", "300 x 5")),
    *(Case("pooled", "useless", OTHER, *split) for split in (
        (0.01, 0.0), (0.01, 0.5), (0.01, 1.0), (0.02, 0.0), (0.02, 0.5), (0.02, 1.0))),
]  # fmt: skip
FACES_CASES = [
    Case("14 x 3", "copies", AS_TRAINED),
    Case("14 x 5", "copies", AS_TRAINED),
    Case("pooled", "copies", AS_TRAINED),
    Case("pooled", "useless", USELESS, 0.1, 0.5),
    Case("14 x 3", "useless", USELESS),
    Case("14 x 5", "useless", USELESS),
    Case("300 x 5", "useless", USELESS),
]


def main() -> None:
    """Check the real trainings, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=Path, help="folder that copies.py filled")
    parser.add_argument("--model", choices=["parts", "faces"], default="parts")
    parser.add_argument("--trials", type=int, default=1000, help="simulated studies for each row")
    parser.add_argument("--power-trials", type=int, default=1000, help="of which with better arms too")
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--replicates", type=int, default=100, help="bootstrap replicates")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    rows = [case for case in (PARTS_CASES if args.model == "parts" else FACES_CASES) if case.design in args.designs]
    if args.copies:
        check_real(args.copies, AS_TRAINED, 400)
    aims: dict[World | Parts, list[tuple[float, float]]] = {}
    for world in dict.fromkeys(case.world for case in rows):
        if isinstance(world, Parts):
            aims[world] = [(-gain * LEVEL, -gain * LEVEL) for gain in GAINS]
            continue
        aims[world] = [effect_for(world, gain) for gain in GAINS] if args.power_trials else []
        base = truth(world, "eer", LARGE, 0.0, 100)[0]
        print(f"\ntrue EER {base:.3f}, gains " + ", ".join(f"{fall:+.4f}" for _, fall in aims[world]))
    print(HEADER, flush=True)
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        for case in rows:
            effects = tuple(effect for effect, _ in aims[case.world])
            one = partial(trial, case=case, effects=effects, n_boot=args.replicates, power_trials=args.power_trials)
            print(row(case, list(pool.map(one, range(args.trials), chunksize=10))), flush=True)


if __name__ == "__main__":
    main()
