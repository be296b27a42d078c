"""`facegan import` and `facegan export` from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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


def test_who_would_be_whom_is_shown_before_anything_is_run(faces: Path, tmp_path: Path) -> None:
    root = shutil.copytree(faces, tmp_path / "root")
    for old, new in (("p00", "007"), ("p01", "7"), ("p02", "Ann"), ("p03", "ann"), ("p04", "-1")):
        (root / old).rename(root / new)
    (root / "read-me.txt").touch()
    (root / "linked").symlink_to(faces)
    before = sorted(tmp_path.rglob("*"))
    shown = invoke("inspect", root)
    assert shown.exit_code == 0 and sorted(tmp_path.rglob("*")) == before
    for words in (
        "35 images of 7 people",
        "people: 8 folders",
        "1 link that leads out of it (linked)",
        "1 loose file beside the people's folders (read-me.txt)",
        "2 names are spelled alike, but for zeros in front or capitals: folder/007 = folder/7, folder/Ann = folder/ann",
        "5 x cannot be read: its label '-1' names nobody",
        "folder/p05: 5 images, such as p05/0.png",
    ):
        assert words in shown.output, words
    answer = json.loads(invoke("inspect", root, "--json").output)
    done = invoke("import", root, "--out", tmp_path / "out")
    assert answer["images"] == len(rows(tmp_path / "out")) == 35 and answer["left_out"] and answer["identities"] == 7
    assert "spelled alike" in done.output and "left out: 1 link that leads out of it" in done.output
    assert invoke("inspect", tmp_path / "out").output.startswith("35 images of 7 people\n\nSplit")
    groups = tmp_path / "groups"
    for top in ("a", "b", "c"):
        for person in range(3):
            shutil.copytree(faces / f"p0{person}", groups / top / f"{top}{person}")
    asked = invoke("inspect", groups)
    assert asked.exit_code == 1 and "3 folders hold 9 folders" in asked.output and "--level 2" in asked.output
    assert "45 images of 9 people" in invoke("inspect", groups, "--level", 2).output


def test_links_alone_are_said(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "every").mkdir()
    for person in range(8):
        (tmp_path / "every" / f"p0{person}").symlink_to(faces / f"p0{person}")
    for word in (tmp_path / "every", f"folder:{tmp_path / 'every'}"):
        done = invoke("import", word, "--out", tmp_path / "out")
        assert done.exit_code == 1 and "left out: 8 links that lead out of it (p00, p01, p02 ...)" in done.output
        assert "cp -rL" in done.output


LOCALE = """
import os, sys
from facegan.data.sources import SOURCES
rows = [*SOURCES.get("folder")(root="root").rows(), *SOURCES.get("csv")(root="a.csv").rows()]
print(ascii([(row.identity, row.relative, len(row.read())) for row in rows]))
print(sys.getfilesystemencoding(), file=sys.stderr)
"""


def test_names_are_the_same_under_any_locale(tmp_path: Path) -> None:
    (tmp_path / "root" / "José").mkdir(parents=True)
    (tmp_path / "root" / "José" / "ñ.png").write_bytes(b"x")
    (tmp_path / "a.csv").write_text("path,person\nroot/José/ñ.png,José\n", encoding="utf-8")
    said, encodings = set(), set()
    for variables in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        env = {**os.environ, **variables}
        done = subprocess.run([sys.executable, "-c", LOCALE], cwd=tmp_path, env=env, capture_output=True, check=True)
        said.add(done.stdout)
        encodings.add(done.stderr.split()[-1])
    assert len(said) == 1 and len(encodings) == 2


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
