"""The numbers of a report: each recognizer's scores, their intervals, and the verdict.

Points come from the benchmarks' `results.json`; intervals from their `replicates`, with the same resampled
people for every arm and seed, so that arms can be compared in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.evaluation.protocols import PROTOCOLS, ProtocolConfig, bounds
from facegan.metrics import intervals
from facegan.recognition.fitted import FITTED
from facegan.reporting import runs as benchmark_runs
from facegan.reporting.comparisons import (
    ArmDifference,
    ArmValue,
    Measure,
    Stack,
    against_controls,
    arm_value,
    difference,
    if_named,
    is_control,
    is_named,
    with_baselines,
    without_interval,
)  # fmt: skip
from facegan.reporting.runs import Curves, Doubles, Run

SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("benchmark", pa.string()),
        ("metric", pa.string()),
        ("operating_point", pa.float64()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n_genuine", pa.int64()),
        ("n_impostor", pa.int64()),
        ("n_identities", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Findings:
    """All that was measured, and the comparison that the recipe names."""

    measures: tuple[Measure, ...]
    comparison: dict[str, Any]
    curves: Curves
    n_images: int
    test_people: tuple[str, ...]  # their digest


def measure(
    recipe: dict[str, Any],
    inputs: dict[str, Path],
    n_boot: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> Findings:
    """All numbers of the report; `progress(done, total)` counts recognizers.

    Raises UserError when the comparison's metric was not measured, or runs judged different test images.
    """
    benchmarks = [PROTOCOLS.get(spec["kind"]).model_validate(spec) for spec in recipe["benchmark"]["benchmarks"]]
    runs = benchmark_runs.load_all(recipe, inputs)
    benchmark_runs.same_test(runs)
    metrics = benchmark_runs.measured_metrics(runs)
    primary_name = recipe["comparison"]["metric"]
    if primary_name not in metrics:
        raise UserError(
            f"comparison.metric is '{primary_name}', which no benchmark measured",
            fix=f"set comparison.metric to one of: {', '.join(metrics)}",
        )
    n_people = len(runs[0].names)
    weights = intervals.person_weights(n_people, n_boot, seed)
    replicates_of: dict[tuple[str, int | None], dict[str, Doubles]] = {}
    of_folder: dict[Path, dict[str, Doubles]] = {}  # which seeds share where nothing is drawn
    for done, run in enumerate(runs, start=1):
        if run.folder not in of_folder:
            of_folder[run.folder] = replicates(benchmarks, run, weights)
        replicates_of[run.arm, run.seed] = of_folder[run.folder]
        progress(done, len(runs))
    measures = tuple(
        _measure(recipe, *kind_and_metric, runs, replicates_of, n_people) for kind_and_metric in metrics.values()
    )
    primary = next(measure for measure in measures if measure.name == primary_name)
    comparison = _comparison(recipe, primary, metrics[primary_name][1].get("n_resampled") or n_people)
    judged = benchmark_runs.test_digest(inputs["prepare"], runs[0].names)
    return Findings(measures, comparison, benchmark_runs.curves(runs), int(runs[0].faces.acquired.sum()), (judged,))


def replicates(benchmarks: list[ProtocolConfig], run: Run, weights: NDArray[np.int32]) -> dict[str, Doubles]:
    """{metric: (n_boot,)} of all benchmarks, with people weighted as in `weights` (n_boot, n_people)."""
    values: dict[str, Doubles] = {}
    for benchmark in benchmarks:
        values.update(benchmark.reading_from(run.folder).replicates(run.faces, weights))
    return values


def _measure(
    recipe: dict[str, Any],
    kind: str,
    metric: dict[str, Any],
    runs: list[Run],
    replicates_of: dict[tuple[str, int | None], dict[str, Doubles]],
    n_people: int,
) -> Measure:
    name, confidence = metric["name"], recipe["comparison"]["confidence"]
    n_people = metric.get("n_resampled") or n_people
    values: dict[str, ArmValue] = {}
    stacks: dict[str, Stack] = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        points = [benchmark_runs.value(run, kind, name) for run in runs if run.arm == arm]
        of_seeds = [replicates_of[run.arm, run.seed] for run in runs if run.arm == arm]
        seed_replicates = [replicates[name] for replicates in of_seeds if name in replicates]
        if None in points or len(seed_replicates) < len(points):
            present = [point for point in points if point is not None]
            mean = float(np.mean(present)) if len(present) == len(points) else None
            values[arm] = ArmValue(tuple(points), mean)
            continue
        stacks[arm] = np.stack(seed_replicates), np.asarray(points, np.float64)
        values[arm] = arm_value(*stacks[arm], n_people, confidence, bounds(name))
    arms = {arm: values[arm] for arm in recipe["arms"]}
    baseline = recipe["comparison"]["baseline"]
    differences: dict[str, ArmDifference] = {}
    for arm in arms:
        if arm in stacks and baseline in stacks and arm != baseline:
            sides = stacks[arm], stacks[baseline]
            differences[arm] = difference(*sides, metric["better"], n_people, confidence)
        elif arm != baseline:
            differences[arm] = without_interval(arms[arm].mean, arms[baseline].mean, metric)
    differences = {arm: if_named(found, is_named(recipe, name, arm)) for arm, found in differences.items()}
    fields = ("better", "operating_point", "note", "n_genuine", "n_impostor", "n_identities")
    measured = Measure(
        name,
        kind,
        **{f: metric[f] for f in fields},
        remark=benchmark_runs.remark(runs, kind, name),
        arms=arms,
        differences=differences,
        controls=against_controls(recipe, arms, stacks, metric, n_people),
        baselines={name: value for name, value in values.items() if name not in arms},
    )
    return with_baselines(measured, stacks, metric, n_people, confidence)


def beaten_by(recipe: dict[str, Any], primary: Measure) -> dict[str, Any] | None:
    """The baseline, of those without `+synthetic`, that is better than every arm by the primary metric.

    None where none is; the best one of several. Controls count only where they are compared. `delta` and interval are
    those of the best arm minus the baseline; `holds_zero` are the arms whose interval does not exclude zero, or who
    have none.
    """
    sign = 1 if primary.better == "lower" else -1
    compared = (recipe["comparison"]["baseline"], recipe["comparison"]["arm"])
    candidates = [arm for arm in primary.arms if arm in compared or not is_control(recipe, arm)]
    beating = {}
    for name in recipe.get("baselines", {}):
        differences = {arm: d for arm, d in primary.from_baselines.get(name, {}).items() if arm in candidates}
        if differences and all(d.delta is not None and sign * d.delta > 0 for d in differences.values()):
            beating[name] = differences
    if not beating:
        return None
    name = min(beating, key=lambda name: sign * (primary.baselines[name].mean or 0.0))
    best_arm = min(candidates, key=lambda arm: sign * (primary.arms[arm].mean or 0.0))
    best = beating[name][best_arm]
    holds_zero = [arm for arm, d in beating[name].items() if d.low is None or d.high is None or d.low <= 0 <= d.high]
    return {
        "baseline": name,
        "words": FITTED.get(recipe["baselines"][name]["kind"]).words,
        "fitted_on": recipe["comparison"]["baseline"],
        "metric": primary.name,
        "value": primary.baselines[name].mean,
        "best_arm": best_arm,
        "best_mean": primary.arms[best_arm].mean,
        "delta": best.delta,
        "ci_low": best.low,
        "ci_high": best.high,
        "confidence": recipe["comparison"]["confidence"],
        "excludes_zero": not holds_zero,
        "holds_zero": holds_zero,
    }


def _comparison(recipe: dict[str, Any], primary: Measure, n_people: int) -> dict[str, Any]:
    """The comparison that the recipe names, with its reason; keys as in the command line's contract."""
    spec = recipe["comparison"]
    difference = primary.differences[spec["arm"]]
    return {
        "metric": primary.name,
        "baseline": spec["baseline"],
        "arm": spec["arm"],
        "delta": difference.delta,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "confidence": spec["confidence"],
        "n_seeds": len(recipe["seeds"]),
        "n_splits": 1,
        "train_overlap": None,
        "n_identities": n_people,
        "verdict": difference.verdict,
        "reason": difference.reason,
        "smallest_detectable": difference.smallest,
    }


