"""Photos that could be read but whose face could not be used: counted by reason, a few of each kept to look at."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from facegan.config import Prepare
from facegan.images import to_eight_bits

FILE = "rejected.parquet"
EACH = 12  # pictures of each reason
SIDE_PX = 160

SCHEMA = pa.schema([(name, pa.string()) for name in ("file", "identity", "reason")] + [("jpeg", pa.binary())])


class Rejected:
    """Collects what an alignment and the quality filter leave out; `several` counts photos with several faces."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.several = 0
        self._rows: list[dict[str, Any]] = []

    def add(self, entry: dict[str, str], picture: bytes) -> None:
        """Count a quarantined photo (`entry`: file, identity, reason); keep the `thumbnail` of the first ones."""
        self.reasons[entry["reason"]] += 1
        if self.reasons[entry["reason"]] <= EACH:
            self._rows.append({**entry, "jpeg": picture})

    def write(self, folder: Path) -> None:
        """Write `folder/rejected.parquet` (file, identity, reason, jpeg)."""
        pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), folder / FILE)

    def counts(self, usable: int) -> dict[str, int]:
        """{outcome: photos}: usable faces first, then each reason."""
        return {"usable": usable, **dict(sorted(self.reasons.items()))}

    def summary(self, options: Prepare, usable: int) -> dict[str, Any]:
        """For summary.json: the detector in words (None: not aligned), counts, photos with several faces."""
        note = options.align.detector.note() if options.align is not None else None
        return {"detector": note, "counts": self.counts(usable), "several_faces": self.several}


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of `folder/rejected.parquet`; none where prepare wrote no such file."""
    return pq.read_table(folder / FILE).to_pylist() if (folder / FILE).is_file() else []


def thumbnail(photo: Image.Image) -> bytes:
    """JPEG bytes of a photo, at most SIDE_PX wide and high."""
    small = to_eight_bits(photo, "grey" if photo.mode == "L" else "rgb")
    small.thumbnail((SIDE_PX, SIDE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
