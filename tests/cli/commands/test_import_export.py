"""`facegan import` and `facegan export` from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import formats
from facegan.cli.main import main
from facegan.data import manifest


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(manifest.iterate(folder))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_commands(faces: Path, tmp_path: Path) -> None:
    formats.write_csv(faces, tmp_path / "list.csv")
    result = invoke("import", faces, "orl", "--images", faces, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "takes --images" in result.output
    options = ["--images", faces, "--identity-column", "person", "--license", "CC0", "--dataset", "mine"]
    result = invoke("import", tmp_path / "list.csv", *options, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "40 images of 8 people" in result.output and "CC0 (40)" in result.output
    assert {row["identity"] for row in rows(tmp_path / "out")} == {f"mine/p{n:02d}" for n in range(8)}
    result = invoke("export", tmp_path / "out", "--format", "webdataset", "--out", tmp_path / "w")
    assert result.exit_code == 0 and "40 images as webdataset" in result.output
    result = invoke("import", tmp_path / "w", "orl", "--out", tmp_path / "both")
    assert result.exit_code == 0 and "440 images of 48 people" in result.output


def test_what_was_taken_for_what_is_said(faces: Path, tmp_path: Path) -> None:
    """Of a table of a spreadsheet on Windows, and nothing of one that is as usual."""
    table = formats.write_csv(faces, tmp_path / "list.csv")
    usual = invoke("import", table, "--images", faces, "--out", tmp_path / "usual")
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line.replace("/", "\\").replace(",", ";") for line in lines), encoding="utf-8-sig")
    other = invoke("import", table, "--images", faces, "--out", tmp_path / "other")
    for words in ("list.csv: separated by semicolons (40 images)", "backslashes in its"):
        assert words in other.output and words not in usual.output
    names = ("identity", "image_id", "source_sha256")
    both = [[{name: row[name] for name in names} for row in rows(tmp_path / out)] for out in ("usual", "other")]
    assert both[0] == both[1] and len(both[0]) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "{faces}", "{copy}", "--out", "{out}"], "equal names would become one person"),
        (["import", "{tmp}/gone", "--out", "{out}"], "there is no"),
        (["import", "{tmp}/notes.txt", "--out", "{out}"], "looks like no source"),
        (["import", "{tmp}/both", "--out", "{out}"], "looks like folder and like webdataset"),
        (["import", "{faces}", "--dataset", "synthetic", "--out", "{out}"], "people who do not exist"),
        (["export", "{faces}", "--format", "folder", "--out", "{out}"], "no manifest in"),
        (["export", "{faces}", "--format", "mxnet", "--out", "{out}"], "choose one of: folder, webdataset, parquet"),
    ],
)
def test_mistakes_are_said(faces: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    shutil.copytree(faces, tmp_path / "copy")
    (tmp_path / "notes.txt").write_text("nothing")
    shutil.copytree(faces, tmp_path / "both")
    formats.write_webdataset(faces, tmp_path / "w")
    shutil.copy(tmp_path / "w" / "shard-0.tar", tmp_path / "both")
    paths = {"faces": faces, "copy": tmp_path / "copy", "tmp": tmp_path, "out": tmp_path / "out"}
    result = invoke(*(argument.format(**paths) for argument in arguments))
    assert result.exit_code in (1, 2) and message in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_two_folders_of_the_same_people_are_joined_where_that_is_said(faces: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(faces, tmp_path / "copy")
    result = invoke("import", faces, copy, "--dataset", "mine", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "80 images of 8 people" in result.output
