"""The benchmarked recognizers that a report compares, read from the benchmark stage's outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file

from facegan.errors import UserError

Doubles = NDArray[np.float64]
Series = tuple[Doubles, Doubles]
Curves = dict[str, dict[str, list[dict[str, list[float]]]]]
"""{name of the curve: {arm: one of each seed}}."""


@dataclass(frozen=True)
class Run:
    """One benchmarked recognizer: its `results.json`, embeddings (N, d) and the person of each row (N,).

    `people` are places in `names`, the identities in order.
    """

    arm: str
    seed: int
    results: dict[str, Any]
    embedding: NDArray[np.float32]
    people: NDArray[np.int64]
    image_id: tuple[str, ...]
    names: tuple[str, ...]


def load(inputs: dict[str, Path], arm: str, seed: int) -> Run:
    """A benchmark's outputs; raises UserError when they do not fit each other."""
    folder = inputs[f"benchmark:{arm}:{seed}"]
    results = json.loads((folder / "results.json").read_bytes())
    embedding = load_file(folder / "embeddings.safetensors")["embedding"]
    rows = pq.read_table(folder / "rows.parquet", columns=["image_id", "identity"])
    names, people = np.unique(np.asarray(rows["identity"].to_pylist(), dtype=str), return_inverse=True)
    if len(embedding) != len(people):
        raise UserError(
            f"the benchmark of arm '{arm}', seed {seed} has {len(embedding)} embeddings, {len(people)} rows",
            fix=f"delete {folder}: the next run makes it again",
        )
    return Run(
        arm,
        seed,
        results,
        embedding,
        people.astype(np.int64),
        tuple(rows["image_id"].to_pylist()),
        tuple(names.tolist()),
    )


def same_test(runs: list[Run]) -> None:
    """Raise UserError unless all runs judged the same images of the same people."""
    for run in runs[1:]:
        if run.image_id != runs[0].image_id or not np.array_equal(run.people, runs[0].people):
            raise UserError(
                f"arm '{run.arm}', seed {run.seed} was judged on other test images than "
                f"arm '{runs[0].arm}', seed {runs[0].seed}",
                fix="delete the benchmark stage's results: the next run makes them again",
            )


def found(runs: list[Run]) -> dict[str, tuple[str, dict[str, Any]]]:
    """{metric name: (benchmark kind, its Metric in the first run)}, in the benchmarks' order."""
    named: dict[str, tuple[str, dict[str, Any]]] = {}
    for kind, result in runs[0].results.items():
        for metric in result["metrics"]:
            if metric["name"] in named:
                raise UserError(
                    f"benchmarks '{named[metric['name']][0]}' and '{kind}' both measure '{metric['name']}'",
                    fix="leave one of them out of benchmark.benchmarks",
                )
            named[metric["name"]] = (kind, metric)
    return named


def value(run: Run, kind: str, name: str) -> float | None:
    """A metric of a run, None where it has no value."""
    for metric in run.results[kind]["metrics"]:
        if metric["name"] == name and metric["value"] is not None:
            return float(metric["value"])
    return None


def curves(runs: list[Run]) -> Curves:
    """Every curve, by name and arm."""
    found: Curves = {}
    for run in runs:
        for result in run.results.values():
            for name, curve in result["curves"].items():
                found.setdefault(name, {}).setdefault(run.arm, []).append(curve)
    return found


def series(curve: dict[str, list[dict[str, list[float]]]], x: str, y: str) -> dict[str, list[Series]]:
    """{arm: (x, y) of each seed} as float64 arrays."""
    return {
        arm: [(np.asarray(one[x], np.float64), np.asarray(one[y], np.float64)) for one in seeds]
        for arm, seeds in curve.items()
    }
