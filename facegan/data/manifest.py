"""The Parquet manifest: one row an image, the encoded bytes embedded, readable by Hugging Face `datasets`.

`<folder>/manifest/part-NNNNN.parquet`. Adding a column is a minor version, changing one a major; a reader
refuses a major that it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.data.latents import DERIVED_START
from facegan.store.manifest_parts import FOLDER, POINTER, RemotePart, remote_parts

SCHEMA_VERSION = "1.2"
ROWS_PER_PART = 10_000
BYTES_PER_PART = 128_000_000  # of images: what is held in memory
SPLITS = ("train", "val", "test")
HELD_OUT = "held_out"  # read as a split: the photos of train people that are kept out of every training
UNASSIGNED = "unassigned"  # the split of imported rows, until prepare decides
NEW = "synthetic/"  # how identities of people who do not exist begin: it is their dataset
EXTERNAL = f"{NEW}external/"  # of those of them who were made elsewhere
DERIVED = f"{NEW}derived/"  # of classes made from photos of train people on purpose, who claim no new person
HUGGINGFACE = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})

SCHEMA = pa.schema(
    [
        # Nullable, like `datasets`' own: else the loader takes it for another column and hands back a dict.
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string()),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("landmarks", pa.list_(pa.float32(), 10)),
        pa.field("quality", pa.float32()),
        pa.field("group", pa.string()),
        pa.field("license", pa.string()),
        pa.field("generator", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("latent", pa.string()),
        pa.field("parents", pa.list_(pa.string())),
        pa.field("parent_weights", pa.list_(pa.float32())),
        pa.field("held_out", pa.bool_()),
    ]
)
ADDED = {"parent_weights": "1.1", "held_out": "1.2"}  # columns of later minor versions: null where a manifest is older


def aliases(identity: str) -> set[str]:
    """All names under which an identity may stand: its own, and those in a source and in the manifests made of it."""
    name = identity.removeprefix(EXTERNAL)
    return {identity, name, f"{NEW}{name}"} if name != identity else {identity, EXTERNAL + identity.removeprefix(NEW)}


def row(image_bytes: bytes, path: str | None = None, **columns: Any) -> dict[str, Any]:
    """One row: `image` and `image_id` from the stored bytes, the other columns as given, null where not.

    `path` is what the image is called: of a real one its path below the source's root, by which lists of pairs name it.
    """
    image_id = hashlib.sha256(image_bytes).hexdigest()
    blank = dict.fromkeys(SCHEMA.names)
    return {**blank, "image": {"bytes": image_bytes, "path": path}, "image_id": image_id, **columns}


def write(
    folder: Path, rows: Iterable[dict[str, Any]], stage: str, inputs: dict[str, str], fingerprint: str | None = None
) -> dict[str, int]:
    """Write rows below `folder/manifest`, a part at a time; return the counts {source/split: rows}.

    The same rows give the same bytes. `stage`, `inputs` ({name: fingerprint}) and `fingerprint` (by default that
    of the stage whose folder it is) go to the schema metadata.
    """
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob("part-*.parquet"):
        stale.unlink()
    counts: Counter[str] = Counter()
    for number, chunk in enumerate(_chunks(rows)):
        part: Counter[str] = Counter(f"{r['source']}/{r['split']}" for r in chunk)
        counts.update(part)
        metadata = {
            "huggingface": HUGGINGFACE,
            "schema_version": SCHEMA_VERSION,
            "stage": stage,
            "fingerprint": folder.name.removesuffix(".incomplete") if fingerprint is None else fingerprint,
            "inputs": json.dumps(inputs, sort_keys=True),
            "counts": json.dumps(dict(sorted(part.items()))),
        }
        table = pa.Table.from_pylist(chunk, schema=SCHEMA.with_metadata(metadata))
        pq.write_table(table, target / f"part-{number:05d}.parquet", compression="zstd", row_group_size=1000)
        chunk.clear()
        del table  # else both are held until the next part is full
    return dict(sorted(counts.items()))


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Lists of at most ROWS_PER_PART rows and about BYTES_PER_PART of images; an empty one when there are no rows."""
    chunk: list[dict[str, Any]] = []
    empty, held_bytes = True, 0
    for item in rows:
        chunk.append(item)
        empty, held_bytes = False, held_bytes + len(item["image"]["bytes"])
        if len(chunk) == ROWS_PER_PART or held_bytes >= BYTES_PER_PART:
            yield chunk
            chunk, held_bytes = [], 0
    if chunk or empty:
        yield chunk


def parts(path: Path) -> list[Path | RemotePart]:
    """The part files of a stage's folder, of its `manifest` folder, or one part itself.

    A folder whose manifest lies on object storage points to it: `facegan.store.manifest_parts`.
    """
    if path.is_file():
        return [path]
    if remote := remote_parts(path):
        return list(remote)
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise UserError(f"no manifest in '{path}'", fix="give a stage's folder or its manifest/ folder")
    return list(paths)


