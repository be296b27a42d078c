"""The worker of `facegan up`: sets the server up, ends runs that a killed worker left, and starts runs when due."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.service.address import HEARTBEAT_S
from flows.service.child_process import GRACE_S, begin_child, log_to, send
from flows.service.flow_run import WORKER, none_alive, run_log
from flows.service.recovery import AGAIN, end_lost_runs, end_tasks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

READY = "ready"
RUNS = "FACEGAN_RUNS"  # how many flow runs may work side by side
ZOMBIES = "facegan: crash runs whose heartbeat stops"
SILENCE_S = 6 * HEARTBEAT_S  # longer than a server takes to be back


def main(handle: int) -> None:
    """In the worker's process; the environment names server, workdir and limits."""
    pipe, home = begin_child(handle), Path(os.environ["PREFECT_HOME"])
    log_to(home / "worker.log")
    try:
        _work(pipe, home, Path(os.environ["FACEGAN_WORKDIR"]))
    except Exception:
        logging.getLogger("prefect").exception("the worker of facegan up failed")
        sys.exit(1)


def _work(pipe: Connection, home: Path, workdir: Path) -> None:
    os.environ[WORKER] = str(os.getpid())
    tempfile.tempdir = str(home / "tmp")  # of this process alone: what Prefect puts there belongs in the workdir
    shutil.rmtree(tempfile.tempdir, ignore_errors=True)
    os.mkdir(tempfile.tempdir)
    deadline = time.monotonic() + GRACE_S + 2
    while not none_alive(home) and time.monotonic() < deadline:  # runs of a worker that was killed just now
        time.sleep(0.1)
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.workers.process import ProcessWorker, ProcessWorkerResult

    from flows.deployments import POOL, apply, make_pool, shipped
    from flows.service import source_watch

    with get_client(sync_client=True) as client:
        make_pool(client, workdir, int(os.environ[RUNS]))
        apply(client, shipped(), workdir, reset=False)
        watch_heartbeats(client)
        source_watch.automation(client)
        end_lost_runs(client, POOL)

    def end_lost_tasks() -> None:
        with contextlib.suppress(HTTPError), get_client(sync_client=True) as client:
            end_tasks(client)

    worker = ProcessWorker(work_pool_name=POOL, name="facegan up", create_pool_if_not_found=False)
    run_process = worker.run

    async def run(flow_run: FlowRun, *rest: Any, **more: Any) -> ProcessWorkerResult:
        """Log how a run ended that could not do so itself: cancelled, or its process killed."""
        result = await run_process(flow_run, *rest, **more)
        state = (await worker.client.read_flow_run(flow_run.id)).state
        if state and (state.is_crashed() or state.is_cancelled()):
            run_log(str(flow_run.id)).ended(f"{flow_run.name}: {state.name}", state.message or "")
        await asyncio.to_thread(end_lost_tasks)
        return result

    worker.run = run  # type: ignore[method-assign]
    send(pipe, READY)
    asyncio.run(worker.start(printer=lambda *_: None))


def watch_heartbeats(client: SyncPrefectClient) -> None:
    """The automation that turns a run whose process died unseen (of `facegan run`, say) to Crashed."""
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.states import StateType

    heartbeat = "prefect.flow-run.heartbeat"
    final_states = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    automation = AutomationCore(
        name=ZOMBIES,
        description="Made by `facegan up`.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *final_states},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},  # type: ignore[arg-type]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message=f"no sign of life for {SILENCE_S} s; {AGAIN}"),
        ],
    )
    if not client.read_automations_by_name(ZOMBIES):
        client.create_automation(automation)


if __name__ == "__main__":
    main(int(sys.argv[1]))
