"""What prepare does with people who stand under two names or are left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from pydantic import ValidationError
from typer.testing import CliRunner

from drawn import RUNTIME, Lab, draw_lfw, pick, tiny
from facegan.cli.main import main
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.options import Prepare
from facegan.data.suppression import SuppressionList
from facegan.pipeline import graph
from facegan.runtime.context import Context
from facegan.stages import prepare
from two_names import draw_two_names


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_two_names(tmp_path_factory.mktemp("two_names") / "root")


def run(root: Path, out: Path, **options: Any) -> dict[str, set[str]]:
    """{identity: its splits} of what prepare makes."""
    prepare.run(tiny(root, prepare=options).prepare, {}, {}, out, Context(RUNTIME))
    table = manifest.read(out, ["identity", "split"]).to_pylist()
    return {name: {r["split"] for r in table if r["identity"] == name} for name in {r["identity"] for r in table}}


def test_same_people_fall_on_one_side(twice: Path, tmp_path: Path) -> None:
    plain = run(twice, tmp_path / "plain")
    seeds = (run(twice, tmp_path / f"s{s}", split={"seed": s}) for s in range(10))
    assert any(splits["folder/p04"] != splits["folder/Zoe"] for splits in seeds)  # without it they are torn apart
    joined = run(twice, tmp_path / "joined", same_people=[["folder/p04", "folder/Zoe"]])
    assert "folder/Zoe" not in joined and len(joined) == len(plain) - 1 and len(joined["folder/p04"]) == 1
    rows = manifest.read(tmp_path / "joined", ["identity", "image.path"]).to_pylist()
    theirs = [row["path"] for row in rows if row["identity"] == "folder/p04"]
    assert len(theirs) == 8 and "Zoe/1.png" in theirs
    assert manifest.validate(tmp_path / "joined") == []


def test_who_is_left_out_is_in_the_quarantine(twice: Path, tmp_path: Path) -> None:
    splits = run(twice, tmp_path / "out", left_out=["folder/Zoe"])
    assert "folder/Zoe" not in splits and "folder/p04" in splits
    quarantined = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert {(row["identity"], row["reason"]) for row in quarantined} == {("folder/Zoe", "left out by prepare.left_out")}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["files"] == 86


def test_a_name_that_nobody_has_is_a_fault(twice: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)names 'folder/zoe'.*such as folder/Zoe"):
        run(twice, tmp_path / "out", same_people=[["folder/p04", "folder/zoe"]])
    with pytest.raises(ValidationError, match="more than once"):
        Prepare.model_validate({"same_people": [["a/b", "a/c"], ["a/c", "a/d"]]})


def test_fingerprints(twice: Path) -> None:
    """Nothing decided, or that two are different people: the same run. Merged people: another."""

    def key(**options: Any) -> str:
        return pick(graph.build(tiny(twice, prepare=options)), "prepare").key

    assert key(different_people=[["folder/p01", "folder/p02"]]) == key()
    assert "same_people" not in Prepare().model_dump() and "left_out" not in Prepare().model_dump()
    assert len({key(), key(same_people=[["folder/p04", "folder/Zoe"]]), key(left_out=["folder/Zoe"])}) == 3


def test_to_forget_one_name_is_to_forget_the_person(twice: Path, tmp_path: Path) -> None:
    """They were merged: erasing either name erases all their photos, which stay out, and the run goes on."""
    root = shutil.copytree(twice, tmp_path / "root")
    recipe = tiny(root, prepare={"same_people": [["folder/p04", "folder/Zoe"]]})
    Lab(tmp_path / "work" / "data" / "store").stage(recipe, "prepare")
    result = invoke("forget", "folder/Zoe", "--workdir", tmp_path / "work", "--yes")
    assert result.exit_code == 0 and "folder/Zoe, folder/p04: 8 photos" in result.stdout
    suppressed = SuppressionList.read(tmp_path / "work")
    assert suppressed.knows("folder/p04") and suppressed.knows("folder/Zoe")
    node = pick(graph.build(recipe, suppressed), "prepare")
    artifact = Lab(tmp_path / "work" / "data" / "store").make(node)
    assert "folder/p04" not in manifest.read(artifact.path, ["identity"])["identity"].to_pylist()


def test_the_same_person_held_for_test_by_the_source_stays_there(tmp_path: Path) -> None:
    """One name for test by LFW's View 1, one for train: merged they are test people, all their photos."""
    root = draw_lfw(tmp_path, {f"P{n}": 3 for n in range(10)})
    (tmp_path / "dev.txt").write_text("2\n" + "".join(f"P{n}\t1\t2\n" for n in (0, 1)) + "P2\t1\tP3\t1\nP4\t1\tP5\t1\n")
    recipe = tiny(root, prepare={
        "source": {"kind": "lfw", "root": str(root), "pairs": str(tmp_path / "dev.txt")},
        "split": {"train": 0.5, "val": 0.5, "test": 0.0}, "same_people": [["lfw/P0", "lfw/P9"]],
    })  # fmt: skip
    prepare.run(recipe.prepare, {}, {}, tmp_path / "out", Context(RUNTIME))
    rows = manifest.read(tmp_path / "out", ["identity", "split"]).to_pylist()
    assert [row["split"] for row in rows if row["identity"] == "lfw/P0"] == ["test"] * 6


def test_the_same_bytes_in_train_and_test_stop_at_once(twice: Path, tmp_path: Path) -> None:
    """Whatever the names; not on one side, and not once they are one person."""
    root = shutil.copytree(twice, tmp_path / "root")
    sides = run(root, tmp_path / "sides")
    one, other = (next(n for n, s in sorted(sides.items()) if s == {side}).split("/")[1] for side in ("train", "test"))
    shutil.copy(root / one / "1.png", root / other / "again.png")
    with pytest.raises(UserError, match=rf"'{one}/1.png' of folder/{one} is '{other}/again.png' of folder/{other}"):
        run(root, tmp_path / "none")
    run(root, tmp_path / "merged", same_people=[[f"folder/{one}", f"folder/{other}"]])
