"""insightface's train.rec."""

from __future__ import annotations

from pathlib import Path

import pytest

import formats
from facegan.data.sources import SOURCES


def test_records_that_hold_the_magic_come_back_whole(tmp_path: Path) -> None:
    image = b"\xff\xd8" + b"ab" + formats.MAGIC + b"cd" + formats.MAGIC * 3 + b"e"
    path = tmp_path / "train.rec"
    path.write_bytes(formats.record(0, [7], image) + formats.record(2, [3, 9], image) + formats.record(0, [1.5], b"x"))
    first, second, odd = SOURCES.get("insightface-rec")(root=str(path), dataset="d").rows()
    assert first.read() == second.read() == image
    assert (first.identity, second.identity) == ("d/7", "d/3")
    with pytest.raises(OSError, match="no label that is a whole number"):
        odd.read()
