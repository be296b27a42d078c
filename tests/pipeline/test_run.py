"""One planned run: what is checked before anything is computed, and who is erased while it waits."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from drawn import draw_folder, tiny
from facegan.core.errors import ConfigError, UserError
from facegan.data.suppression import SuppressionList
from facegan.pipeline import run as run_module
from facegan.pipeline.run import nodes_of, planned_run
from facegan.recipe.recipe import Recipe
from facegan.store.workdir import open_store


def test_a_run_knows_its_stages_and_which_are_unmade(recipe: Recipe, tmp_path: Path) -> None:
    with planned_run(recipe, tmp_path, "prepare", print) as planned:
        assert [node.stage for node in planned.nodes] == ["prepare"] == [node.stage for node in planned.unmade]
        assert planned.workdir == tmp_path.absolute() and planned.warning == ""
        assert [node.key for node in planned.nodes] == [node.key for node in nodes_of(recipe, tmp_path, "prepare")]


def test_what_cannot_be_is_said_before_anything_is_written(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown stage 'nonsense'"), planned_run(recipe, tmp_path, "nonsense", print):
        pass
    gone = tiny(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not there"), planned_run(gone, tmp_path, None, print):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_warning_or_an_error(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "check_room", lambda *_: "little is free")
    with planned_run(recipe, tmp_path, None, print) as planned:
        assert planned.warning == "little is free"


def test_whoever_is_erased_while_a_run_waits_takes_no_part(tmp_path: Path) -> None:
    faces, work = draw_folder(tmp_path / "faces"), tmp_path / "work"
    recipe = tiny(faces)
    before = [node.key for node in nodes_of(recipe, work, None)]
    store, waiting, planned_keys = open_store(work), threading.Event(), list[str]()

    def run() -> None:
        with planned_run(recipe, work, None, lambda text: waiting.set()) as planned:
            planned_keys.extend(node.key for node in planned.nodes)

    thread = threading.Thread(target=run)
    with store.alone():
        thread.start()
        assert waiting.wait(30), "the run says that it waits"
        SuppressionList.read(work).add({"folder/p00"}, work)
    thread.join(30)
    after = [node.key for node in nodes_of(recipe, work, None)]
    assert planned_keys == after != before


def test_nobody_is_erased_while_a_run_is_at_work(recipe: Recipe, tmp_path: Path) -> None:
    with planned_run(recipe, tmp_path, None, print) as planned, pytest.raises(UserError), planned.store.alone():
        pass
    with planned.store.alone():
        pass