def is_manifest(path: Path) -> bool:
    """Whether `path` is a manifest: a stage's folder, its `manifest` folder or a part; a folder may point to its own.

    Raises UserError for a file that has the name of a part and is no Parquet.
    """
    if path.is_file():
        return path.suffix == ".parquet" and _is_part(path)
    firsts = [sorted(folder.glob("part-*.parquet"))[:1] for folder in (path, path / FOLDER)]
    return (path / POINTER).is_file() or any(_is_part(part) for first in firsts for part in first)


def _is_part(path: Path) -> bool:
    try:
        return b"schema_version" in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError) as error:
        fix = "give Parquet files that are whole"
        raise UserError(f"'{path}' cannot be read as a table: {error}", fix=fix) from error


def local_parts(path: Path) -> list[Path]:
    """`parts` of a manifest on this disk; raises UserError for one on object storage."""
    all_parts = parts(path)
    local = [part for part in all_parts if isinstance(part, Path)]
    if len(local) < len(all_parts):
        fix = "copy its parts here, and give their folder"
        raise UserError(f"the manifest of '{path}' lies on object storage ({all_parts[0]} ...)", fix=fix)
    return local


def open_part(part: Path | RemotePart) -> pq.ParquetFile:
    """A part to read from. From object storage it fetches the columns of a row group together, and nothing else."""
    if isinstance(part, RemotePart):
        return pq.ParquetFile(part.open(), pre_buffer=True)
    return pq.ParquetFile(part)


def read(path: Path, columns: Sequence[str] | None = None, split: str | None = None) -> pa.Table:
    """The manifest at `path` as one table, `columns` only and of one `split` only where given.

    `split`, here and in `iterate` and `batches`: "train" has no photo that is held out, HELD_OUT has those alone.
    Raises UserError for a file that is no Parquet, lacks columns, or has a major version unknown here.
    """
    return pa.concat_tables([_read_part(part, columns, split) for part in parts(path)])


def derived(path: Path) -> Iterator[str]:
    """The identity of each row that was made from photos of train people (stage `derive`), whatever its label."""
    for batch in batches(path, ["identity", "latent"]):
        yield from batch.filter(pc.starts_with(batch["latent"], DERIVED_START))["identity"].to_pylist()


