"""A cache of prepared photos, so that of a source that has grown only the new photos are decoded.

Tables `<folder>/<sha256 of the file>.parquet` of what `prepare` made of single photos under the same options, by the
photos' content. They may be deleted at any time: what is missing is decoded again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facegan.core.digests import file_sha256
from facegan.core.files import write_atomic

FOLDER = "decoded"  # in the store
ROWS, BYTES = 500, 64_000_000  # held before they are written: a run that is killed decodes so much again
SCHEMA = pa.schema(
    [
        pa.field("photo", pa.string(), nullable=False),
        ("png", pa.binary()),
        ("landmarks", pa.list_(pa.float64())),
        ("quality", pa.float64()),
        ("several", pa.bool_()),
        ("reason", pa.string()),
        ("jpeg", pa.binary()),
    ]
)


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo as it is stored (`png`, its bytes), with `landmarks` (ten numbers in its px) and `quality` in [0, 1];
    or the `reason` why it cannot be used, with a small picture (`jpeg`) where only its face could not be.

    several: the photo showed several faces, of which one was taken.
    """

    png: bytes | None = None
    landmarks: list[float] | None = None
    quality: float | None = None
    several: bool = False
    reason: str | None = None
    jpeg: bytes | None = None


COLUMNS = tuple(field.name for field in fields(PreparedPhoto))


def photo_key(sha256: str, landmarks: Sequence[float] | None) -> str:
    """What a photo is known by: its content, and the landmarks that its source states, which may steer the crop."""
    return sha256 if landmarks is None else f"{sha256} {json.dumps(list(landmarks))}"


class PhotoCache:
    """The outcomes below `folder`, and those that are added; without a folder only the latter, until the next flush.

    A file whose sha256 is not its name is reported by `say`, deleted and not used.
    """

    def __init__(self, folder: Path | None, say: Callable[[str], None]) -> None:
        self.folder, self.hits = folder, 0
        self._new: dict[str, PreparedPhoto] = {}
        self._new_bytes = 0
        self._locations: dict[str, tuple[Path, int, int]] = {}  # file, row group, row in it
        self._open: tuple[tuple[Path, int], pa.Table] | None = None
        for path in sorted(folder.glob("*.parquet")) if folder is not None else ():
            if file_sha256(path) != path.stem:
                say(f"{path} was changed: its photos are decoded again")
                path.unlink()
                continue
            self._index(path)

    def find(self, photo: str) -> PreparedPhoto | None:
        """What became of a photo, None where that is not known; neighbours are read together."""
        if photo in self._new:
            return self._new[photo]
        if photo not in self._locations:
            return None
        path, group, number = self._locations[photo]
        if self._open is None or self._open[0] != (path, group):
            self._open = (path, group), pq.ParquetFile(path).read_row_group(group, use_threads=False)
        self.hits += 1
        row: dict[str, Any] = self._open[1].slice(number, 1).to_pylist()[0]
        return PreparedPhoto(**{name: row[name] for name in COLUMNS})

    def add(self, photo: str, outcome: PreparedPhoto) -> None:
        """Remember what became of a photo; every few hundred of them go to the disk."""
        self._new[photo] = outcome
        self._new_bytes += len(outcome.png or b"") + len(outcome.jpeg or b"")
        if len(self._new) >= ROWS or self._new_bytes >= BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added to a file of its own; raises UserError when the disk is full."""
        if self._new and self.folder is not None:
            rows = [{"photo": photo, **asdict(outcome)} for photo, outcome in self._new.items()]
            buffer = io.BytesIO()  # images are packed already
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer, compression="none")
            data = buffer.getvalue()
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self.folder / f"{hashlib.sha256(data).hexdigest()}.parquet"
            # Of this process alone: two splits of a study may write the same at the same moment.
            temporary = path.with_suffix(f".{os.getpid()}")
            write_atomic(temporary, data)
            os.replace(temporary, path)
            self._index(path)
        self._new, self._new_bytes = {}, 0

    def _index(self, path: Path) -> None:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for number, photo in enumerate(file.read_row_group(group, ["photo"])["photo"].to_pylist()):
                self._locations.setdefault(photo, (path, group, number))
