"""`facegan up` as an operator has it: real server, worker and runs; each part killed; all gone in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from drawn import draw_folder, tiny
from flows.service.source_watch import AUTOMATION
from flows.service.worker import ZOMBIES
from upkeep import PATIENCE_S, Up, below, left, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One on SQLite, for the tests of a file that leave it as it is."""
    with Up(tmp_path_factory.mktemp("up") / "work") as started:
        yield started


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people."""
    return draw_folder(tmp_path_factory.mktemp("faces") / "root")


def begin(client: SyncPrefectClient, recipe: dict[str, Any], **more: Any) -> FlowRun:
    """Start a run from the form."""
    deployment = client.read_deployment_by_name("facegan/recipe")
    return client.create_flow_run_from_deployment(deployment.id, parameters={"recipe": recipe, **more})


def short(faces: Path, **changes: Any) -> dict[str, Any]:
    """A run of seconds, as the form sends it."""
    return tiny(faces, audit={"enforce": False}, **changes).model_dump(mode="json", exclude_none=True)


def long(faces: Path) -> dict[str, Any]:
    """A run of minutes."""
    return short(faces, name="long", train_gan={"kimg": 200.0})


def ended(client: SyncPrefectClient, run: FlowRun, seconds: float = PATIENCE_S) -> FlowRun:
    """The run when it is over."""
    over = lambda: (found := client.read_flow_run(run.id)).state and found.state.is_final() and found  # noqa: E731
    return FlowRun.model_validate(wait_for(over, "the end of the run", seconds))


def at_work(up: Up, client: SyncPrefectClient, run: FlowRun) -> None:
    """Wait until its GAN trains."""
    running(client, run)
    folder = up.workdir / "data" / "store" / "train_gan"
    wait_for(lambda: list(folder.glob("*.incomplete/curve.jsonl")), "training")


def running(client: SyncPrefectClient, run: FlowRun) -> None:
    """Wait until it is at work."""
    wait_for(lambda: client.read_flow_run(run.id).state_name == "Running", "the start of the run")


def test_what_is_offered_and_when(up: Up) -> None:
    with up.client() as client:
        offered = {one.name: one for one in client.read_deployments()}
        assert set(offered) == {"recipe", "nightly", "retrain", "study"}
        crons = {name: [(s.schedule.cron, s.active) for s in one.schedules] for name, one in offered.items()}
        assert crons["nightly"] == [("0 2 * * *", True)] and crons["study"] == [("0 6 1 * *", False)]
        assert crons["recipe"] == []
        for name, one in offered.items():
            assert "facegan" in one.tags and one.work_pool_name == "facegan" and one.version
            assert one.global_concurrency_limit and one.global_concurrency_limit.limit == 1
            assert one.concurrency_options is not None
            kind = one.concurrency_options.collision_strategy
            assert kind == ("CANCEL_NEW" if name in ("nightly", "study") else "ENQUEUE")
        assert {one.name for one in client.read_automations()} == {ZOMBIES, AUTOMATION}
        assert client.read_work_pool("facegan").concurrency_limit == 1
        falls_due = lambda: any(run.state and run.state.is_scheduled() for run in client.read_flow_runs())  # noqa: E731
        wait_for(falls_due, "the scheduling of the nightly run")


def test_a_run_from_the_form_hands_its_report_out_and_the_next_is_cached(up: Up, faces: Path) -> None:
    with up.client() as client:
        first = ended(client, begin(client, short(faces)))
        assert first.state_name == "Completed", first.state
        latest = up.workdir / "reports" / "tiny" / "latest"
        answer = json.loads((latest / "results.json").read_bytes())
        assert (latest / "index.html").is_file() and answer["stages"][0]["state"] == "ran"
        again = ended(client, begin(client, short(faces)))
        assert again.state_name == "Completed"
    assert up.said().count("cached, verified") >= len(answer["stages"])
    line = next(line for line in up.said().splitlines() if "train_recognizer · real · seed 0: done" in line)
    assert line.split()[1] == str(first.id)[:8], "the run stands before the stage"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"comparison": {"arm": "nobody"}}, "comparison names arm 'nobody'"),
        ({"prepare": {"source": {"root": "nowhere"}}}, "nowhere' is not there"),
    ],
)
def test_a_form_that_cannot_work_fails_in_seconds(up: Up, faces: Path, change: dict[str, Any], why: str) -> None:
    recipe = short(faces)
    for stage, options in change.items():
        for name, value in options.items():
            recipe[stage][name] = {**recipe[stage][name], **value} if isinstance(value, dict) else value
    with up.client() as client:
        run = ended(client, begin(client, recipe), 60)
    assert run.state and run.state.is_failed() and why in str(run.state.message)
    assert run.total_run_time.total_seconds() < 10


def test_facegan_run_shows_on_the_server_that_is_up_and_a_second_up_says_where_it_is(up: Up, faces: Path) -> None:
    recipe = up.workdir.parent / "own.json"
    recipe.write_text(json.dumps({**short(faces), "name": "by-hand"}))
    whole = [sys.executable, "-m", "facegan"]
    done = subprocess.run(
        [*whole, "run", str(recipe), "--until", "prepare", "--workdir", str(up.workdir), "--log-json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "stage", "arm", "seed", "event", "text"} <= set(lines[-1])
    assert any(line["stage"] == "prepare" for line in lines)
    with up.client() as client:
        assert "by-hand" in [run.name for run in client.read_flow_runs()]
    second = subprocess.run([*whole, "up", "--workdir", str(up.workdir)], capture_output=True, text=True, timeout=60)
    page = json.loads(up.note.read_bytes())["page"]
    assert (second.returncode, second.stdout) == (0, f"already up: {page}\n")


def test_everything_is_private(up: Up) -> None:
    home = up.workdir / "data" / "prefect"
    for path in [up.workdir / "data" / "store", home, *home.rglob("*")]:
        if path.is_relative_to(home / "ui"):
            continue  # Prefect's own page, copied with its modes; its folder lets nobody else in
        assert path.lstat().st_mode & 0o077 == 0 or path.is_symlink(), path


def test_no_web_page_of_another_name_is_let_in(up: Up) -> None:
    api = json.loads(up.note.read_bytes())["api"]
    asked = urllib.request.Request(f"{api}/health", headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(asked, timeout=20)
    start = urllib.request.Request(f"{api}/flows/filter", data=b"{}", headers={"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="403"):  # no CSRF token
        urllib.request.urlopen(start, timeout=20)
    page = urllib.request.Request(f"{api}/health", headers={"Origin": "http://other.example"})
    assert "Access-Control-Allow-Origin" not in urllib.request.urlopen(page, timeout=20).headers


def test_cancel_and_kill_9_of_each_part_end_the_run_and_leave_no_process(tmp_path: Path, faces: Path) -> None:
    with Up(tmp_path / "work") as up, up.client() as client:
        run = begin(client, long(faces))
        at_work(up, client, run)
        client.set_flow_run_state(run.id, Cancelling())
        assert ended(client, run).state_name == "Cancelled"
        wait_for(lambda: up.child("flows.service.flow_run") is None, "the end of the cancelled run's process")

        run = begin(client, long(faces))
        running(client, run)
        server, worker = up.child("flows.service.server"), up.child("flows.service.worker")
        assert server and worker
        os.kill(server, signal.SIGKILL)  # the run does not mind
        wait_for(lambda: up.child("flows.service.server") not in (None, server), "another server")
        assert client.read_flow_run(run.id).state_name == "Running"
        os.kill(worker, signal.SIGKILL)
        assert ended(client, run).state_name == "Crashed"
        wait_for(lambda: up.child("flows.service.worker") not in (None, worker), "another worker")

        run = begin(client, long(faces))
        running(client, run)
        family = below(up.process.pid)
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        wait_for(lambda: not left(family), "the end of all that it had started", 30)

    with Up(tmp_path / "work") as again:
        with again.client() as client:
            assert ended(client, run).state_name == "Crashed"
            assert [one.name for one in client.read_flow_runs() if one.state and one.state.is_running()] == []
            run = begin(client, long(faces))
            at_work(again, client, run)
        family = below(again.process.pid)
        again.process.terminate()
        assert again.process.wait(timeout=60) == 0
        assert left(family) == [] and not again.note.exists()
        assert again.said().splitlines()[-1].startswith("stopped")


def test_a_password_is_asked_for_where_others_can_reach_the_server(tmp_path: Path) -> None:
    with Up(tmp_path / "work", "--host", "0.0.0.0") as up:
        file = up.workdir / "data" / "prefect" / "password"
        password = file.read_text().strip()
        assert password.startswith("facegan:") and len(password) > 30 and password not in up.said()
        assert str(file) in up.said()
        api = json.loads(up.note.read_bytes())["api"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{api}/admin/version", timeout=20)
        with up.client() as client:
            assert client.read_work_pool("facegan").type == "process"
        shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert password not in shown
