"""What could not be used, and why: `quarantine.parquet` (file, identity, reason, split)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facegan.images import BadImage

SCHEMA = pa.schema([(name, pa.string()) for name in ("file", "identity", "reason", "split")])


def reason(error: BadImage | OSError) -> str:
    """Why an image cannot be used, for a person."""
    if isinstance(error, BadImage):
        return str(error)
    return f"cannot be read: {error.strerror or error}"


def by_person(row: Mapping[str, Any]) -> tuple[str, str]:
    """What rows are sorted by: (identity, file)."""
    return row["identity"], row["file"]


def write(folder: Path, rows: Sequence[Mapping[str, str | None]]) -> None:
    """Write the rows to `folder/quarantine.parquet`, sorted by identity and file; `split` is null where not given."""
    ordered = sorted(rows, key=by_person)
    pq.write_table(pa.Table.from_pylist(ordered, SCHEMA), folder / "quarantine.parquet")
