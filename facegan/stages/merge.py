"""merge: one manifest for each arm, with dense labels and a report of duplicates."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.seeds import subseed
from facegan.data import licences, manifest
from facegan.data.dataset import names_of
from facegan.data.duplicates.near_duplicates import near_duplicate_pairs
from facegan.data.duplicates.thumbnails import BLOCK, shrink
from facegan.data.images import decode_pixels
from facegan.evaluation.judges import judges_half
from facegan.recognition.options import Arm, Merge
from facegan.runtime.context import Context

INPUTS = ("real", "synthetic", "augmented")
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

    `inputs` are `real`, `synthetic` rows of which the arm's are taken, and `augmented` ones, all of which are.
    An image that stands twice is kept once, the real row before the synthetic one; of a derived set, which repeats
    photos on purpose, all rows are kept. Raises UserError when fewer than two people are left.
    """
    arm = Arm.model_validate(extra["arm"])
    names = [name for name in INPUTS if name in inputs and (name != "real" or arm.real)]
    faces = ManifestRows([inputs[name] for name in names])
    rows = _real_rows(faces, extra.get("people", "train")) if arm.real else np.empty(0, np.int64)
    made: list[int] = []
    if "synthetic" in names:
        made += [i for i in faces.rows_of(names.index("synthetic")) if _belongs_to_arm(faces.identity[i], arm)]
    if "augmented" in names:
        made += faces.rows_of(names.index("augmented")).tolist()
    if made:
        rows = np.concatenate([rows, _apply_ratio(faces, made, len(rows), arm, options.seed)])
    before = len(rows)
    rows = _apply_cap(faces, rows, options)
    capped = before - len(rows)
    duplicates = find_duplicates(faces, rows, options.near_duplicate)
    rows = _without_repeats(faces, rows)
    people = sorted(set(faces.identity[rows]))
    if len(people) < 2:
        raise UserError(
            f"an arm needs two people or more to learn from, got {len(people)}",
            fix="the filters of synthesize left too few (its filters.json says why): give the source more people, or "
            "the arm more rows",
        )
    label = {name: number for number, name in enumerate(people)}
    labelled = ({**r, "label": label[r["identity"]]} for r in faces.rows(rows))
    manifest.write(out, labelled, "merge", {name: path.name for name, path in inputs.items()})
    pq.write_table(pa.Table.from_pylist(duplicates, DUPLICATES), out / "duplicates.parquet")
    kinds = Counter(d["kind"] for d in duplicates)
    real = int(faces.real[rows].sum())
    summary = {
        "arm": arm.model_dump(mode="json"),
        "identities": len(people),
        "rows": {"real": real, "synthetic": len(rows) - real},
        "exact_duplicates": kinds["exact"],
        "near_duplicates": kinds["near"],
        "capped": capped,
        "licenses": licences.names(faces.license[rows].tolist()),
    }
    write_atomic(out / "summary.json", json.dumps(summary, indent=1).encode())
    if arm.synthetic and real == len(rows):
        context.say("no synthetic image is left: this arm learns from the real photos alone, and can gain nothing")
    context.say(f"{len(people)} people, {real} real and {len(rows) - real} synthetic images")


