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

import pytest
from typer.testing import CliRunner, Result

from command_imports import imported_by
from drawn import RUNTIME
from facegan import __version__
from facegan.cli.main import main
from facegan.core.units import format_seconds
from facegan.pipeline import execute, graph, plan
from facegan.recipe.load import load
from facegan.store.local import Artifact
from facegan.store.workdir import open_store, store_of
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
    ("arguments", "message"),
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
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
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
    listing = invoke("list").stdout
    for name in ("recipes", "orl-quick", "sources", "folder", "gans", "cvae_gan", "identities", "mixture"):
        assert re.search(rf"\b{name}\b", listing)
    assert "arcface" in invoke("list", "heads").stdout
    assert "arcface" not in invoke("list", "gans").stdout


def test_list_backbones_takes_a_filter(invoke: Invoke) -> None:
    assert "resnet10t" in invoke("list", "backbones", "resnet10*").stdout.split()
    assert invoke("list", "backbones", "nosuchnet*").exit_code == 2


def states(recipe: Path, workdir: Path, *sets: str) -> dict[str, tuple[str, str]]:
    nodes = graph.upto(graph.build(load(str(recipe), sets)), "train_gan")
    return {entry.item.stage: (entry.state, entry.why) for entry in plan.plan(nodes, store_of(workdir))}


def test_plan_tells_states_and_why(prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, artifact = prepared
    assert states(recipe, workdir) == {"prepare": ("cached", "verified"), "train_gan": ("to run", "never made")}
    changed = states(recipe, workdir, "prepare.size_px=48")
    assert changed["prepare"] == ("stale", "changed: size_px 32 -> 48")
    assert changed["train_gan"] == ("to run", "follows prepare")
    part = next((artifact.path / "manifest").iterdir())
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert states(recipe, workdir)["prepare"] == ("stale", f"manifest/{part.name} was changed")


def test_what_is_trained_as_chosen_is_expected_to_be_like_a_trial(drawn_recipe: Path) -> None:
    trials = {"trials": {"plain": {}, "turned": {"augment": {"rotate_deg": 40, "flip": 0.1}}}}
    arms = json.dumps(dict.fromkeys(load(str(drawn_recipe)).arms, trials))
    nodes = graph.build(load(str(drawn_recipe), (f"arms={arms}", "seeds=[0, 1]", "trial_seeds=1")))
    chosen = next(node for node in nodes if node.as_chosen)
    tried = next(node for node in nodes if node.trial == "turned")
    longer = graph.build(load(str(drawn_recipe), ("train_recognizer.steps=99", "seeds=[1]")))
    earlier = [tried, next(node for node in longer if node.stage == "train_recognizer" and node.arm == chosen.arm)]
    records = [{"config": node.config, "flat": plan._flat(node.config)} for node in earlier]
    assert earlier[1].seed == chosen.seed != tried.seed, "the same seed does not make it more alike than its options do"
    for newest_first in (records, records[::-1]):
        record, changes = plan.nearest(chosen, newest_first)
        assert record is not None and record["config"] == tried.config and changes == []


def test_plan_sees_unfinished_work(prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, _ = prepared
    gan = graph.upto(graph.build(load(str(recipe))), "train_gan")[-1]
    work = store_of(workdir).folder("train_gan", f"{gan.key}.incomplete") / "work"
    work.mkdir(parents=True)
    (work / "checkpoint-000000000320.pt").touch()
    assert states(recipe, workdir)["train_gan"] == ("partly done", "goes on from its last checkpoint")


def test_plan_prints_and_changes_nothing(invoke: Invoke, prepared: tuple[Path, Path, Artifact]) -> None:
    recipe, workdir, artifact = prepared
    before = sorted(workdir.rglob("*"))
    result = invoke("plan", recipe, "--workdir", workdir)
    assert result.exit_code == 0
    assert artifact.fingerprint[:12] in result.stdout
    assert "33 of 34 stages to run; time left unknown" in result.stdout
    assert "GB free" in result.stdout
    assert sorted(workdir.rglob("*")) == before
    assert invoke("plan", recipe, "--workdir", workdir / "new").exit_code == 0
    assert not (workdir / "new").exists()


def test_time_to_expect_counts_stages_side_by_side(drawn_recipe: Path) -> None:
    nodes = graph.build(load(str(drawn_recipe)))
    plans = [plan.Planned(item, "to run", "", 1.0, 0) for item in nodes]
    with_one_job, with_two_jobs = plan.expected_s(plans, 1), plan.expected_s(plans, 2)
    assert with_one_job == (32.0, 0)  # the merges of the guide, the judge and the arm `real` are the same work
    assert 13 < with_two_jobs[0] < 20


def test_a_cached_run_says_so_and_answers_in_json_alone(
    invoke: Invoke, prepared: tuple[Path, Path, Artifact], tmp_path: Path
) -> None:
    recipe, workdir, artifact = prepared
    result = invoke("stage", "prepare", recipe, "--workdir", workdir, "--json", "-")
    assert result.exit_code == 0
    assert "all 1 stages are cached and verified" in result.stderr
    answer = json.loads(result.stdout)
    row = {"stage": "prepare", "arm": None, "seed": None, "key": artifact.fingerprint, "state": "cached"}
    assert answer["stages"] == [{**row, "seconds": 0.0, "path": str(artifact.path)}]
    assert (answer["recipe"], answer["report"], answer["comparison"]) == ("drawn", None, None)
    file, dead = tmp_path / "answer.json", workdir / "data" / "tmp" / "dead"
    dead.mkdir(parents=True)  # what a command left that was killed
    assert invoke("run", recipe, "--until", "prepare", "--workdir", workdir, "--json", file).exit_code == 0
    assert not dead.exists()
    assert json.loads(file.read_text()) == answer


def test_the_store_is_private(prepared: tuple[Path, Path, Artifact]) -> None:
    assert stat.S_IMODE((prepared[1] / "data" / "store").stat().st_mode) == 0o700


def test_durations_for_people() -> None:
    assert [format_seconds(s) for s in (0.04, 9.9, 9.96, 59.4, 59.6, 125, 7260)] == [
        "0.0 s", "9.9 s", "10 s", "59 s", "1 min 00 s", "2 min 05 s", "2 h 01 min",
    ]  # fmt: skip


@pytest.mark.integration
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
    output = ""
    while "train_gan: started" not in output:
        line = process.stderr.readline()
        assert line, output
        output += line
    servers = [pid for pid in children(process.pid) if pid not in group(process.pid)]
    assert servers, "the temporary server has a session of its own"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, remaining = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "the same command goes on" in remaining
    assert "Traceback" not in output + remaining
    for leader in [process.pid, *servers]:
        wait_until_gone(leader, 3)
    assert not (tmp_path / "home").exists() or not list((tmp_path / "home").rglob("*"))
    assert states(drawn_recipe, tmp_path / "work", "train_gan.kimg=500")["prepare"][0] == "cached"


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
