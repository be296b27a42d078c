"""CSV tables: images in base64, other separators, and paths as Windows writes them."""

from __future__ import annotations

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facegan.core.errors import UserError
from facegan.data.sources import SOURCES, SourceImage
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


IN_BASE64 = base64.b64encode(b"\xff\xd8\xff" + bytes(90)).decode()
ROWS = [("note", "path", "person", "license"), ("x", "ann/1.png", "Ann B", "own"), ("", IN_BASE64, "Bo", "")]


def write(
    path: Path, separator: str = ",", blanks: tuple[str, str] = ("", ""), rows: list[tuple[str, ...]] = ROWS
) -> Path:
    """A table whose cells have `blanks` before and after them; the folder has the image that it names."""
    (path.parent / "ann").mkdir(exist_ok=True)
    (path.parent / "ann" / "1.png").write_bytes(b"ann")
    path.write_text("".join(separator.join(cell.join(blanks) for cell in row) + "\n" for row in rows))
    return path


def read(path: Path, **options: str) -> list[tuple[SourceImage, bytes]]:
    return [(row, row.read()) for row in SOURCES.get("csv")(root=str(path), **options).rows()]


@pytest.mark.parametrize("blanks", [("", ""), (" ", ""), ("", "  "), (" ", " ")])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_other_separators_and_blanks_give_the_same_rows(
    tmp_path: Path, name: str, separator: str, blanks: tuple[str, str]
) -> None:
    usual = "\t" if name == "a.tsv" else ","
    plain = read(write(tmp_path / name, usual))
    assert [row.identity for row, _ in plain] == ["csv/Ann B", "csv/Bo"] and {row.remarks for row, _ in plain} == {()}
    other = read(write(tmp_path / name, separator, blanks))
    assert other == plain and [row.license for row, _ in other] == ["own", None]
    for row, _ in other:
        said = " ".join(row.remarks)
        assert ("separated by" in said) == (separator != usual) and ("blanks" in said) == any(blanks)
        assert (not said) == (separator == usual and not any(blanks))
    assert read(write(tmp_path / name, separator, blanks), image_column="path", identity_column="person") == plain
    source = SOURCES.get("csv")(root=str(tmp_path / name))
    assert list(source.rows()) and source.notes.lines() == [f"{name}: image: path, person: person"]


def test_a_table_that_was_read_stays_as_it_is(tmp_path: Path) -> None:
    """Blanks that do not hide the columns stay: a file may be called so, and the licence column is another."""
    (tmp_path / " 1.png").write_bytes(b"blank")
    (tmp_path / "a.csv").write_text("path,person, license,x;y\n 1.png,Ann,own,a;b\n")
    [(row, data)] = read(tmp_path / "a.csv")
    assert (row.relative, row.license, row.remarks, data) == (" 1.png", None, (), b"blank")


def test_a_table_with_two_readings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image;person;x\tpath\tname\n")
    with pytest.raises(UserError, match="separated by semicolons or by tabs"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(" path,path ,person ,x\n")
    with pytest.raises(UserError, match="no column whose name says that it holds the image"):
        read(tmp_path / "a.csv")


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    """Only where nothing is called so; what would lead out stays out, whoever wrote it."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    rows = [
        ("path", "person"),
        ("ann\\1.png", "Ann"),
        ("b\\1.png", "Bo"),
        ("..\\secret.png", "No"),
        ("no\\1.png", "No"),
    ]
    table = write(root / "a.csv", rows=rows)
    (root / "b").mkdir()
    (root / "b" / "1.png").write_bytes(b"other")
    (root / "b\\1.png").write_bytes(b"so called")
    pq.write_table(pa.table({"path": [r[0] for r in rows[1:]], "person": [r[1] for r in rows[1:]]}), root / "a.parquet")
    for kind, name in (("csv", "ann/1.png"), ("parquet", "ann\\1.png")):
        images = list(SOURCES.get(kind)(root=str(table.with_suffix(f".{kind}"))).rows())
        assert [row.relative for row in images] == [name, *(path for path, _ in rows[2:])]
        assert [row.read() for row in images[:2]] == [b"ann", b"so called"]
        assert [bool(row.remarks) for row in images] == [True, False, False, False]
        for row in images[2:]:
            with pytest.raises(OSError, match="No such file"):
                row.read()
