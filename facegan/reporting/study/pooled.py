"""The numbers of a study: every variant's arms over all splits, and how sure the differences between them are.

The unit is a split: people of its own to learn from, a generator of its own; its value is the mean over the seeds.
People are drawn once for all, from everybody who is tested anywhere, and each split takes the draws of its own
test people: a person who is tested in two splits counts alike in both. Then `intervals` with splits in the place
of seeds. With one split the seeds are the units, as in a report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.evaluation.protocols import PROTOCOLS
from facegan.metrics import intervals
from facegan.reporting import results, sections
from facegan.reporting import runs as scored
from facegan.reporting.results import NO_GAIN, ArmDifference, ArmValue, Measure
from facegan.reporting.runs import Doubles, Run

LEAST_UNITS = 3
Stack = tuple[Doubles, Doubles]
"""Replicates (n_units, n_boot) and values (n_units,) of one arm and metric."""


@dataclass(frozen=True)
class VariantFindings:
    """One variant on all splits. In its measures an arm's `per_seed` holds one value for each unit.

    points: {(metric, arm): (n_splits, n_seeds)}, NaN where there is no value. stacks: where all units have values
    and replicates. chosen: {arm: {trial: splits}}, no trial where arms have but one. images: {arm: mean over splits
    of real and synthetic train images}.
    """

    name: str
    x: float | None
    n_identities: int
    measures: tuple[Measure, ...]
    points: dict[tuple[str, str], Doubles]
    stacks: dict[tuple[str, str], Stack]
    chosen: dict[str, Counter[str]]
    images: dict[str, dict[str, float]]

    def measure(self, metric: str) -> Measure:
        """The measure of a name."""
        return next(item for item in self.measures if item.name == metric)


@dataclass(frozen=True)
class Pooled:
    """All variants; `unit` is what varies beside people: split, or seed where there is one split."""

    variants: tuple[VariantFindings, ...]
    unit: str
    n_people: int


def cell_inputs(inputs: dict[str, Path], variant: str, split: int) -> dict[str, Path]:
    """The inputs of one cell, named as in a report."""
    prefix = f"{variant}:{split}:"
    return {name.removeprefix(prefix): folder for name, folder in inputs.items() if name.startswith(prefix)}


def measure(
    recipe: dict[str, Any], inputs: dict[str, Path], n_boot: int, seed: int, progress: Callable[[int, int], None]
) -> Pooled:
    """Everything that a study says in numbers; `progress(done, total)` counts recognizers.

    Raises UserError when the comparison's metric was not measured, or runs of a split judged different images.
    """
    benchmarks = [PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in recipe["benchmark"]["benchmarks"]]
    cells = {
        (name, split): _runs(recipe, cell_inputs(inputs, name, split))
        for name in recipe["study"]["variants"]
        for split in recipe["study"]["splits"]
    }
    everybody = sorted({name for runs in cells.values() for name in runs[0].names})
    weights = intervals.person_weights(len(everybody), n_boot, seed)
    drawn: dict[tuple[str, int, str, int], dict[str, Doubles]] = {}
    total = sum(map(len, cells.values()))
    for (name, split), runs in cells.items():
        own = weights[:, np.searchsorted(everybody, runs[0].names)]
        for run in runs:
            drawn[name, split, run.arm, run.seed] = results.replicates(benchmarks, run, own)
            progress(len(drawn), total)
    variants = tuple(_variant(recipe, inputs, name, cells, drawn) for name in recipe["study"]["variants"])
    return Pooled(variants, "split" if len(recipe["study"]["splits"]) > 1 else "seed", len(everybody))


def _runs(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[Run]:
    runs = [scored.load(inputs, arm, seed) for arm in recipe["arms"] for seed in recipe["seeds"]]
    scored.same_test(runs)
    found, wanted = scored.found(runs), recipe["comparison"]["metric"]
    if wanted not in found:
        raise UserError(
            f"comparison.metric is '{wanted}', which was not measured on one of the splits",
            fix=f"set comparison.metric to one of: {', '.join(found)}",
        )
    return runs


def _variant(
    recipe: dict[str, Any],
    inputs: dict[str, Path],
    name: str,
    cells: dict[tuple[str, int], list[Run]],
    drawn: dict[tuple[str, int, str, int], dict[str, Doubles]],
) -> VariantFindings:
    splits, seeds = recipe["study"]["splits"], recipe["seeds"]
    runs = {(split, run.arm, run.seed): run for split in splits for run in cells[name, split]}
    people = {person for split in splits for person in cells[name, split][0].names}
    points: dict[tuple[str, str], Doubles] = {}
    stacks: dict[tuple[str, str], Stack] = {}
    measures = []
    for metric, (kind, fields) in scored.found(cells[name, splits[0]]).items():
        for arm in recipe["arms"]:
            table = [[scored.value(runs[split, arm, s], kind, metric) for s in seeds] for split in splits]
            points[metric, arm] = values = np.asarray(table, np.float64)
            found = [[drawn[name, split, arm, s].get(metric) for s in seeds] for split in splits]
            if np.isfinite(values).all() and all(one is not None for row in found for one in row):
                axis = 1 if len(splits) > 1 else 0  # one split: its seeds are the units
                stacks[metric, arm] = np.asarray(found, np.float64).mean(axis=axis), values.mean(axis=axis)
        measures.append(_measure(recipe, kind, fields, points, stacks, len(people)))
    x = recipe["study"]["variants"][name]["x"]
    own = [cell_inputs(inputs, name, split) for split in splits]
    return VariantFindings(
        name, x, len(people), tuple(measures), points, stacks, _chosen(recipe, own), _images(recipe, own)
    )


def _measure(
    recipe: dict[str, Any],
    kind: str,
    metric: dict[str, Any],
    points: dict[tuple[str, str], Doubles],
    stacks: dict[tuple[str, str], Stack],
    n_people: int,
) -> Measure:
    name, spec = metric["name"], recipe["comparison"]
    arms: dict[str, ArmValue] = {}
    for arm in recipe["arms"]:
        table = points[name, arm]
        units = table.mean(axis=1 if len(table) > 1 else 0)
        mean = float(table.mean()) if np.isfinite(table).all() else None
        ends: tuple[float | None, float | None] = (None, None)
        if stack := stacks.get((name, arm)):
            ends = results.ends(intervals.single_interval(*stack, n_people, spec["confidence"]))
        arms[arm] = ArmValue(tuple(float(v) if np.isfinite(v) else None for v in units), mean, *ends)
    differences: dict[str, ArmDifference] = {}
    for arm in (arm for arm in arms if arm != spec["baseline"]):
        ours, theirs = stacks.get((name, arm)), stacks.get((name, spec["baseline"]))
        if ours and theirs:
            found = results.difference(ours, theirs, metric["better"], n_people, spec["confidence"])
            differences[arm] = _careful(found, points[name, arm].shape)
        else:
            differences[arm] = results.without_interval(arms[arm].mean, arms[spec["baseline"]].mean, metric)
    fields = ("better", "operating_point", "note", "n_genuine", "n_impostor")
    return Measure(
        name, kind, **{f: metric[f] for f in fields}, n_identities=n_people, arms=arms, differences=differences
    )


def _careful(found: ArmDifference, shape: tuple[int, ...]) -> ArmDifference:
    """No verdict from fewer than three seeds or, where splits are the units, fewer than three of these."""
    n_splits, n_seeds = shape
    few = [f"three seeds, this study has {n_seeds}"] if n_seeds < LEAST_UNITS else []
    few += [f"three splits, this study has {n_splits}"] if 1 < n_splits < LEAST_UNITS else []
    return replace(found, verdict=NO_GAIN, reason=f"a verdict needs {few[0]}") if few else found


def _chosen(recipe: dict[str, Any], cells: list[dict[str, Path]]) -> dict[str, Counter[str]]:
    found = {arm: [sections.choice(own, arm).get("trial") for own in cells] for arm in recipe["arms"]}
    return {arm: Counter(trial for trial in trials if trial) for arm, trials in found.items()}


def _images(recipe: dict[str, Any], cells: list[dict[str, Path]]) -> dict[str, dict[str, float]]:
    found = {}
    for arm in recipe["arms"]:
        rows = [sections.read_json(own[f"merge:{arm}"] / "summary.json")["rows"] for own in cells]
        found[arm] = {source: float(np.mean([row[source] for row in rows])) for source in ("real", "synthetic")}
    return found


def comparison(recipe: dict[str, Any], variant: VariantFindings, arm: str) -> dict[str, Any]:
    """An arm against the baseline by the named metric; keys as in the contract, and what a study adds."""
    spec = recipe["comparison"]
    named = variant.measure(spec["metric"])
    found, baseline = named.differences[arm], named.arms[spec["baseline"]].mean
    pair = (variant.points[named.name, side].mean(axis=1) for side in (arm, spec["baseline"]))
    apart = np.subtract(*pair)
    return {
        "metric": named.name,
        "baseline": spec["baseline"],
        "arm": arm,
        "delta": found.delta,
        "ci_low": found.low,
        "ci_high": found.high,
        "confidence": spec["confidence"],
        "n_seeds": len(recipe["seeds"]),
        "n_splits": len(recipe["study"]["splits"]),
        "n_identities": variant.n_identities,
        "verdict": found.verdict,
        "reason": found.reason,
        "smallest_detectable": found.smallest,
        "relative_percent": None if found.delta is None or not baseline else 100 * found.delta / baseline,
        "per_split": [float(value) if np.isfinite(value) else None for value in apart],
    }


def from_first(recipe: dict[str, Any], first: VariantFindings, variant: VariantFindings) -> ArmDifference | None:
    """How much more (or less) the named arm moves the named metric in `variant` than in `first`; None: no value.

    The difference of the two differences from the baseline, paired by people and units.
    """
    spec = recipe["comparison"]
    stacks = [
        (one.stacks.get((spec["metric"], spec["arm"])), one.stacks.get((spec["metric"], spec["baseline"])))
        for one in (variant, first)
    ]
    apart = [(arm[0] - base[0], arm[1] - base[1]) for arm, base in stacks if arm and base]
    if len(apart) < 2:
        return None
    better = first.measure(spec["metric"]).better
    ours, theirs = apart
    n_people = max(variant.n_identities, first.n_identities)
    found = results.difference(ours, theirs, better, n_people, spec["confidence"])
    return _careful(found, variant.points[spec["metric"], spec["arm"]].shape)
