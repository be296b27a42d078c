"""Watches the source of every deployment with the tag `watch`, for `facegan up`. A change becomes an event in Prefect,
and an automation starts the deployment.

This is a process beside the worker because the fingerprint of a large source takes long. Prefect keeps an event in
memory until its automations have seen it, so that one may be lost with a server; it is sent again under the same id
(a server that has it drops it) until its run exists.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facegan.core.errors import UserError
from facegan.data.source_changes import SourceChange, SourceWatch
from facegan.data.sources import SourceConfig
from facegan.recipe import form
from flows.deployments import TAG
from flows.service.child_process import begin_child, log_to
from flows.service.flow_run import run_log

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

EVENT = "facegan.source.changed"
AUTOMATION = "facegan: run what watches a source that has changed"
POLL_S = 5.0
TRIES = 12  # of the same event: a run follows within seconds, unless the automation is switched off


def main(handle: int) -> None:
    """Run in the watch's process; the environment names server and workdir."""
    begin_child(handle)
    home, workdir = Path(os.environ["PREFECT_HOME"]), Path(os.environ["FACEGAN_WORKDIR"])
    log_to(home / "watch.log")
    os.chdir(workdir)  # runs resolve relative paths there
    try:
        _watch(workdir)
    except Exception:
        logging.getLogger("prefect").exception("the watch of facegan up failed")
        sys.exit(1)


def _watch(workdir: Path) -> None:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        watcher = SourceWatcher(client, workdir, automation(client))
        while True:
            started = time.monotonic()
            try:
                watcher.round()
            except (httpx.HTTPError, PrefectHTTPStatusError) as error:  # the server is being started again
                logging.getLogger("prefect").warning("the server cannot be asked now: %s", error)
            time.sleep(max(POLL_S, 10 * (time.monotonic() - started)))  # a tenth of a core at most


def automation(client: SyncPrefectClient) -> UUID:
    """The id of the automation that starts the deployment that an event names; made if missing."""
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    if existing := client.read_automations_by_name(AUTOMATION):
        return existing[0].id
    definition = AutomationCore(
        name=AUTOMATION,
        description=f"Made by `facegan up`, which watches the source of each deployment with the tag '{TAG}'.",
        trigger=EventTrigger(
            expect={EVENT},
            match={"prefect.resource.id": ["facegan.source.*"]},  # type: ignore[arg-type]
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[RunDeployment(source="inferred")],
    )
    return client.create_automation(definition)


class SourceWatcher:
    """The watches of all deployments that have one, checked in rounds."""

    def __init__(self, client: SyncPrefectClient, workdir: Path, automation: UUID) -> None:
        self._client, self._workdir, self._automation = client, workdir, automation
        self._watches: dict[str, tuple[SourceConfig, SourceWatch]] = {}  # by the deployment's name
        self._sent: Counter[str] = Counter()  # by the change's id
        self._last_text: dict[str, str] = {}
        self._log = run_log("")

    def round(self) -> None:
        """Check each once; raises httpx.HTTPError or PrefectHTTPStatusError where the server does not answer."""
        for deployment in watched(self._client):
            try:
                watch = self._watch_of(deployment)
                change = watch.look()
            except UserError as error:
                self._say(deployment.name, " ".join(str(error).split()), "error")
                continue
            if watch.files is not None:
                self._say(deployment.name, f"watching {where(self._watches[deployment.name][0])}: {watch.files} files")
            if change is not None:
                self._announce(deployment, watch, change)

    def _watch_of(self, deployment: DeploymentResponse) -> SourceWatch:
        """The watch of a deployment's source, as its parameters are now."""
        source = source_of(deployment.parameters.get("recipe", {}))
        entry = self._watches.get(deployment.name)
        if entry is None or entry[0] != source:
            entry = self._watches[deployment.name] = source, SourceWatch(source, self._workdir, deployment.name)
        return entry[1]

    def _announce(self, deployment: DeploymentResponse, watch: SourceWatch, change: SourceChange) -> None:
        """Send the event; called each round until its run exists."""
        runs, seen_at = _runs(self._client, deployment), datetime.fromisoformat(change.at)
        run_is_due = any(run.state and (run.state.is_scheduled() or run.state.is_pending()) for run in runs)
        started_by_us = (run for run in runs if run.created_by and run.created_by.id == self._automation)
        if any(run.created and run.created > seen_at for run in started_by_us):
            watch.told()
        elif self._sent[change.id] == TRIES:
            self._log.line(f"facegan/{deployment.name}: no run followed; is the automation '{AUTOMATION}' switched on?")
            watch.told()
        elif self._sent[change.id] or not run_is_due:  # one that waits finds these files and then those of later
            if not self._sent[change.id]:
                self._log.line(f"facegan/{deployment.name}: {change}; {EVENT}")
            self._sent[change.id] += 1
            emit(self._client, deployment, self._watches[deployment.name][0], change)

    def _say(self, name: str, text: str, level: str = "info") -> None:
        """Log a line about a deployment unless it is the same as the last."""
        if self._last_text.get(name) != text:
            self._last_text[name] = text
            self._log.line(f"facegan/{name}: {text}", level)


def watched(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """The deployments with the tag that are not paused."""
    from prefect.client.schemas.filters import DeploymentFilter

    tagged = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
    return [
        deployment
        for deployment in client.read_deployments(deployment_filter=tagged, limit=200)
        if not deployment.paused
    ]


def source_of(recipe: Any) -> SourceConfig:
    """The source of the recipe in a deployment's form; raises ConfigError where it is no recipe."""
    return form.read(recipe).prepare.source


def where(source: SourceConfig) -> str:
    """A description such as `folder /srv/faces`."""
    return f"{source.kind} {getattr(source, 'root', '')}".strip()


def emit(client: SyncPrefectClient, deployment: DeploymentResponse, source: SourceConfig, change: SourceChange) -> None:
    """Send the event to the server; raises as `round`."""
    from prefect.events.schemas.events import Event

    event = Event.model_validate(
        {
            "id": change.id,
            "occurred": change.at,
            "event": EVENT,
            "resource": {
                "prefect.resource.id": f"facegan.source.{deployment.name}",
                "prefect.resource.name": where(source),
            },
            "related": [
                {
                    "prefect.resource.id": f"prefect.deployment.{deployment.id}",
                    "prefect.resource.role": "deployment",
                    "prefect.resource.name": deployment.name,
                }
            ],
            "payload": {"new_files": change.new, "gone_files": change.gone, "fingerprint": change.fingerprint},
        }
    )
    client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()


def _runs(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    """The newest runs of a deployment that have begun or are due."""
    from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.types._datetime import now

    in_deployment = DeploymentFilter.model_validate({"id": {"any_": [str(deployment.id)]}})
    due = FlowRunFilter.model_validate({"expected_start_time": {"before_": now("UTC")}})
    newest = FlowRunSort.EXPECTED_START_TIME_DESC
    return client.read_flow_runs(flow_run_filter=due, deployment_filter=in_deployment, sort=newest, limit=100)


if __name__ == "__main__":
    main(int(sys.argv[1]))
