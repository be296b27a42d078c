"""Parquet and Arrow files as one table, read a batch at a time: memory is bounded by a batch, not by a file."""

from __future__ import annotations

import bisect
import contextlib
import errno
import itertools
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.data.sources import check_size
from facegan.data.sources._disk import entries_of

ROWS = 256
FIX = "give Parquet files, or a folder that Hugging Face datasets wrote"


class Table:
    """One file: its schema, its rows without the images, and the image of a row.

    Images are read quickly in the order of the rows; in another order too, but each step back begins a group of
    rows anew. Raises UserError for a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._broken: set[int] = set()
        self._group, self._batches, self._batch = -1, iter(()), None  # type: int, Iterator[pa.RecordBatch], Any
        self._start = self._stop = 0
        with _as_user_errors(path):
            if _is_parquet(path):
                with pq.ParquetFile(path) as file:
                    self.schema: pa.Schema = file.schema_arrow
                    counts = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            else:
                with pa.memory_map(str(path)) as file:
                    self.schema, counts = pa.ipc.open_stream(file).schema, [0]
        self._starts = [0, *itertools.accumulate(counts[:-1])] if counts else [0]

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows' values of `columns`; `image.path` is a member of a struct, under that name."""
        with _as_user_errors(self.path):
            for batch in self._read(columns):
                yield from _flat(batch, columns).to_pylist()

    def reader(self, column: str, row: int) -> partial[Any]:
        """What gives the value of `column` at `row`; it raises OSError when it cannot be read."""
        return partial(self._value, column, row)

    def _read(self, columns: list[str], group: int | None = None) -> Iterator[pa.RecordBatch]:
        if _is_parquet(self.path):
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file:
                groups = range(file.num_row_groups) if group is None else [group]
                for batch in file.iter_batches(ROWS, groups, columns, use_threads=False):
                    batch.validate(full=True)
                    yield batch
            return
        top_columns = list(dict.fromkeys(name if name in self.schema.names else name.split(".")[0] for name in columns))
        with pa.memory_map(str(self.path)) as file:
            for full_batch in pa.ipc.open_stream(file):
                batch = full_batch.select(top_columns)
                batch.validate(full=True)  # Arrow believes a file's offsets, and would read where they lead
                for start in range(0, batch.num_rows, ROWS):
                    yield batch.slice(start, ROWS)
            if file.tell() < file.size():
                raise ValueError(f"it is damaged: an end is marked at byte {file.tell()}, and more comes after")

    def _value(self, column: str, row: int) -> Any:
        with self._lock:
            try:
                value = self._scalar(column, row)
                size = _size(value)
            except (pa.ArrowException, StopIteration, OSError, ValueError, IndexError) as error:
                self._broken.add(self._group)
                reason = f"broken in the table ({type(error).__name__}: {error})"
                raise OSError(errno.EIO, " ".join(reason.split())[:300]) from error
            check_size(size)
            return value.as_py()

    def _scalar(self, column: str, row: int) -> pa.Scalar:
        group = bisect.bisect_right(self._starts, row) - 1
        if group in self._broken:
            raise ValueError("an earlier row of its group is broken")
        if group != self._group or row < self._start:
            self._group, self._batches = group, self._read([column], group)
            self._start = self._stop = self._starts[group]
        while row >= self._stop:
            self._batch = next(self._batches)
            self._start, self._stop = self._stop, self._stop + self._batch.num_rows
        return self._batch.column(0)[row - self._start]


def _size(value: pa.Scalar) -> int:
    if isinstance(value, pa.StructScalar):
        return sum(_size(value[name]) for name in value) if value.is_valid else 0
    return value.as_buffer().size if isinstance(value, pa.BinaryScalar) and value.is_valid else 0


def _flat(batch: pa.RecordBatch, columns: list[str]) -> pa.Table:
    """`columns` of a batch, members of structs by their dotted names."""
    arrays = {}
    for name in columns:
        top, _, member = (name, "", "") if name in batch.schema.names else name.partition(".")
        array = batch.column(top)
        arrays[name] = array.flatten()[array.type.get_field_index(member)] if member else array
    return pa.table(arrays)


@contextlib.contextmanager
def _as_user_errors(path: Path) -> Iterator[None]:
    """Turn what Arrow raises about a file into a UserError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"'{path}' cannot be read as a table: {reason}", fix=FIX) from error


def _is_parquet(path: Path) -> bool:
    return path.suffix != ".arrow"


def table_files(root: Path) -> list[Path]:
    """The Parquet (or else Arrow) files at or below `root`, sorted; raises UserError when there are none.

    Arrow files are those of a folder that `datasets` saved; its own cached steps are passed over. Raises UserError too
    where the folder may not be read.
    """
    if root.is_file():
        return [root]
    if root.is_dir():
        entries_of(root)
    for pattern in ("*.parquet", "*.arrow"):
        paths = [p for p in root.rglob(pattern) if p.is_file() and _is_data(p.relative_to(root))]
        if paths:
            return sorted(paths)
    raise UserError(f"no Parquet or Arrow file is at '{root}'", fix=FIX)


def _is_data(relative: Path) -> bool:
    return not (relative.name.startswith("cache-") or any(part.startswith(".") for part in relative.parts))


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names that the numbers of a column stand for (a ClassLabel of Hugging Face datasets), or None."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
