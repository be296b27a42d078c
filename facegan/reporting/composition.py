"""Of which groups of train people a synthetic set is made: their share of its parents beside their share of people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.evaluation.embedded_faces import embed_faces
from facegan.evaluation.protocols.groups import Groups
from facegan.reporting import words

NONE = "in no group"


def in_words(compositions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shares of `collect` as percent, '' where no parent is unknown."""

    def percent(share: float | None) -> str:
        return "–" if share is None else words.percent(round(share, 3))

    return [
        {
            **item,
            "rows": [{"group": row.pop("group"), **{name: percent(share) for name, share in row.items()}}
                     for row in map(dict, item["rows"])],
            "unknown": percent(item["unknown"]) if item["unknown"] else "",
        }
        for item in compositions
    ]  # fmt: skip


def collect(recipe: dict[str, Any], inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """For each benchmark of groups of people: {label, rows: [{group, people, photos, parents}], new, unknown}.

    people and photos: shares of the train people, of their photos; parents: the mean share of a group in the parents of
    an image of a new person, each as its weight in size (alike where a row names none). A person whose photos are in
    several groups is in each by the share of the photos. No rows where a table names no train person. `unknown`: the
    share of parents who are no train people. Light and sharpness are of photos: none.
    """
    if "synthesize" not in inputs:
        return []
    folder = next((path for name, path in inputs.items() if name.startswith("benchmark:")), None)
    specs = [spec for spec in recipe["benchmark"]["benchmarks"] if spec["kind"] == "groups"]
    found = []
    for spec in specs:
        benchmark = Groups.model_validate(spec)
        benchmark = benchmark if folder is None else benchmark.reading_from(folder)
        if not benchmark.measures():
            try:
                found.append({"label": benchmark.label, **_composition(benchmark, inputs)})
            except UserError:  # its table is of other people
                found.append({"label": benchmark.label, "rows": [], "new": 0, "unknown": 0.0})
    return found


def _composition(benchmark: Groups, inputs: dict[str, Path]) -> dict[str, Any]:
    train = manifest.read(inputs["prepare"], ["identity", "group"], split="train")
    identity = train["identity"].to_pylist()
    faces = embed_faces(np.zeros((len(identity), 1)), identity, group=train["group"].to_pylist())
    group = np.asarray([str(value) or NONE for value in benchmark.groups_of(faces)])
    people, person = np.unique(np.asarray(identity, dtype=object), return_inverse=True)
    names, place = np.unique(group, return_inverse=True)
    photos = np.zeros((len(people), len(names)))
    np.add.at(photos, (person, place), 1)
    share = photos / photos.sum(axis=1, keepdims=True)
    parents, unknown, n_new = np.zeros(len(names)), 0.0, 0
    row_of = {name: row for row, name in enumerate(people)}
    for weights in _parents(inputs["synthesize"], set(row_of)):
        n_new += 1
        for name, weight in weights.items():
            if name in row_of:
                parents += weight * share[row_of[name]]
            else:
                unknown += weight
    columns = {"people": share.sum(axis=0), "photos": photos.sum(axis=0), "parents": parents}
    rows = [
        {"group": name, **{column: _share(values, n) for column, values in columns.items()}}
        for n, name in enumerate(names.tolist())
    ]
    return {"rows": rows, "new": n_new, "unknown": float(unknown / max(n_new, 1))}


def _parents(synthetic: Path, train: set[str]) -> Iterator[dict[str, float]]:
    """Of each image of a new person: {parent: its share}."""
    table = manifest.read(synthetic, ["identity", "parents", "parent_weights"])
    for row in table.to_pylist():
        if row["identity"] in train or not row["parents"]:
            continue
        weights = np.abs(row["parent_weights"] or np.ones(len(row["parents"])))
        total = weights.sum() or 1.0
        yield dict(zip(row["parents"], (weights / total).tolist(), strict=True))


def _share(values: np.ndarray, n: int) -> float | None:
    total = values.sum()
    return float(values[n] / total) if total else None
