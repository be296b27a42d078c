"""`facegan gc`: what the last reports and promoted models were made from stays, the rest is shown and then removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from facegan.cli.main import main
from facegan.erasure import garbage
from facegan.store import looks
from facegan.store.local import Artifact, Store

OLD_S = time.time() - 30 * garbage.DAY_S


def gc(workdir: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["gc", "--workdir", str(workdir), *words])


def make(workdir: Path, stage: str, name: str, *inputs: Artifact, raw: dict[str, str] | None = None) -> Artifact:
    """A finished stage of the store, written a month ago, whose one file holds its name."""

    def work(out: Path) -> None:
        (out / "file").write_text(name)

    store = Store(workdir / "data" / "store")
    needs = {str(number): item for number, item in enumerate(inputs)}
    artifact = store.produce(stage, 1, {"name": name}, needs, raw or {}, work, dict)
    return aged(artifact)


def aged(artifact: Artifact) -> Artifact:
    for path in [*artifact.path.rglob("*"), artifact.path]:
        os.utime(path, (OLD_S, OLD_S))
    return artifact


def report(workdir: Path, recipe: str, *stages: Artifact, age: int) -> Path:
    """A report as `facegan run` hands it out: the last of `stages` is its own; `age` sorts it."""
    folder = workdir / "reports" / recipe / stages[-1].fingerprint
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"stages": [{"key": one.fingerprint} for one in stages]}))
    for path in (folder / "results.json", folder):
        os.utime(path, (OLD_S - age, OLD_S - age))
    return folder


def stage_names(workdir: Path) -> set[str]:
    """The names of the stages that are left, whole."""
    return {path.read_text() for path in (workdir / "data" / "store").glob("*/*/file")}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Artifact]:
    """Two recipes over one prepare, with three reports of the one and one of the other, and a run without a report."""
    faces = make(tmp_path, "prepare", "faces")
    artifacts = {"faces": faces}
    for number, name in enumerate(("oldest", "older", "newest")):
        artifacts[name] = make(tmp_path, "train_gan", name, faces)
        artifacts[f"{name} page"] = make(tmp_path, "report", f"{name} page", artifacts[name])
        report(tmp_path, "one", faces, artifacts[name], artifacts[f"{name} page"], age=10 - number)
    artifacts["other page"] = make(tmp_path, "report", "other page", artifacts["oldest"])
    report(tmp_path, "other", artifacts["oldest"], artifacts["other page"], age=100)
    artifacts["loose"] = make(tmp_path, "train_gan", "loose", faces)
    return artifacts


def test_it_shows_first_and_then_keeps_the_last_reports(tmp_path: Path, made: dict[str, Artifact]) -> None:
    everything = stage_names(tmp_path)
    shown = gc(tmp_path, "--keep", "1")
    assert shown.exit_code == 0 and stage_names(tmp_path) == everything and "--yes" in shown.output
    done = gc(tmp_path, "--keep", "1", "--yes")
    assert done.exit_code == 0 and "freed" in done.output
    assert stage_names(tmp_path) == {"faces", "oldest", "newest", "newest page", "other page"}
    kept = {path.name for path in (tmp_path / "reports").glob("*/*")}
    assert kept == {made["newest page"].fingerprint, made["other page"].fingerprint}
    locks = {path.stem for path in (tmp_path / "data" / "store").glob("*/*.lock")}
    assert locks == {path.name for path in (tmp_path / "data" / "store").glob("*/*") if path.is_dir()}
    assert "nothing to remove" in gc(tmp_path, "--keep", "1").output


def test_the_ledger_of_looks_stays_also_for_reports_that_go(tmp_path: Path, made: dict[str, Artifact]) -> None:
    for name in ("oldest", "newest"):
        key = made[f"{name} page"].fingerprint
        look = looks.record(tmp_path, looks.entry_of(["x"], "one", {"metric": "eer"}, key))
        looks.write_beside(tmp_path / "reports" / "one" / key, look)
    ledger = tmp_path / "data" / looks.LEDGER
    before = ledger.read_bytes()
    assert gc(tmp_path, "--keep", "1", "--yes").exit_code == 0
    assert not (tmp_path / "reports" / "one" / made["oldest page"].fingerprint).exists()
    assert ledger.read_bytes() == before
    assert looks.record(tmp_path, looks.entry_of(["x"], "one", {"metric": "eer"}, "next")).number == 3


def test_what_latest_leads_to_is_the_last(tmp_path: Path, made: dict[str, Artifact]) -> None:
    (tmp_path / "reports" / "one" / "latest").symlink_to(
        made["oldest page"].fingerprint
    )  # cached, and so not rewritten
    gc(tmp_path, "--keep", "1", "--yes")
    assert "oldest page" in stage_names(tmp_path) and "newest page" not in stage_names(tmp_path)
    assert (tmp_path / "reports" / "one" / "latest").exists()


def test_a_promoted_model_and_all_that_it_was_made_from_stay(tmp_path: Path, made: dict[str, Artifact]) -> None:
    model = tmp_path / "data" / "models" / "v1" / "model.json"
    model.parent.mkdir(parents=True)
    model.write_text(json.dumps({"lineage": {"recognizer": made["loose"].fingerprint}}))
    assert gc(tmp_path, "--keep", "1", "--yes").exit_code == 0
    assert {"loose", "faces"} <= stage_names(tmp_path) and "older" not in stage_names(tmp_path)
    model.write_bytes(b"\xff")
    before = stage_names(tmp_path)
    assert gc(tmp_path, "--keep", "1", "--yes").exit_code == 1 and stage_names(tmp_path) == before


def test_weights_that_a_kept_stage_started_from_stay(tmp_path: Path, made: dict[str, Artifact]) -> None:
    weights = made["loose"].record["outputs"]["file"]["sha256"]
    tuned = make(tmp_path, "train_recognizer", "tuned", raw={"weights": weights})
    report(tmp_path, "third", tuned, make(tmp_path, "report", "third page", tuned), age=0)
    gc(tmp_path, "--keep", "1", "--yes")
    assert {"loose", "tuned"} <= stage_names(tmp_path)


def test_young_work_without_a_report_waits_for_it(tmp_path: Path, made: dict[str, Artifact]) -> None:
    early = make(tmp_path, "prepare", "early")
    make(tmp_path, "train_gan", "new", early)
    os.utime(next(p for p in (tmp_path / "data" / "store" / "train_gan").glob("*/file") if p.read_text() == "new"))
    gc(tmp_path, "--yes")
    assert {"new", "early"} <= stage_names(tmp_path) and "loose" not in stage_names(tmp_path)
    gc(tmp_path, "--yes", "--days", "0")
    assert not {"new", "early"} & stage_names(tmp_path)


def test_checkpoints_of_a_running_stage_stay(tmp_path: Path, made: dict[str, Artifact]) -> None:
    stage = tmp_path / "data" / "store" / "train_gan"
    work, stopped = (stage / f"{letter * 64}.incomplete" / "work" for letter in "ab")
    for folder in (work, stopped):
        folder.mkdir(parents=True)
        (folder / "checkpoint").write_bytes(b"0" * 1000)
    with FileLock(stage / f"{'a' * 64}.lock"):
        done = gc(tmp_path, "--yes", "--days", "0")
    assert done.exit_code == 0, done.output
    assert work.is_dir() and not stopped.exists()


def test_nothing_goes_while_a_run_is_at_work(tmp_path: Path, made: dict[str, Artifact]) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from facegan.store.local import Store
        with Store(Path({str(tmp_path / "data" / "store")!r})).in_use():
            print("held", flush=True)
            sys.stdin.read()
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), "facegan"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout and run.stdout.readline() == "held\n"
    before = stage_names(tmp_path)
    done = gc(tmp_path, "--keep", "1", "--yes")
    assert done.exit_code == 1 and stage_names(tmp_path) == before
    if Path("/proc/locks").exists():
        assert f"(process {run.pid})" in done.output
    assert gc(tmp_path, "--keep", "1").exit_code == 0, "looking disturbs nobody"
    run.kill()  # and death gives the lock up
    run.wait()
    assert gc(tmp_path, "--keep", "1", "--yes").exit_code == 0 and stage_names(tmp_path) < before


def test_a_run_waits_for_what_erases_and_says_for_whom(tmp_path: Path) -> None:
    import threading

    store, messages, order = Store(tmp_path / "store"), [], []
    store.root.mkdir()

    def run() -> None:
        with store.in_use(messages.append):
            order.append("run")

    with store.alone():
        thread = threading.Thread(target=run)
        thread.start()
        while not messages and thread.is_alive():
            time.sleep(0.001)
        order.append("erased")
    thread.join(timeout=10)
    assert order == ["erased", "run"] and "waiting until" in messages[0]
