"""The numbers of a study: every variant's arms over all splits, and the intervals of the differences between them.

The unit is a split, with its own train people and its own generator; its value is the mean over the seeds. People are
resampled once for all splits, from everybody who is tested in any of them. Each split takes the weights of its own
test people, so that a person who is tested in two splits has the same weight in both. Intervals are those of
`facegan.metrics.intervals` with splits in the place of seeds, widened for the train people that the splits share. With
one split the seeds are the units, as in a report.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.core.options import set_at
from facegan.evaluation.protocols import PROTOCOLS, bounds
from facegan.metrics import intervals
from facegan.reporting import comparisons, results, sections, words
from facegan.reporting import runs as benchmark_runs
from facegan.reporting.comparisons import NO_GAIN, ArmDifference, ArmValue, Measure
from facegan.reporting.runs import Doubles, Run

LEAST_UNITS = 3
TOO_FEW = "a verdict needs three "
Stack = tuple[Doubles, Doubles]
"""Replicates (n_units, n_boot) and values (n_units,) of one arm and metric."""


@dataclass(frozen=True)
class VariantFindings:
    """One variant on all splits. In its measures an arm's `per_seed` holds one value for each unit.

    points: {(metric, arm): (n_splits, n_seeds)}, NaN where there is no value; of a baseline (n_splits, 1). stacks:
    where all units have values and replicates. chosen: {arm: {trial: splits}}, no trial where arms have but one.
    images: {arm: mean over splits of real and synthetic train images}. overlap: share of train people that two splits
    have in common, in the mean; 0 with one split.
    """

    name: str
    x: float | None
    n_identities: int
    measures: tuple[Measure, ...]
    points: dict[tuple[str, str], Doubles]
    stacks: dict[tuple[str, str], Stack]
    chosen: dict[str, Counter[str]]
    images: dict[str, dict[str, float]]
    overlap: float

    def measure(self, metric: str) -> Measure:
        """The measure of a metric, by its name."""
        return next(item for item in self.measures if item.name == metric)


@dataclass(frozen=True)
class StudyFindings:
    """All variants; `unit` is what varies beside people: split, or seed where there is one split.

    test_people: digests of the test people of each split.
    """

    variants: tuple[VariantFindings, ...]
    unit: str
    n_people: int
    test_people: tuple[str, ...]


def variant_recipe(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """The recipe with what a variant sets."""
    varied = copy.deepcopy(recipe)
    for path, value in recipe["study"]["variants"][name]["set"].items():
        set_at(varied, path.split("."), value)
    return varied


def cell_inputs(inputs: dict[str, Path], variant: str, split: int) -> dict[str, Path]:
    """The inputs of one cell, named as in a report."""
    prefix = f"{variant}:{split}:"
    return {name.removeprefix(prefix): folder for name, folder in inputs.items() if name.startswith(prefix)}


def measure(
    recipe: dict[str, Any],
    inputs: dict[str, Path],
    n_boot: int,
    seed: int,
    progress: Callable[[int, int], None],
    threads: int = 1,
) -> StudyFindings:
    """All numbers of a study; `progress(done, total)` counts recognizers, of which `threads` are judged at once.

    In memory are the embeddings of one split. What several seeds share is judged once. Raises UserError when the
    comparison's metric was not measured, or runs of a split judged different images.
    """
    benchmarks = [PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in recipe["benchmark"]["benchmarks"]]
    study = recipe["study"]
    of_cells = {
        (name, split): cell_inputs(inputs, name, split) for name in study["variants"] for split in study["splits"]
    }
    everybody = sorted({name for of_cell in of_cells.values() for name in benchmark_runs.test_people(of_cell)})
    weights = intervals.person_weights(len(everybody), n_boot, seed)
    cells: dict[tuple[str, int], list[Run]] = {}
    replicates_of: dict[tuple[str, int, str, int | None], dict[str, Doubles]] = {}
    for done, ((name, split), of_cell) in enumerate(of_cells.items()):
        runs = _runs(recipe, of_cell)
        split_weights = weights[:, np.searchsorted(everybody, runs[0].names)]
        by_folder = {run.folder: run for run in runs}
        with ThreadPoolExecutor(threads) as pool:
            judged_now = {
                folder: pool.submit(results.replicates, benchmarks, run, split_weights)
                for folder, run in by_folder.items()
            }
            for count, future in enumerate(judged_now.values(), start=1):
                future.result()
                progress(done * len(by_folder) + count, len(of_cells) * len(by_folder))
        for run in runs:
            replicates_of[name, split, run.arm, run.seed] = judged_now[run.folder].result()
        cells[name, split] = [run.without_faces() for run in runs]
    variants = tuple(_variant(recipe, inputs, name, cells, replicates_of) for name in recipe["study"]["variants"])
    judged = {
        benchmark_runs.test_digest(cell_inputs(inputs, *cell)["prepare"], runs[0].names) for cell, runs in cells.items()
    }
    unit = "split" if len(recipe["study"]["splits"]) > 1 else "seed"
    return StudyFindings(variants, unit, len(everybody), tuple(sorted(judged)))


def _runs(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[Run]:
    runs = benchmark_runs.load_all(recipe, inputs)
    benchmark_runs.same_test(runs)
    metrics, primary_name = benchmark_runs.measured_metrics(runs), recipe["comparison"]["metric"]
    if primary_name not in metrics:
        raise UserError(
            f"comparison.metric is '{primary_name}', which was not measured on one of the splits",
            fix=f"set comparison.metric to one of: {', '.join(metrics)}",
        )
    return runs


def _variant(
    recipe: dict[str, Any],
    inputs: dict[str, Path],
    name: str,
    cells: dict[tuple[str, int], list[Run]],
    replicates_of: dict[tuple[str, int, str, int | None], dict[str, Doubles]],
) -> VariantFindings:
    splits = recipe["study"]["splits"]
    seeds_of: dict[str, list[int | None]] = {arm: list(recipe["seeds"]) for arm in recipe["arms"]}
    seeds_of |= {run.arm: [None] for run in cells[name, splits[0]] if run.seed is None}
    runs = {(split, run.arm, run.seed): run for split in splits for run in cells[name, split]}
    people = {person for split in splits for person in cells[name, split][0].names}
    split_inputs = [cell_inputs(inputs, name, split) for split in splits]
    overlap = intervals.mean_overlap([benchmark_runs.train_people(cell["prepare"]) for cell in split_inputs])
    claimed, fitted = name == recipe["study"]["claim"], words.is_fitted(variant_recipe(recipe, name))
    points: dict[tuple[str, str], Doubles] = {}
    stacks: dict[tuple[str, str], Stack] = {}
    measures = []
    for metric, (kind, fields) in benchmark_runs.measured_metrics(cells[name, splits[0]]).items():
        for arm, seeds in seeds_of.items():
            table = [[benchmark_runs.value(runs[split, arm, s], kind, metric) for s in seeds] for split in splits]
            points[metric, arm] = values = np.asarray(table, np.float64)
            replicates = [[replicates_of[name, split, arm, s].get(metric) for s in seeds] for split in splits]
            if np.isfinite(values).all() and all(replicate is not None for row in replicates for replicate in row):
                axis = 1 if len(splits) > 1 else 0  # one split: its seeds are the units
                stacks[metric, arm] = np.asarray(replicates, np.float64).mean(axis=axis), values.mean(axis=axis)
        baselines = [name for name in seeds_of if name not in recipe["arms"]]
        measures.append(
            _measure(recipe, baselines, kind, fields, points, stacks, len(people), overlap, claimed, fitted)
        )
    x = recipe["study"]["variants"][name]["x"]
    chosen, images = _chosen_trials(recipe, split_inputs), _mean_images(recipe, split_inputs)
    return VariantFindings(name, x, len(people), tuple(measures), points, stacks, chosen, images, overlap)


def _measure(
    recipe: dict[str, Any],
    baselines: list[str],
    kind: str,
    metric: dict[str, Any],
    points: dict[tuple[str, str], Doubles],
    stacks: dict[tuple[str, str], Stack],
    n_people: int,
    overlap: float,
    claimed: bool,
    fitted: bool,
) -> Measure:
    name, spec = metric["name"], recipe["comparison"]
    n_people = metric.get("n_resampled") or n_people
    values: dict[str, ArmValue] = {}
    for arm in (*recipe["arms"], *baselines):
        table = points[name, arm]
        units = table.mean(axis=1 if len(table) > 1 else 0)
        mean = float(table.mean()) if np.isfinite(table).all() else None
        ends: tuple[float | None, float | None] = (None, None)
        if stack := stacks.get((name, arm)):
            interval = intervals.single_interval(*stack, n_people, spec["confidence"], bounds(name), overlap)
            ends = comparisons.ends(interval)
        values[arm] = ArmValue(tuple(float(v) if np.isfinite(v) else None for v in units), mean, *ends)
    arms = {arm: values[arm] for arm in recipe["arms"]}
    differences: dict[str, ArmDifference] = {}
    for arm in (arm for arm in arms if arm != spec["baseline"]):
        stack, baseline_stack = stacks.get((name, arm)), stacks.get((name, spec["baseline"]))
        if stack and baseline_stack:
            sides = stack, baseline_stack
            difference = comparisons.difference(*sides, metric["better"], n_people, spec["confidence"], overlap)
            differences[arm] = _verdict_if_enough(difference, points[name, arm].shape, fitted)
        else:
            differences[arm] = comparisons.without_interval(arms[arm].mean, arms[spec["baseline"]].mean, metric)
        named = claimed and comparisons.is_named(recipe, name, arm)
        differences[arm] = comparisons.if_named(differences[arm], named)
    fields = ("better", "operating_point", "note", "n_genuine", "n_impostor")
    of_metric = {arm: stack for (metric_name, arm), stack in stacks.items() if metric_name == name}
    measured = Measure(
        name,
        kind,
        **{f: metric[f] for f in fields},
        n_identities=n_people,
        arms=arms,
        differences=differences,
        controls=comparisons.against_controls(recipe, arms, of_metric, metric, n_people, overlap),
        baselines={baseline: values[baseline] for baseline in baselines},
    )
    return comparisons.with_baselines(measured, of_metric, metric, n_people, spec["confidence"], overlap)


def _verdict_if_enough(difference: ArmDifference, shape: tuple[int, ...], fitted: bool) -> ArmDifference:
    """No verdict from fewer than three seeds or, where splits are the units, fewer than three of these.

    Of recognizers that are `fitted` all seeds are one: three splits are enough.
    """
    n_splits, n_seeds = shape
    few = [f"seeds, this study has {n_seeds}"] if n_seeds < LEAST_UNITS and not (fitted and n_splits > 1) else []
    few += [f"splits, this study has {n_splits}"] if 1 < n_splits < LEAST_UNITS else []
    return replace(difference, verdict=NO_GAIN, reason=f"{TOO_FEW}{few[0]}") if few else difference


def _chosen_trials(recipe: dict[str, Any], cells: list[dict[str, Path]]) -> dict[str, Counter[str]]:
    trials_of = {arm: [sections.choice(inputs, arm).get("trial") for inputs in cells] for arm in recipe["arms"]}
    return {arm: Counter(trial for trial in trials if trial) for arm, trials in trials_of.items()}


def _mean_images(recipe: dict[str, Any], cells: list[dict[str, Path]]) -> dict[str, dict[str, float]]:
    means = {}
    for arm in recipe["arms"]:
        rows = [sections.read_json(inputs[f"merge:{arm}"] / "summary.json")["rows"] for inputs in cells]
        means[arm] = {source: float(np.mean([row[source] for row in rows])) for source in ("real", "synthetic")}
    return means


def comparison(recipe: dict[str, Any], variant: VariantFindings, arm: str) -> dict[str, Any]:
    """An arm against the baseline by the recipe's metric; keys as in the contract, and those that a study adds."""
    spec = recipe["comparison"]
    primary = variant.measure(spec["metric"])
    difference, baseline = primary.differences[arm], primary.arms[spec["baseline"]].mean
    sides = (variant.points[primary.name, side].mean(axis=1) for side in (arm, spec["baseline"]))
    per_split = np.subtract(*sides)
    return {
        "metric": primary.name,
        "baseline": spec["baseline"],
        "arm": arm,
        "delta": difference.delta,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "confidence": spec["confidence"],
        "n_seeds": len(recipe["seeds"]),
        "n_splits": len(recipe["study"]["splits"]),
        "train_overlap": variant.overlap if len(recipe["study"]["splits"]) > 1 else None,
        "n_identities": variant.n_identities,
        "verdict": difference.verdict,
        "reason": difference.reason,
        "smallest_detectable": difference.smallest,
        "relative_percent": None if difference.delta is None or not baseline else 100 * difference.delta / baseline,
        "per_split": [float(value) if np.isfinite(value) else None for value in per_split],
    }


def from_first(recipe: dict[str, Any], first: VariantFindings, variant: VariantFindings) -> ArmDifference | None:
    """How much more (or less) the compared arm changes the metric in `variant` than in `first`; None: no value.

    It is the difference of the two differences from the baseline, paired by people and units.
    """
    spec = recipe["comparison"]
    stacks = [
        (findings.stacks.get((spec["metric"], spec["arm"])), findings.stacks.get((spec["metric"], spec["baseline"])))
        for findings in (variant, first)
    ]
    differences = [(arm[0] - base[0], arm[1] - base[1]) for arm, base in stacks if arm and base]
    if len(differences) < 2:
        return None
    better = first.measure(spec["metric"]).better
    of_variant, of_first = differences
    n_people = max(variant.n_identities, first.n_identities)
    overlap = max(variant.overlap, first.overlap)
    change = comparisons.difference(of_variant, of_first, better, n_people, spec["confidence"], overlap)
    return comparisons.if_named(change, named=False)