def write(
    out: Path,
    recipe: dict[str, Any],
    findings: Findings,
    licenses: dict[str, list[str]],
    best_control: dict[str, Any] | None = None,
    transfer: Sequence[dict[str, Any]] = (),
) -> None:
    """Write `results.json` (the command line's contract without stages) and `results.parquet` (tidy).

    `licenses` are those of all data that an arm's weights have learned from; `best_control`: `controls.best`;
    `transfer`: the tables of `transfer.collect`.
    """
    arms: dict[str, dict[str, Any]] = {arm: {} for arm in recipe["arms"]}
    rows = []
    for measure in findings.measures:
        for arm, value in measure.arms.items():
            arms[arm][measure.name] = {
                "per_seed": list(value.per_seed),
                "mean": value.mean,
                "ci_low": value.low,
                "ci_high": value.high,
                "note": measure.note,
            }
            rows += [_row(measure, arm, value, index, seed) for index, seed in enumerate(recipe["seeds"])]
        rows += [_row(measure, name, value, 0, None) for name, value in measure.baselines.items()]
    primary = next(measure for measure in findings.measures if measure.name == findings.comparison["metric"])
    results = {
        "recipe": recipe["name"],
        "arms": arms,
        "baselines": baseline_results(findings.measures),
        "beaten_by": beaten_by(recipe, primary),
        "comparison": findings.comparison,
        "licenses": licenses,
        "test_people": list(findings.test_people),
    }
    results |= {"best_control": best_control} if best_control else {}
    results |= {"transfer": list(transfer)} if transfer else {}
    write_atomic(out / "results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out / "results.parquet")


def baseline_results(measures: Sequence[Measure]) -> dict[str, dict[str, Any]]:
    """{baseline: {metric: its value, interval over people, and each arm's mean minus it}}."""
    results: dict[str, dict[str, Any]] = {}
    for measure in measures:
        for name, value in measure.baselines.items():
            results.setdefault(name, {})[measure.name] = {
                "value": value.mean,
                "ci_low": value.low,
                "ci_high": value.high,
                "note": measure.note,
                "differences": {
                    arm: {"delta": item.delta, "ci_low": item.low, "ci_high": item.high}
                    for arm, item in measure.from_baselines[name].items()
                },
            }
    return results


def _row(measure: Measure, arm: str, value: ArmValue, index: int, seed: int | None) -> dict[str, Any]:
    """One recognizer's row, a baseline's without a seed; its interval is over other people, for this seed."""
    return {
        "arm": arm,
        "seed": seed,
        "benchmark": measure.benchmark,
        "metric": measure.name,
        "operating_point": measure.operating_point,
        "value": value.per_seed[index],
        "ci_low": value.seed_low[index] if value.seed_low else None,
        "ci_high": value.seed_high[index] if value.seed_high else None,
        "n_genuine": measure.n_genuine,
        "n_impostor": measure.n_impostor,
        "n_identities": measure.n_identities,
    }
