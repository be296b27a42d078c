"""The command line: what it prints, how it exits, and that it is quick where it may be."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from command_imports import imported_by
from drawn import RUNTIME
from facegan import __version__
from facegan.cli.main import main
from facegan.console.screen import Meter
from facegan.core.units import span
from facegan.pipeline import execute, graph, plan, publish
from facegan.recipe.load import load
from facegan.reporting.summary import arms_table, sentence
from facegan.store.local import Artifact, Store
from facegan.store.workdir import open_store, store_of
from flows.tasks import RunTasks  # noqa: F401 - flows import each other without a circle
from process_groups import group, wait_until_gone

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def drawn_recipe(faces: Path, tmp_path: Path) -> Path:
    """A recipe file over the drawn faces."""
    path = tmp_path / "drawn.yaml"
    text = f"extends: orl-tiny\nprepare: {{source: {{kind: folder, root: {faces}}}}}\nruntime: {{device: cpu}}\n"
    path.write_text(text)
    return path


@pytest.fixture
def prepared(drawn_recipe: Path, tmp_path: Path) -> tuple[Path, Path, Artifact]:
    """The recipe, a working directory in which its first stage has run, and what that stage made."""
    item = graph.build(load(str(drawn_recipe)))[0]
    workdir = tmp_path / "work"
    return drawn_recipe, workdir, execute.execute(item, open_store(workdir), {}, RUNTIME)


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["list"], ["run", "--help"]])
def test_help_and_lists_import_nothing_heavy(command: list[str]) -> None:
    assert imported_by(*command) == set()


def test_plan_and_a_cached_run_import_nothing_heavy(prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, _ = prepared
    assert imported_by("plan", recipe, "--workdir", workdir) == set()
    assert imported_by("run", recipe, "--until", "prepare", "--workdir", workdir) == set()


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"facegan {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "orl-quik"], "did you mean 'orl-quick'?"),
        (["run", "--set", "train_gan.kimgs=3"], "did you mean train_gan.kimg?"),
        (["run", "--set", "runtime.store=foo"], "runtime.store: got 'foo', wanted s3://bucket/prefix"),
        (["run", "--set", "runtime.engine={kind: dask, address: here}"], "got 'here', wanted tcp://HOST:PORT"),
        (["run", "--until", "trian_gan"], "unknown stage 'trian_gan'"),
        (["stage", "nothing"], "unknown stage 'nothing'"),
        (["plan", "nowhere.yaml"], "there is no recipe file 'nowhere.yaml'"),
        (["list", "gan"], "did you mean gans?"),
        (["run", "--json", "/nowhere/at/all.json"], "its folder is not there"),
        (["regenerate", "/nowhere", "abc", "--out", "x.png"], "there is no manifest '/nowhere'"),
        (["run", "--no-such-option"], "No such option"),
        (["regenerate"], "Missing argument"),
    ],
)
def test_bad_usage_exits_with_2_and_says_why(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_exits_with_1(invoke: Invoke, tmp_path: Path) -> None:
    source = f"prepare.source={{kind: folder, root: {tmp_path / 'none'}}}"
    result = invoke("run", "--set", source, "--workdir", tmp_path)
    assert result.exit_code == 1
    assert "is not there" in result.stderr
    assert "Traceback" not in result.output


def test_what_nobody_foresaw_shows_a_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegan.recipe.load.load", lambda *_: 1 / 0)
    result = invoke("plan")
    assert result.exit_code == 1
    assert "please report it" in result.stderr
    assert "ZeroDivisionError" in result.stderr


def test_list_names_every_family_and_member(invoke: Invoke) -> None:
    said = invoke("list").stdout
    for name in ("recipes", "orl-quick", "sources", "folder", "gans", "cvae_gan", "identities", "mixture"):
        assert re.search(rf"\b{name}\b", said)
    assert "arcface" in invoke("list", "heads").stdout
    assert "arcface" not in invoke("list", "gans").stdout


def test_list_backbones_takes_a_filter(invoke: Invoke) -> None:
    assert "resnet10t" in invoke("list", "backbones", "resnet10*").stdout.split()
    assert invoke("list", "backbones", "nosuchnet*").exit_code == 2


def states(recipe: Path, workdir: Path, *sets: str) -> dict[str, tuple[str, str]]:
    nodes = graph.upto(graph.build(load(str(recipe), sets)), "train_gan")
    return {one.item.stage: (one.state, one.why) for one in plan.plan(nodes, store_of(workdir))}


def test_plan_tells_states_and_why(prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, made = prepared
    assert states(recipe, workdir) == {"prepare": ("cached", "verified"), "train_gan": ("to run", "never made")}
    changed = states(recipe, workdir, "prepare.size_px=48")
    assert changed["prepare"] == ("stale", "changed: size_px 32 -> 48")
    assert changed["train_gan"] == ("to run", "follows prepare")
    part = next((made.path / "manifest").iterdir())
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert states(recipe, workdir)["prepare"] == ("stale", f"manifest/{part.name} was changed")


def test_what_is_trained_as_chosen_is_expected_to_be_like_a_trial(drawn_recipe: Path) -> None:
    trials = {"trials": {"plain": {}, "turned": {"augment": {"rotate_deg": 40, "flip": 0.1}}}}
    whole = json.dumps(dict.fromkeys(load(str(drawn_recipe)).arms, trials))
    nodes = graph.build(load(str(drawn_recipe), (f"arms={whole}", "seeds=[0, 1]", "trial_seeds=1")))
    chosen = next(node for node in nodes if node.as_chosen)
    tried = next(node for node in nodes if node.trial == "turned")
    longer = graph.build(load(str(drawn_recipe), ("train_recognizer.steps=99", "seeds=[1]")))
    known = [tried, next(node for node in longer if node.stage == "train_recognizer" and node.arm == chosen.arm)]
    records = [{"config": node.config, "flat": plan._flat(node.config)} for node in known]
    assert known[1].seed == chosen.seed != tried.seed, "the same seed does not make it more alike than its options do"
    for newest_first in (records, records[::-1]):
        near, changes = plan.nearest(chosen, newest_first)
        assert near is not None and near["config"] == tried.config and changes == []


def test_plan_sees_unfinished_work(prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, _ = prepared
    gan = graph.upto(graph.build(load(str(recipe))), "train_gan")[-1]
    work = store_of(workdir).folder("train_gan", f"{gan.key}.incomplete") / "work"
    work.mkdir(parents=True)
    (work / "checkpoint-000000000320.pt").touch()
    assert states(recipe, workdir)["train_gan"] == ("partly done", "goes on from its last checkpoint")


def test_plan_prints_and_changes_nothing(invoke: Invoke, prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, made = prepared
    before = sorted(workdir.rglob("*"))
    result = invoke("plan", recipe, "--workdir", workdir)
    assert result.exit_code == 0
    assert made.fingerprint[:12] in result.stdout
    assert "29 of 30 stages to run; time left unknown" in result.stdout
    assert "GB free" in result.stdout
    assert sorted(workdir.rglob("*")) == before
    assert invoke("plan", recipe, "--workdir", workdir / "new").exit_code == 0
    assert not (workdir / "new").exists()


def test_time_to_expect_counts_stages_side_by_side(drawn_recipe: Path) -> None:
    nodes = graph.build(load(str(drawn_recipe)))
    plans = [plan.Planned(item, "to run", "", 1.0, 0) for item in nodes]
    one, two = plan.expected_s(plans, 1), plan.expected_s(plans, 2)
    assert one == (28.0, 0)  # the merges of the guide, the judge and the arm `real` are the same work
    assert 13 < two[0] < 20


def test_a_cached_run_says_so_and_answers_in_json_alone(
    invoke: Invoke, prepared: tuple[Path, Path, Artifact], tmp_path: Path
) -> None:
    recipe, workdir, made = prepared
    result = invoke("stage", "prepare", recipe, "--workdir", workdir, "--json", "-")
    assert result.exit_code == 0
    assert "all 1 stages are cached and verified" in result.stderr
    found = json.loads(result.stdout)
    row = {"stage": "prepare", "arm": None, "seed": None, "key": made.fingerprint, "state": "cached"}
    assert found["stages"] == [{**row, "seconds": 0.0, "path": str(made.path)}]
    assert (found["recipe"], found["report"], found["comparison"]) == ("drawn", None, None)
    file, dead = tmp_path / "answer.json", workdir / "data" / "tmp" / "dead"
    dead.mkdir(parents=True)  # what a command left that was killed
    assert invoke("run", recipe, "--until", "prepare", "--workdir", workdir, "--json", file).exit_code == 0
    assert not dead.exists()
    assert json.loads(file.read_text()) == found


def test_the_store_is_private(prepared: tuple[Path, Path, Artifact]) -> None:
    assert stat.S_IMODE((prepared[1] / "data" / "store").stat().st_mode) == 0o700


def fake_report(store: Store, key: str, delta: float) -> Artifact:
    """A report stage's outputs, as far as the command looks at them."""
    folder = store.folder("report", key)
    (folder / "figures").mkdir(parents=True)
    arm = {"eer": {"per_seed": [0.1], "mean": 0.1, "ci_low": 0.05, "ci_high": 0.2}, "none": {"mean": None}}
    results = {"recipe": "orl-tiny", "arms": {"real": arm}, "comparison": {"metric": "eer", "delta": delta}}
    files = {
        "index.html": "<html>",
        "report.md": "# Gain\n\n**It helped (a \\_lot\\_): gain.**\n",
        "figures/a.png": "png",
        "results.json": json.dumps(results),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    from facegan.core.digests import file_sha256

    outputs = {name: {"sha256": file_sha256(folder / name), "bytes": 1} for name in files}
    return Artifact("report", key, folder, "ran", 1.0, record={"outputs": outputs})


def test_the_report_is_handed_out_repaired_and_pointed_to(tmp_path: Path) -> None:
    recipe, store = load("orl-tiny"), open_store(tmp_path)
    ran: list[dict[str, Any]] = [{"stage": "report", "state": "ran"}]
    cached: list[dict[str, Any]] = [{"stage": "report", "state": "cached"}]
    one, two = fake_report(store, "a" * 64, 0.1), fake_report(store, "b" * 64, 0.2)
    page, result = publish.export(recipe, one, ran, tmp_path)
    latest = tmp_path / "reports" / "orl-tiny" / "latest"
    assert page == tmp_path / "reports" / "orl-tiny" / ("a" * 64) / "index.html"
    assert os.readlink(latest) == "a" * 64
    assert json.loads((latest / "results.json").read_text()) == result
    assert result["report"] == str(page)
    assert sentence(page.parent) == "It helped (a _lot_): gain."
    assert arms_table(result) == (["metric", "real"], [["eer", "0.100 (0.050 to 0.200)"]])

    publish.export(recipe, one, cached, tmp_path)  # a run that computed nothing keeps who ran what
    assert json.loads((latest / "results.json").read_text())["stages"] == ran
    page.write_text("changed")
    publish.export(recipe, one, cached, tmp_path)
    assert page.read_text() == "<html>"
    publish.export(recipe, two, ran, tmp_path)
    assert os.readlink(latest) == "b" * 64
    assert {p.name for p in latest.parent.iterdir()} == {"a" * 64, "b" * 64, "latest"}


def test_meter_tells_rate_and_time_left() -> None:
    from facegan.runtime.context import Event

    meter = Meter(0.0)
    assert meter.text() == ""
    meter.add(Event("progress", done=10, total=110, unit="steps", values={"x": 1.0, "loss": 2.0}), 100.0)
    meter.add(Event("progress", done=30, total=110, unit="steps", values={"loss": 1.5}), 110.0)
    assert meter.text() == "30 of 110 steps, 2 steps/s, 40 s left, loss 1.5, x 1"


def test_durations_for_people() -> None:
    assert [span(s) for s in (0.04, 9.9, 9.96, 59.4, 59.6, 125, 7260)] == [
        "0.0 s", "9.9 s", "10 s", "59 s", "1 min 00 s", "2 min 05 s", "2 h 01 min",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_sigterm_ends_a_run_and_all_that_it_started(drawn_recipe: Path, tmp_path: Path) -> None:
    """A real run with its temporary server; what was done stays done, and no word of a traceback."""
    command = [sys.executable, "-m", "facegan", "run", str(drawn_recipe), "--until", "train_gan"]
    command += ["--set", "train_gan.kimg=500", "--workdir", str(tmp_path / "work")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stderr
    seen = ""
    while "train_gan: started" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    servers = [pid for pid in children(process.pid) if pid not in group(process.pid)]
    assert servers, "the temporary server has a session of its own"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "the same command goes on" in rest
    assert "Traceback" not in seen + rest
    for leader in [process.pid, *servers]:
        wait_until_gone(leader, 3)
    assert not (tmp_path / "home").exists() or not list((tmp_path / "home").rglob("*"))
    assert states(drawn_recipe, tmp_path / "work", "train_gan.kimg=500")["prepare"][0] == "cached"


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
