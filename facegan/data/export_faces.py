"""From a manifest to what other tools read, the stored bytes as they are: `facegan export`."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facegan.core.errors import ConfigError, UserError
from facegan.core.files import new_folder, user_path
from facegan.data import manifest
from facegan.data.import_faces import STORED
from facegan.data.sources.folder import METADATA

SHARD_BYTES, SHARD_ROWS, GROUP_BYTES = 500_000_000, 10_000, 32_000_000
LONGEST_NAME_BYTES = 120
Rows = Iterator[dict[str, Any]]


def export(
    source: Path, kind: str, out: Path, progress: Callable[[int], None] = lambda _: None, *, derived: bool = False
) -> int:
    """Write the rows of a manifest to `out` in one of FORMATS; return how many.

    The images' bytes are the stored ones, and every column that a row has goes with it, so that importing the
    export gives the manifest back. Raises UserError when `out` holds something, when the manifest cannot be read, and
    when it has rows of a derived set (made from photos of train people on purpose) without `derived`.
    """
    if kind not in FORMATS:
        raise ConfigError(f"unknown format '{kind}'", fix=f"choose one of: {', '.join(FORMATS)}")
    datasets = set(manifest.read(source, ["dataset"])["dataset"].unique().to_pylist())
    if not derived and (names := list(manifest.derived(source))):
        raise UserError(
            f"'{source}' has {len(names)} images of derived sets, such as one of {names[0]}: they are made from photos "
            "of train people on purpose, and are neither photos nor new people",
            fix="export another stage's manifest, or ask for them with --derived",
        )
    count = 0

    def counted() -> Rows:
        nonlocal count
        for row in manifest.iterate(source):
            yield row
            count += 1
            progress(count)

    with new_folder(user_path(out).absolute()) as folder:
        FORMATS[kind](counted(), folder, len(datasets))
    return count


def _folder(rows: Rows, out: Path, datasets: int) -> None:
    """One directory for each identity, and metadata.jsonl: also an imagefolder of Hugging Face datasets."""
    with open(out / METADATA, "x", encoding="utf-8") as metadata:
        for row in rows:
            name = row["identity"] if datasets > 1 else row["identity"].partition("/")[2]
            folder = out / escape(name)
            folder.mkdir(exist_ok=True)
            data = row["image"]["bytes"]
            stem = escape(PurePosixPath(row["image"]["path"] or "").stem or row["image_id"][:16])
            file = _write_new(folder, stem, _suffix(row), data)
            line = {"file_name": f"{folder.name}/{file}", **_facts_of(row)}
            metadata.write(json.dumps(line, ensure_ascii=True) + "\n")


def _write_new(folder: Path, stem: str, suffix: str, data: bytes) -> str:
    """Write a file that was not there; its name is `stem`, with a number where that is taken."""
    number = 1
    while True:
        name = f"{stem}{suffix}" if number == 1 else f"{stem}~{number}{suffix}"
        try:
            with open(folder / name, "xb") as file:
                file.write(data)
            return name
        except FileExistsError:
            number += 1


def _webdataset(rows: Rows, out: Path, datasets: int) -> None:
    """Tar shards of at most 10,000 samples or about 500 MB: image, .json, and .cls where a row has a label."""
    number = shard = 0
    row = next(rows, None)
    while row is not None:
        size = count = 0
        with tarfile.open(out / f"shard-{shard:06d}.tar", "x", format=tarfile.USTAR_FORMAT) as tar:
            while row is not None and count < SHARD_ROWS and size < SHARD_BYTES:
                data = row["image"]["bytes"]
                _add(tar, f"{number:09d}{_suffix(row)}", data)
                _add(tar, f"{number:09d}.json", json.dumps(_facts_of(row), ensure_ascii=True).encode())
                if row["label"] is not None:
                    _add(tar, f"{number:09d}.cls", str(row["label"]).encode())
                number, count, size, row = number + 1, count + 1, size + len(data), next(rows, None)
        shard += 1


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _parquet(rows: Rows, out: Path, datasets: int) -> None:
    """Parquet files that Hugging Face datasets loads with pictures, with the columns of the manifest."""
    schema = manifest.SCHEMA.with_metadata({"huggingface": manifest.HUGGINGFACE})
    groups, number = _groups(rows), 0
    group = next(groups, None)
    while group:
        size = 0
        with pq.ParquetWriter(out / f"data-{number:05d}.parquet", schema, compression="zstd") as writer:
            while group and size < SHARD_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                size += sum(len(row["image"]["bytes"]) for row in group)
                group = next(groups, None)
        number += 1


def _groups(rows: Rows) -> Iterator[list[dict[str, Any]]]:
    """Lists of at most 1000 rows and about 32 MB."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"])
        if len(group) == 1000 or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


FORMATS: dict[str, Callable[[Rows, Path, int], None]] = {
    "folder": _folder,
    "webdataset": _webdataset,
    "parquet": _parquet,
}


def _facts_of(row: dict[str, Any]) -> dict[str, Any]:
    """All columns of a row but the image, and the path of the image in its source."""
    facts = {name: value for name, value in row.items() if name != "image" and value is not None}
    if "landmarks" in facts:  # NaN, a point that was not found, is no JSON
        facts["landmarks"] = [None if math.isnan(number) else number for number in facts["landmarks"]]
    return facts | ({"path": row["image"]["path"]} if row["image"]["path"] else {})


def _suffix(row: dict[str, Any]) -> str:
    return ".png" if row["image"]["bytes"].startswith(STORED[1]) else ".jpg"


def escape(name: str) -> str:
    """A name that can be that of a file anywhere: what is not [A-Za-z0-9._-] as %XX, a long one cut and hashed.

    Two names never become the same one; `..` and names that would be hidden are escaped too.
    """
    safe = "".join(c if re.fullmatch(r"[A-Za-z0-9._-]", c) else "".join(f"%{b:02X}" for b in _utf8(c)) for c in name)
    safe = re.sub(r"^\.|\.$", "%2E", safe) or "%"
    if safe.lower() == METADATA:
        safe = safe.replace(".", "%2E")
    if len(safe) > LONGEST_NAME_BYTES:
        safe = f"{safe[:100].rstrip('%.')}~{hashlib.sha256(_utf8(name)).hexdigest()[:16]}"
    return safe


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