def iterate(path: Path, split: str | None = None, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows as dicts (of `columns` only, where given), a row group at a time: memory is bounded by a row group."""
    for batch in batches(path, columns, split):
        for start in range(0, batch.num_rows, 100):
            yield from batch.slice(start, 100).to_pylist()


def batches(path: Path, columns: Sequence[str] | None = None, split: str | None = None) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of `columns` (all by default), of one `split` only where given, a row group at a time.

    Raises UserError as `read` does.
    """
    for part in parts(path):
        with _as_user_errors(part):
            file = open_part(part)
            check_schema(file.schema_arrow, part)
        names = list(columns or SCHEMA.names)
        for group in range(file.num_row_groups):
            with _as_user_errors(part):
                asked = [*names, *(name for name in ("split", "held_out") if name not in names)]
                table = completed(file.read_row_group(group, asked, use_threads=False))
                table.validate(full=True)
                if split is not None:
                    table = table.filter(_in_split(split, has_held_out=True))
            yield from table.select(names).replace_schema_metadata(None).combine_chunks().to_batches()


def at(path: Path, rows: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows with the numbers `rows` (n,) int, counted from 0 over all parts, in that order; holds one row group.

    Numbers in rising order read each row group once. Raises UserError as `read` does.
    """
    files = [(part, open_part(part)) for part in parts(path)]
    groups = [(part, file, group) for part, file in files for group in range(file.num_row_groups)]
    ends = np.cumsum([file.metadata.row_group(group).num_rows for _, file, group in groups])
    group_of = np.searchsorted(ends, rows, side="right")
    for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(group_of)) + 1):
        if len(run):
            part, file, group = groups[group_of[run[0]]]
            with _as_user_errors(part):
                table = file.read_row_group(group, list(columns or SCHEMA.names), use_threads=False)
                if not set(ADDED).isdisjoint(columns or SCHEMA.names):
                    table = completed(table).select(list(columns or SCHEMA.names))
            rows_in_group = rows[run] - (ends[group_of[run[0]]] - table.num_rows)
            for start in range(0, len(rows_in_group), 100):
                yield from table.take(rows_in_group[start : start + 100]).to_pylist()


def _read_part(part: Path | RemotePart, columns: Sequence[str] | None, split: str | None) -> pa.Table:
    with _as_user_errors(part):
        source = part.open() if isinstance(part, RemotePart) else part
        schema = pq.read_schema(source)
        check_schema(schema, part)
        filters = _in_split(split, "held_out" in schema.names) if split is not None else None
        names = list(columns or SCHEMA.names)
        stored = [name for name in names if name not in ADDED or name in schema.names]
        table = pq.read_table(source, columns=stored, filters=filters)
        table.validate(full=True)
        if len(stored) < len(names):
            table = completed(table).select(names)
    return table.replace_schema_metadata(None)


def _in_split(split: str, has_held_out: bool) -> pc.Expression:
    """Which rows a split has: those of train without the ones that are held out, HELD_OUT of these alone."""
    of_people = pc.field("split") == ("train" if split == HELD_OUT else split)
    if split not in ("train", HELD_OUT):
        return of_people
    held_out = pc.field("held_out") if has_held_out else pc.scalar(False)
    return of_people & (held_out if split == HELD_OUT else ~held_out | held_out.is_null())


def completed(table: pa.Table) -> pa.Table:
    """The table with the columns of later minor versions that it lacks, null."""
    for name in ADDED.keys() - set(table.column_names):
        table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table


@contextmanager
def _as_user_errors(part: Path | RemotePart) -> Iterator[None]:
    """Turn what pyarrow raises about a part into a UserError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text that is no UTF-8
        fix = "delete the stage's folder: the next run makes it again"
        if isinstance(part, RemotePart):  # its size and ETag are those of the record: a lookup finds nothing wrong
            fix = f"delete {part.record}: the next run makes the stage again"
        raise UserError(f"the manifest part {part} cannot be read: {error}", fix=fix) from error


def check_schema(schema: pa.Schema, part: Path | RemotePart) -> None:
    """Raise UserError unless every column is there with its type and the major version is known."""
    version = (schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise UserError(
            f"{part} has schema version {version}; this facegan reads {SCHEMA_VERSION.split('.')[0]}.x",
            fix="make the manifest again with this version, or install the facegan that wrote it",
        )
    for field in SCHEMA:
        index = schema.get_field_index(field.name)
        if index < 0 and field.name in ADDED:
            continue
        if index < 0:
            raise UserError(f"{part} has no column '{field.name}'", fix="make the manifest again")
        actual = schema.field(index).type
        if not actual.equals(field.type):
            raise UserError(
                f"{part}: column '{field.name}' is {actual}, expected {field.type}", fix="make the manifest again"
            )


def validate(path: Path) -> list[str]:
    """Every fault of a manifest as a sentence: hashes, splits, sources, labels; an empty list when sound."""
    faults: list[str] = []
    split_of: dict[str, str] = {}
    pairs: set[tuple[str, int | None]] = set()
    for item in iterate(path):
        name = item["image_id"][:12]
        if hashlib.sha256(item["image"]["bytes"]).hexdigest() != item["image_id"]:
            faults.append(f"{name}: image_id is not the sha256 of the stored bytes")
        if item["split"] not in (*SPLITS, UNASSIGNED):
            faults.append(f"{name}: split is '{item['split']}'")
        if item["source"] not in ("real", "synthetic"):
            faults.append(f"{name}: source is '{item['source']}'")
        if item["source"] == "synthetic" and not (item["generator"] and item["latent"]):
            faults.append(f"{name}: synthetic without generator and latent")
        if item["held_out"] is not None and (item["split"], item["source"]) != ("train", "real"):
            faults.append(f"{name}: held_out is {item['held_out']}, of no photo of a train person")
        if split_of.setdefault(item["identity"], item["split"]) != item["split"]:
            faults.append(f"{item['identity']} stands in {split_of[item['identity']]} and in {item['split']}")
        pairs.add((item["identity"], item["label"]))
    return faults + _label_faults(pairs)


def _label_faults(pairs: set[tuple[str, int | None]]) -> list[str]:
    """What is wrong with (identity, label): all null, or one label for each identity, 0 .. n - 1."""
    labelled = [(identity, label) for identity, label in pairs if label is not None]
    if not labelled:
        return []
    faults = ["some rows have a label and some have none"] if len(labelled) < len(pairs) else []
    labels_of: dict[str, list[int]] = {}
    people_of: dict[int, list[str]] = {}
    for identity, label in sorted(labelled):
        labels_of.setdefault(identity, []).append(label)
        people_of.setdefault(label, []).append(identity)
    faults += [f"{name} has label {' and '.join(map(str, n))}" for name, n in labels_of.items() if len(n) > 1]
    faults += [f"label {n} stands for {' and '.join(names)}" for n, names in people_of.items() if len(names) > 1]
    if sorted(people_of) != list(range(len(people_of))):
        faults.append(f"labels are not dense: {len(people_of)} of them, from {min(people_of)} to {max(people_of)}")
    return faults
