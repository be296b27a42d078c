"""New faces arrive in a watched folder: the event, the run that an automation starts, the model that comes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from drawn import draw_folder, tiny
from facegan.data.source_changes import QUIET_S
from facegan.promotion.registry import Models
from flows.service.source_watch import AUTOMATION, EVENT, POLL_S
from upkeep import Up, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
PEOPLE = 40
LONGEST_S = QUIET_S + 3 * POLL_S + 5


def recipe_file(path: Path, faces: Path) -> Path:
    """A run of seconds with people enough to judge."""
    split = {"train": 0.3, "val": 0.2, "test": 0.5, "by": "hash"}
    gates = {"not_worse_by": 1.0}  # the second model is no better, and may take the place of the first all the same
    real = {"baseline": "real+synthetic", "arm": "real"}  # drawn faces of 32 px are too alike for the leakage gate
    made = tiny(
        faces, name="faces", audit={"enforce": False}, prepare={"split": split}, promotion=gates, comparison=real
    )
    path.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    return path


def facegan(*arguments: str | Path) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "facegan", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Of the deployment `retrain`, less those that a schedule has planned, oldest first."""
    deployment = client.read_deployment_by_name("facegan/retrain").id
    found = [run for run in client.read_flow_runs() if run.deployment_id == deployment and not run.auto_scheduled]
    return sorted(found, key=lambda run: str(run.created))


def over(client: SyncPrefectClient, number: int) -> FlowRun:
    """The run of that number when it is over."""
    done = lambda: len(found := runs(client)) > number and found[number].state.is_final() and found[number]  # type: ignore[union-attr]  # noqa: E731
    return FlowRun.model_validate(wait_for(done, f"the end of run {number}"))


def events(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Of a source that has changed, oldest first."""
    asked = {"filter": {"event": {"name": [EVENT]}, "order": "ASC"}}
    return list(client.request("POST", "/events/filter", json=asked).json()["events"])


def test_new_faces_start_a_run_that_promotes_and_nothing_new_starts_none(tmp_path: Path) -> None:
    faces, workdir = draw_folder(tmp_path / "faces", people=PEOPLE, shots=3), tmp_path / "work"
    mine = recipe_file(tmp_path / "mine.yaml", faces)
    with Up(workdir) as up:
        said = facegan("deploy", mine, "--name", "retrain", "--watch", "--promote", "--workdir", workdir)
        assert said == f"facegan/retrain, which watches folder {faces}: {3 * PEOPLE} files\n"
        wait_for(lambda: f"facegan/retrain: watching folder {faces}: {3 * PEOPLE} files" in up.said(), "the watch")
        with up.client() as client:
            (automation,) = client.read_automations_by_name(AUTOMATION)
            draw_folder(faces, people=PEOPLE + 1, shots=3)  # writes the same bytes anew, and one person more
            first = over(client, 0)
            assert first.state and first.state.name == "Completed", first.state
            assert str(first.state.message).startswith("promoted: v1, ")
            assert first.created_by and first.created_by.id == automation.id
            (event,) = wait_for(lambda: events(client), "the event")
            assert event["payload"] | {"fingerprint": ""} == {"new_files": 3, "gone_files": 0, "fingerprint": ""}
            assert Models(workdir).current() == "v1" and "3 new files" in up.said()
            shown = {one.name: one.state_name for one in client.read_task_runs()}
            assert shown["promote"] == "Promoted"
            artifact = next(a for a in client.read_artifacts() if a.key == "faces-promotion")
            assert "promoted: v1" in str(artifact.description) and "| gate |" in str(artifact.data)

            draw_folder(faces, people=PEOPLE + 1, shots=3)  # touched, no more
            time.sleep(LONGEST_S)
            assert len(runs(client)) == len(events(client)) == 1

            server, watch = up.child("flows.service.server"), up.child("flows.service.source_watch")
            assert server and watch
            os.kill(watch, signal.SIGKILL)
            os.kill(server, signal.SIGKILL)
            draw_folder(faces, people=PEOPLE + 2, shots=3)
            second = over(client, 1)
            assert second.state and str(second.state.message).startswith("promoted: v2, "), second.state
            assert (
                Models(workdir).spec("v2")["lineage"]["manifest"] != Models(workdir).spec("v1")["lineage"]["manifest"]
            )
            time.sleep(2 * POLL_S)
            assert len(runs(client)) == len(events(client)) == 2
        assert f"{3 * PEOPLE + 3} of {3 * PEOPLE + 6} images had been decoded before" in up.said()