class ManifestRows:
    """The rows of several manifests, numbered one after another: the columns that decide, and the rows when asked for.

    Memory: about 100 bytes a row, and one row group of images.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        tables = [
            manifest.read(folder, ["image_id", "identity", "source", "split", "license", "held_out"])
            for folder in folders
        ]
        self.starts = np.cumsum([0, *(table.num_rows for table in tables)])
        table = pa.concat_tables(tables)
        del tables
        self.identity, self.split = names_of(table["identity"]), names_of(table["split"])
        self.license, self.held_out = names_of(table["license"]), table["held_out"].fill_null(False).to_numpy()
        self.real = names_of(table["source"]) == "real"
        ids = table["image_id"]
        del table
        coded = pc.dictionary_encode(ids).combine_chunks()
        self.image_id, self.image_code = coded.dictionary, coded.indices.to_numpy()

    def rows_of(self, folder: int) -> np.ndarray:
        """The numbers of a folder's rows."""
        return np.arange(self.starts[folder], self.starts[folder + 1])

    def first_of_each_image(self, rows: np.ndarray) -> np.ndarray:
        """One row for each image_id, in the same order; the first is kept, and real rows come first."""
        _, positions = np.unique(self.image_code[rows], return_index=True)
        return rows[np.sort(positions)]

    def rows(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows by number, in the order given."""
        folder_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        for span in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(folder_of_row)) + 1):
            if len(span):
                index = folder_of_row[span[0]]
                yield from manifest.at(self.folders[index], rows[span] - self.starts[index], columns)


def _real_rows(faces: ManifestRows, people: str) -> np.ndarray:
    """The real rows of the train people that are not held out, or of the judge's half of the val people."""
    rows = faces.rows_of(0)
    rows = rows[(faces.split[rows] == people) & ~faces.held_out[rows]]
    if people == "val":
        chosen = set(judges_half(sorted(set(faces.identity[rows]))))
        rows = rows[[name in chosen for name in faces.identity[rows]]]
    return rows


def _without_repeats(faces: ManifestRows, rows: np.ndarray) -> np.ndarray:
    """The rows without repeated images, in the same order; those of derived sets are all kept."""
    derived = np.asarray([name.startswith(manifest.DERIVED) for name in faces.identity[rows]], bool)
    return rows[derived | np.isin(rows, faces.first_of_each_image(rows[~derived]))]


def _belongs_to_arm(identity: str, arm: Arm) -> bool:
    return arm.new if identity.startswith(manifest.NEW) else arm.existing


def _apply_ratio(faces: ManifestRows, synthetic: list[int], real: int, arm: Arm, seed: int) -> np.ndarray:
    """Whole people, drawn in a seeded order, while they fit below `synthetic_per_real`."""
    if arm.synthetic_per_real is None:
        return np.asarray(synthetic, np.int64)
    people = defaultdict(list)
    for number in synthetic:
        people[faces.identity[number]].append(number)
    order = np.random.default_rng(subseed("ratio", seed)).permutation(sorted(people))
    kept: list[int] = []
    for name in order:
        if len(kept) + len(people[name]) <= real * arm.synthetic_per_real:
            kept += people[name]
    return np.asarray(kept, np.int64)


def _apply_cap(faces: ManifestRows, rows: np.ndarray, options: Merge) -> np.ndarray:
    """At most max_per_identity rows of each person: real ones first, then by a seeded draw."""
    if options.max_per_identity is None:
        return rows
    draw = np.random.default_rng(subseed("cap", options.seed)).permutation(len(rows))
    kept, counts = np.zeros(len(rows), bool), Counter[str]()
    for position in np.lexsort((draw, ~faces.real[rows])):
        name = faces.identity[rows[position]]
        counts[name] += 1
        kept[position] = counts[name] <= options.max_per_identity
    return rows[kept]


def find_duplicates(
    faces: ManifestRows, rows: np.ndarray, correlation: float, block: int = BLOCK
) -> list[dict[str, Any]]:
    """Pairs of rows: each repeat of the same bytes with its first row (`exact`), and different images with
    thumbnails correlated at `correlation` or more, also when one is mirrored (`near`).

    Near ones are all that there are, wherever their rows stand, but for a chance of one in a million each (`alike`).
    Memory: about 600 bytes for each different image.
    """
    _, first_positions, code = np.unique(faces.image_code[rows], return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first_positions[code] != np.arange(len(rows)))
    repeats = zip(rows[first_positions[code[repeated]]], rows[repeated], strict=True)
    exact = [_pair(faces, row, other_row, "exact", 1.0) for row, other_row in repeats]
    del first_positions, code, repeated, repeats
    distinct = faces.first_of_each_image(rows)
    thumbnails = shrink(
        (decode_pixels(item["image"]["bytes"]) for item in faces.rows(distinct, ["image"])), len(distinct)
    )
    near = near_duplicate_pairs(thumbnails, correlation, block)
    return exact + [_pair(faces, distinct[i], distinct[j], "near", value) for i, j, value in near]


def _pair(faces: ManifestRows, row: int, other_row: int, kind: str, correlation: float) -> dict[str, Any]:
    return {
        "image_id": faces.image_id[faces.image_code[row]].as_py(),
        "other_image_id": faces.image_id[faces.image_code[other_row]].as_py(),
        "identity": faces.identity[row],
        "other_identity": faces.identity[other_row],
        "kind": kind,
        "correlation": correlation,
    }
