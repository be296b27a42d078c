"""merge: one manifest for each arm, with dense labels and a report of duplicates."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facegan import licences, manifest
from facegan.config import Arm, Merge
from facegan.errors import UserError
from facegan.events import Context
from facegan.images import alike, thumbnails, to_pixels
from facegan.judges import judges_half
from facegan.store import write_atomic
from facegan.training import subseed

DUPLICATES = pa.schema(
    [
        ("image_id", pa.string()),
        ("other_image_id", pa.string()),
        ("identity", pa.string()),
        ("other_identity", pa.string()),
        ("kind", pa.string()),
        ("correlation", pa.float32()),
    ]
)


def run(options: Merge, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/` (train rows, labels dense), `duplicates.parquet` and `summary.json`.

    An image that stands twice is kept once, the real row before the synthetic one. Raises UserError when
    fewer than two people are left.
    """
    arm = Arm.model_validate(extra["arm"])
    rows = _real(inputs["real"], extra.get("people", "train")) if arm.real else []
    if "synthetic" in inputs:
        synthetic = [r for r in manifest.iterate(inputs["synthetic"]) if _wanted(r, arm)]
        rows += _ratio(synthetic, len(rows), arm, options.seed)
    before = len(rows)
    rows = _cap(rows, options)
    capped = before - len(rows)
    duplicates = find_duplicates(rows, options.near_duplicate)
    rows = _drop_repeats(rows)
    names = sorted({r["identity"] for r in rows})
    if len(names) < 2:
        raise UserError(
            f"an arm needs two people or more to learn from, got {len(names)}",
            fix="look at the filters of synthesize in the report, or give the arm more rows",
        )
    label = {name: number for number, name in enumerate(names)}
    labelled = ({**r, "label": label[r["identity"]]} for r in rows)
    manifest.write(out, labelled, "merge", {name: path.name for name, path in inputs.items()})
    pq.write_table(pa.Table.from_pylist(duplicates, DUPLICATES), out / "duplicates.parquet")
    kinds = Counter(d["kind"] for d in duplicates)
    sources = Counter(r["source"] for r in rows)
    summary = {
        "arm": arm.model_dump(mode="json"),
        "identities": len(names),
        "rows": {"real": sources["real"], "synthetic": sources["synthetic"]},
        "exact_duplicates": kinds["exact"],
        "near_duplicates": kinds["near"],
        "capped": capped,
        "licenses": licences.names([r["license"] for r in rows]),
    }
    write_atomic(out / "summary.json", json.dumps(summary, indent=1).encode())
    context.say(f"{len(names)} people, {sources['real']} real and {sources['synthetic']} synthetic images")


def _real(folder: Path, people: str) -> list[dict[str, Any]]:
    """The real rows of the train people, or of the judge's half of the val people."""
    rows = list(manifest.iterate(folder, split=people))
    if people == "val":
        chosen = set(judges_half(sorted({r["identity"] for r in rows})))
        rows = [r for r in rows if r["identity"] in chosen]
    return rows


def _wanted(item: dict[str, Any], arm: Arm) -> bool:
    return arm.new if item["identity"].startswith(manifest.NEW) else arm.existing


def _ratio(synthetic: list[dict[str, Any]], real: int, arm: Arm, seed: int) -> list[dict[str, Any]]:
    """Whole people, drawn in a seeded order, while they fit below `synthetic_per_real`."""
    if arm.synthetic_per_real is None:
        return synthetic
    people = defaultdict(list)
    for item in synthetic:
        people[item["identity"]].append(item)
    order = np.random.default_rng(subseed("ratio", seed)).permutation(sorted(people))
    kept: list[dict[str, Any]] = []
    for name in order:
        if len(kept) + len(people[name]) <= real * arm.synthetic_per_real:
            kept += people[name]
    return kept


def _cap(rows: list[dict[str, Any]], options: Merge) -> list[dict[str, Any]]:
    """At most max_per_identity rows of each person: real ones first, then by a seeded draw."""
    if options.max_per_identity is None:
        return rows
    draw = np.random.default_rng(subseed("cap", options.seed)).permutation(len(rows))
    kept, counts = set(), Counter[str]()
    for place in sorted(range(len(rows)), key=lambda i: (rows[i]["source"] != "real", draw[i])):
        name = rows[place]["identity"]
        counts[name] += 1
        if counts[name] <= options.max_per_identity:
            kept.add(place)
    return [item for place, item in enumerate(rows) if place in kept]


def _drop_repeats(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each image_id; the first is kept, and real rows come first."""
    first: dict[str, dict[str, Any]] = {}
    for item in rows:
        first.setdefault(item["image_id"], item)
    return list(first.values())


def find_duplicates(rows: list[dict[str, Any]], correlation: float, block: int = 2048) -> list[dict[str, Any]]:
    """Pairs of rows: each repeat of the same bytes with its first row (`exact`), and different images with
    thumbnails correlated at `correlation` or more, also when one is mirrored (`near`); block by block, so that
    memory grows with the block alone."""
    first: dict[str, dict[str, Any]] = {}
    found = []
    for item in rows:
        if item["image_id"] in first:
            found.append(_pair(first[item["image_id"]], item, "exact", 1.0))
        first.setdefault(item["image_id"], item)
    distinct = list(first.values())
    small = thumbnails([to_pixels(item["image"]["bytes"]) for item in distinct])
    near = alike(small, correlation, block)
    found += [_pair(distinct[i], distinct[j], "near", value) for i, j, value in near]
    return found


def _pair(one: dict[str, Any], other: dict[str, Any], kind: str, correlation: float) -> dict[str, Any]:
    return {
        "image_id": one["image_id"],
        "other_image_id": other["image_id"],
        "identity": one["identity"],
        "other_identity": other["identity"],
        "kind": kind,
        "correlation": round(min(correlation, 1.0), 4),
    }
