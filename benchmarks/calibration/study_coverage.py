"""How often do intervals of a study (facegan.reporting.study.pooled) hold the truth, how often is a `gain` false?

Simulated studies without any true difference. A split tests a part of the people at random; its difference is the
mean over them of an effect of the person (the same in every split), of the person in this split, and of the split
(its train people, generator and seeds). People and splits are drawn anew in each simulated study; train people who
are shared between splits are not simulated. Four worlds differ in what varies most.

    python benchmarks/calibration/study_coverage.py      # the table of docs/use/studies.md, a minute of processor time
"""

from __future__ import annotations

import argparse

import numpy as np

from facegan.metrics import intervals

WORLDS = {"people": (1, 0.3, 0.05), "all alike": (1, 1, 0.3), "splits": (0.3, 0.3, 1), "people in a split": (0.1, 1, 0)}
"""Standard deviations of the effects of a person, of a person in a split, of a split."""


def trial(rng: np.random.Generator, weights: np.ndarray, n_splits: int, tested: int, sd: tuple[float, ...]) -> tuple:
    """One study: the estimate and both ends of its interval."""
    n_people = weights.shape[1]
    person = rng.normal(0, sd[0], n_people)
    values, points = [], []
    for _ in range(n_splits):
        who = rng.permutation(n_people)[:tested]
        effect = person[who] + rng.normal(0, sd[1], tested) + rng.normal(0, sd[2])
        own = weights[:, who]
        with np.errstate(invalid="ignore"):
            values.append((own @ effect) / own.sum(axis=1))
        points.append(effect.mean())
    nothing = np.zeros_like(values), np.zeros_like(points)
    found = intervals.paired_difference(values, nothing[0], points, nothing[1], n_people)
    return found.delta, found.ci_low, found.ci_high


def main() -> None:
    """Run the simulation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="studies for each row")
    parser.add_argument("--splits", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--tested", type=int, default=14, help="test people of each split")
    args = parser.parse_args()
    weights = intervals.person_weights(args.people, 200, 0)
    print(
        "| world | splits | coverage | false gain | false loss | half-width / sd of delta |\n|---|--:|--:|--:|--:|--:|"
    )
    for name, sd in WORLDS.items():
        for n_splits in args.splits:
            rng = np.random.default_rng(0)
            found = [trial(rng, weights, n_splits, args.tested, sd) for _ in range(args.trials)]
            delta, low, high = np.array(found).T
            shares = (100 * np.mean(s) for s in ((low <= 0) & (high >= 0), high < 0, low > 0))
            cells = " | ".join(f"{share:.1f}" for share in shares)
            print(f"| {name} | {n_splits} | {cells} | {np.mean(high - low) / 2 / delta.std():.1f} |", flush=True)


if __name__ == "__main__":
    main()
