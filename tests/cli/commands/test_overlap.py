"""`facegan overlap`: the page, the lists for a recipe, and what it refuses."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from facegan.cli.main import main
from facegan.data import manifest
from facegan.data.import_faces import import_
from facegan.data.options import Prepare
from facegan.data.sources import SOURCES
from two_names import draw_two_names


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_two_names(tmp_path_factory.mktemp("two_names") / "root")


@pytest.fixture(scope="module")
def made(twice: Path) -> Path:
    import_([SOURCES.get("folder")(root=str(twice))], twice.parent / "made")
    return twice.parent / "made"


def test_the_command_shows_both_and_writes_lists_for_a_recipe(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("overlap", made, "--embedder", "pixel_embedder:pixels", "--false-alarms", 1.5, "--most", 6)
    result = invoke(*words, "--out", out)
    assert result.exit_code == 0, result.output
    assert "86 photos of 15 identities, 105 pairs" in result.stdout
    report = json.loads((out / "overlap.json").read_text())
    first = report["found"][0]
    assert {first["one"], first["other"]} == {"folder/p04", "folder/Zoe"} and first["marked"]
    assert first["photos"] == [6, 2] and first["one"] == "folder/p04" and len(report["found"]) == 6
    files = manifest.read(made, ["identity"])["identity"].to_pylist()
    assert [files[row] for row in first["rows"]] == [first["one"], first["other"]]
    page = (out / "index.html").read_text()
    assert page.count("data:image/") >= 6 * (2 + 2) and "<script" not in page and "folder/Zoe" in page
    table = list(csv.DictReader((out / "overlap.csv").read_text().splitlines()))
    assert table[0]["one"] == first["one"] and len(table) == 6
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in out.iterdir())
    assert stat.S_IMODE(out.stat().st_mode) == 0o700

    lists = yaml.safe_load((out / "overlap.yaml").read_text())
    assert [first["one"], first["other"]] in lists["prepare"]["same_people"]
    again = json.loads(json.dumps(lists)) | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(again))
    settled = invoke(*words, "--decided", tmp_path / "mine.yaml")
    both = [line for line in settled.stdout.splitlines() if "folder/Zoe" in line and "folder/p04" in line]
    assert settled.exit_code == 0 and "decided already" in settled.stdout and not both


def test_groups_that_share_a_name_are_joined() -> None:
    from facegan.cli.commands.overlap import lists

    pairs: list[tuple[str, str, bool]] = [("a", "b", True), ("c", "d", True), ("d", "a", True), ("e", "f", False)]
    rows: list[dict[str, Any]] = [{"one": one, "other": other, "marked": marked} for one, other, marked in pairs]
    decisions = yaml.safe_load(lists(rows))["prepare"]
    assert [sorted(group) for group in decisions["same_people"]] == [["a", "b", "c", "d"]]
    Prepare.model_validate(decisions)


def test_what_is_wrong_is_said(made: Path, tmp_path: Path) -> None:
    for words, message in (
        ((tmp_path / "none",), "there is no manifest"),
        ((made, "--embedder", "nothing"), "there is no embedder"),
        ((made, "--decided", tmp_path / "none.yaml"), "no recipe with lists"),
    ):
        result = invoke("overlap", *words)
        assert result.exit_code == 2 and message in result.stderr
    (tmp_path / "list.yaml").write_text("- no recipe")
    assert "no recipe" in invoke("overlap", made, "--decided", tmp_path / "list.yaml").stderr
