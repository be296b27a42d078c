"""CSV tables with images in base64."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from facegan.core.errors import UserError
from facegan.data.sources import SOURCES
from facegan.data.sources import csv as csv_source


def test_a_row_of_a_csv_is_read_again_where_it_lies(tmp_path: Path) -> None:
    """Quoted line breaks, other letters and empty lines before it; a table that has changed is told."""
    first, second = (base64.b64encode(b"\xff\xd8\xff" + bytes([n]) * 90).decode() for n in (1, 2))
    text = f'\ufeffname,note,image\r\n"Zoë","two\nlines\u2028or three",{first}\r\n\r\n'
    text += f'ann,,"{second[:40]}\n{second[40:]}"\r\n'
    table = tmp_path / "a.csv"
    table.write_text(text, encoding="utf-8", newline="")
    rows = list(SOURCES.get("csv")(root=str(table)).rows())
    assert [row.identity for row in rows] == ["csv/Zoë", "csv/ann"]
    assert [row.read()[3:] for row in rows] == [bytes([n]) * 90 for n in (1, 2)]
    table.write_text("name,image\n", encoding="utf-8")
    for row in rows:
        with pytest.raises(OSError, match=r"cut short|has changed"):
            row.read()


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_source, "LONGEST", 1000)
    for field, message in (
        ("A" * 2000, "a line is longer"),
        ('"' + ("A" * 90 + "\n") * 20, "field larger than field limit"),
    ):
        (tmp_path / "a.csv").write_text("name,image\nann," + field)
        with pytest.raises(UserError, match=f"cannot be read as CSV: {message}"):
            list(SOURCES.get("csv")(root=str(tmp_path / "a.csv")).rows())
