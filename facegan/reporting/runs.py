"""The benchmarked recognizers that a report compares, read from the benchmark stage's outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file

from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.image_measures import MEASURES
from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople

Doubles = NDArray[np.float64]
Series = tuple[Doubles, Doubles]
Curves = dict[str, dict[str, list[dict[str, list[float]]]]]
"""{name of the curve: {arm: [one curve for each seed]}}."""


@dataclass(frozen=True)
class Run:
    """One benchmarked recognizer: the folder of its benchmark, its `results.json`, and the faces it was judged on.

    `names` are the sorted identities; `seed` is None for a baseline, whose name stands in `arm`.
    """

    arm: str
    seed: int | None
    folder: Path
    results: dict[str, Any]
    faces: EmbeddedFaces
    image_id: tuple[str | None, ...]
    names: tuple[str, ...]

    def without_faces(self) -> Run:
        """The same without its embeddings, for as long as only its values are asked for."""
        nobody = self.faces.only(np.arange(0))
        return replace(self, faces=replace(nobody, probed={}, own=None))


def baselines(inputs: dict[str, Path]) -> list[str]:
    """The names of the fitted recognizers that were benchmarked: those without a seed."""
    names = (name.split(":") for name in inputs)
    return [parts[1] for parts in names if parts[0] == "benchmark" and len(parts) == 2]


def load(inputs: dict[str, Path], arm: str, seed: int | None = None) -> Run:
    """A benchmark's outputs, without a seed those of a baseline; raises UserError when they do not fit each other."""
    folder = inputs[f"benchmark:{arm}" if seed is None else f"benchmark:{arm}:{seed}"]
    results = json.loads((folder / "results.json").read_bytes())
    faces, rows = _faces(folder, _who(arm, seed))
    thresholds = folder / "thresholds.json"
    at = {float(k): v for k, v in json.loads(thresholds.read_bytes()).items()} if thresholds.is_file() else {}
    probes = sorted(folder.glob("probe-*.safetensors"))
    probed = {path.stem.removeprefix("probe-"): load_file(path) for path in probes}
    own = None
    if (folder / "rows-own.parquet").is_file():
        own_faces, own_rows = _faces(folder, _who(arm, seed), "-own")
        own = OwnPeople(own_faces, np.asarray(own_rows["side"], dtype=object))
    faces = replace(faces, thresholds=at, probed=probed, own=own)
    return Run(arm, seed, folder, results, faces, tuple(rows["image_id"]), tuple(sorted(set(rows["identity"]))))


def _faces(folder: Path, who: str, suffix: str = "") -> tuple[EmbeddedFaces, dict[str, list[Any]]]:
    """The faces that a benchmark kept, and the columns of their rows."""
    embedding = load_file(folder / f"embeddings{suffix}.safetensors")["embedding"]
    rows = pq.read_table(folder / f"rows{suffix}.parquet").to_pydict()
    if len(embedding) != len(rows["identity"]):
        raise UserError(
            f"the benchmark of {who} has {len(embedding)} embeddings, {len(rows['identity'])} rows",
            fix=f"delete {folder}: the next run makes it again",
        )
    identity, file, group = (np.asarray(rows[name], dtype=object) for name in ("identity", "file", "group"))
    measured = {name: np.asarray(rows[name], np.float64) for name in MEASURES if name in rows}
    acquired = np.asarray(rows["acquired"], bool)
    return EmbeddedFaces(embedding, identity, file, group, acquired, measured=measured), rows


