"""What could not be used, and why: `quarantine.parquet` (file, identity, reason, split)."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from facegan.data.images import BadImage, to_eight_bits
from facegan.data.options import Prepare

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


REJECTED = "rejected.parquet"  # photos that could be read but whose face could not be used
REJECTED_EACH = 12  # pictures of each reason
SIDE_PX = 160

REJECTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("file", "identity", "reason")] + [("jpeg", pa.binary())])


class RejectedPhotos:
    """Collects what an alignment and the quality filter leave out; `several` counts photos with several faces."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.several = 0
        self._rows: list[dict[str, Any]] = []

    def add(self, entry: dict[str, str], picture: bytes) -> None:
        """Count a quarantined photo (`entry`: file, identity, reason); keep the `thumbnail` of the first ones."""
        self.reasons[entry["reason"]] += 1
        if self.reasons[entry["reason"]] <= REJECTED_EACH:
            self._rows.append({**entry, "jpeg": picture})

    def write(self, folder: Path) -> None:
        """Write `folder/rejected.parquet` (file, identity, reason, jpeg)."""
        pq.write_table(pa.Table.from_pylist(self._rows, REJECTED_SCHEMA), folder / REJECTED)

    def counts(self, usable: int) -> dict[str, int]:
        """{outcome: photos}: usable faces first, then each reason."""
        return {"usable": usable, **dict(sorted(self.reasons.items()))}

    def summary(self, options: Prepare, usable: int) -> dict[str, Any]:
        """For summary.json: the detector in words (None: not aligned), counts, photos with several faces."""
        note = options.align.detector.note() if options.align is not None else None
        return {"detector": note, "counts": self.counts(usable), "several_faces": self.several}


def read_rejected(folder: Path) -> list[dict[str, Any]]:
    """The rows of `folder/rejected.parquet`; none where prepare wrote no such file."""
    return pq.read_table(folder / REJECTED).to_pylist() if (folder / REJECTED).is_file() else []


def thumbnail(photo: Image.Image) -> bytes:
    """JPEG bytes of a photo, at most SIDE_PX wide and high."""
    small = to_eight_bits(photo, "grey" if photo.mode == "L" else "rgb")
    small.thumbnail((SIDE_PX, SIDE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
