"""The registry: versions, which is current, and what a kill leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facegan.cli.main import main
from facegan.promotion.registry import HISTORY, LOOKS, Models
from kills import kill, kills_itself


def add_versions(models: Models, *texts: str) -> None:
    """A version for each text, promoted in turn."""
    with models.locked():
        for text in texts:
            version = models.add(lambda folder, version, text=text: (folder / "it").write_text(text))
            models.decide("promoted", version, "planted")


def within_lock(models: Models, work: Callable[[], object]) -> None:
    with models.locked():
        work()


def test_rollback_leads_back_step_by_step(tmp_path: Path) -> None:
    models = Models(tmp_path)
    assert models.current() is None and models.versions() == []
    add_versions(models, "a", "b", "c")
    assert models.current() == "v3" and (models.root / "current" / "it").read_text() == "c"
    assert models.root.stat().st_mode & 0o077 == 0 and models.folder("v1").stat().st_mode & 0o077 == 0
    runner = CliRunner()
    for expected in ("v2", "v1"):
        assert runner.invoke(main, ["rollback", "--workdir", str(tmp_path)]).exit_code == 0
        assert models.current() == expected
    refused = runner.invoke(main, ["rollback", "--workdir", str(tmp_path)])
    assert refused.exit_code == 2 and "no model to go back to" in refused.output and models.current() == "v1"
    assert runner.invoke(main, ["rollback", "v3", "--workdir", str(tmp_path)]).exit_code == 0
    assert [line["version"] for line in models.history()] == ["v1", "v2", "v3", "v2", "v1", "v3"]
    assert runner.invoke(main, ["rollback", "v9", "--workdir", str(tmp_path)]).exit_code == 2


def test_one_that_never_was_current_cannot_be_rolled_back_to(tmp_path: Path) -> None:
    models = Models(tmp_path)
    add_versions(models, "a")
    with models.locked():
        models.decide("refused", models.add(lambda folder, version: None), "worse")
    done = CliRunner().invoke(main, ["rollback", "v2", "--workdir", str(tmp_path)])
    assert done.exit_code == 2 and "never current" in done.output and models.current() == "v1"


def test_a_kill_leaves_the_old_model_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models(tmp_path)
    add_versions(models, "a")
    kills_itself(lambda: within_lock(models, lambda: models.add(kill)))
    assert models.current() == "v1" and models.versions() == ["v1"]
    with models.locked():
        assert models.add(lambda folder, version: (folder / "it").write_text("b") and None) == "v2"
    with monkeypatch.context() as patch:
        patch.setattr(Models, "_append", kill)
        kills_itself(lambda: within_lock(models, lambda: models.decide("promoted", "v2", "x")))
    assert models.current() == "v1" and len(models.history()) == 1
    with monkeypatch.context() as patch:
        settle, calls = Models.settle, []

        def second(self: Models) -> None:
            calls.append(1)
            settle(self) if len(calls) == 1 else kill()

        patch.setattr(Models, "settle", second)
        kills_itself(lambda: within_lock(models, lambda: models.decide("promoted", "v2", "x")))
    assert models.current() == "v1" and len(models.history()) == 2, "decided and put down, but not yet followed"
    with models.locked():
        assert models.current() == "v2"


def test_a_torn_line_is_closed_and_no_number_is_given_twice(tmp_path: Path) -> None:
    models = Models(tmp_path)
    add_versions(models, "a", "b")
    with open(models.root / HISTORY, "a") as file:
        file.write('{"at": "now", "event": "prom')
    shutil.rmtree(models.folder("v2"))
    assert models.current() is None
    add_versions(models, "c")
    assert models.current() == "v3" and [line["version"] for line in models.history()] == ["v1", "v2", "v3"]


def test_looks_are_counted_by_person(tmp_path: Path) -> None:
    models = Models(tmp_path)
    with models.locked():
        assert models.look(["d/a", "d/b"]).seen == 0
        again = models.look(["d/b", "d/c"])
    assert (again.people, again.seen, again.most) == (2, 1, 1)
    assert (models.root / LOOKS).stat().st_mode & 0o077 == 0