def load_all(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[Run]:
    """The runs of all arms and seeds, then those of the baselines; raises UserError as `load`.

    Seeds that share a recognizer, in which nothing is drawn, share its faces.
    """
    runs: list[Run] = []
    of_folder: dict[Path, Run] = {}
    for arm, seed in [(arm, seed) for arm in recipe["arms"] for seed in recipe["seeds"]]:
        folder = inputs[f"benchmark:{arm}:{seed}"]
        if folder not in of_folder:
            of_folder[folder] = load(inputs, arm, seed)
        runs.append(replace(of_folder[folder], seed=seed))
    return runs + [load(inputs, name) for name in baselines(inputs)]


def test_people(inputs: dict[str, Path]) -> frozenset[str]:
    """Everybody whose photos the benchmarks of a cell have embedded, by name."""
    rows = next(folder for name, folder in inputs.items() if name.startswith("benchmark:")) / "rows.parquet"
    return frozenset(pq.read_table(rows, columns=["identity"])["identity"].to_pylist())


def test_digest(prepared: Path, names: tuple[str, ...]) -> str:
    """sha256 over the sorted identities and photos (sha256 of their files) of the test people `names`: who was judged.

    The same for photos that were cut or aligned otherwise. It holds no name, and cannot be checked without the photos.
    """
    columns = ["identity", "source_sha256", "image_id"]
    rows = manifest.read(prepared, columns, split="test").to_pylist()
    judged = set(names)
    return digest(sorted([r["identity"], r["source_sha256"] or r["image_id"]] for r in rows if r["identity"] in judged))


def train_people(prepared: Path) -> frozenset[str]:
    """Everybody who is learned from in a split, by name."""
    return frozenset(manifest.read(prepared, ["identity"], split="train")["identity"].to_pylist())


def _who(arm: str, seed: int | None) -> str:
    return f"baseline '{arm}'" if seed is None else f"arm '{arm}', seed {seed}"


def same_test(runs: list[Run]) -> None:
    """Raise UserError unless all runs judged the same images of the same people."""
    for run in runs[1:]:
        if run.image_id != runs[0].image_id or not _same_faces(run.faces, runs[0].faces):
            raise UserError(
                f"{_who(run.arm, run.seed)} was judged on other test images than {_who(runs[0].arm, runs[0].seed)}",
                fix="delete the benchmark stage's results: the next run makes them again",
            )


def _same_faces(one: EmbeddedFaces, other: EmbeddedFaces) -> bool:
    """Whether both are of the same images and people, own ones too."""
    own = (faces.own.faces if faces.own is not None else None for faces in (one, other))
    pairs = [(one, other), *([both] if None not in (both := tuple(own)) else [])]
    names = ("identity", "file", "acquired")
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for a, b in pairs for name in names)
    return same and (one.own is None) == (other.own is None)


def measured_metrics(runs: list[Run]) -> dict[str, tuple[str, dict[str, Any]]]:
    """{metric name: (benchmark kind, its Metric in the first run)}, in the benchmarks' order."""
    metrics: dict[str, tuple[str, dict[str, Any]]] = {}
    for kind, result in runs[0].results.items():
        for metric in result["metrics"]:
            if metric["name"] in metrics:
                raise UserError(
                    f"benchmarks '{metrics[metric['name']][0]}' and '{kind}' both measure '{metric['name']}'",
                    fix="leave one of them out of benchmark.benchmarks",
                )
            metrics[metric["name"]] = (kind, metric)
    return metrics


def value(run: Run, kind: str, name: str) -> float | None:
    """A metric of a run, None where it has no value."""
    for metric in run.results[kind]["metrics"]:
        if metric["name"] == name and metric["value"] is not None:
            return float(metric["value"])
    return None


def remark(runs: list[Run], kind: str, name: str) -> str:
    """The parts of a metric's note that stand in the notes of all runs."""
    notes = [m["note"].split("; ") for run in runs for m in run.results[kind]["metrics"] if m["name"] == name]
    return "; ".join(part for part in notes[0] if all(part in other for other in notes))


def curves(runs: list[Run]) -> Curves:
    """Every curve, by name and arm."""
    by_name: Curves = {}
    for run in runs:
        for result in run.results.values():
            for name, curve in result["curves"].items():
                by_name.setdefault(name, {}).setdefault(run.arm, []).append(curve)
    return by_name


def series(by_arm: dict[str, list[dict[str, list[float]]]], x: str, y: str) -> dict[str, list[Series]]:
    """{arm: (x, y) of each seed} as float64 arrays."""
    return {
        arm: [(np.asarray(values[x], np.float64), np.asarray(values[y], np.float64)) for values in seeds]
        for arm, seeds in by_arm.items()
    }
