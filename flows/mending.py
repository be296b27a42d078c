"""Runs and stages that Prefect takes for alive though nothing works on them: none stays `Running` for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PATIENCE_S = 2.0  # for what a stage said last to reach the database


def end_runs(client: SyncPrefectClient) -> None:
    """Every run that looks alive has Crashed, and its stages with it: for who alone can have started them."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed, State

    text = "The command that ran this was killed. Given again, it goes on from the last checkpoint."
    crashed: State[None] = Crashed(message=text)
    alive = FlowRunFilter.model_validate(_state("PENDING", "RUNNING", "CANCELLING"))
    while runs := client.read_flow_runs(flow_run_filter=alive):
        for run in runs:
            client.set_flow_run_state(run.id, crashed, force=True)
    end_tasks(client, 0)


def end_tasks(client: SyncPrefectClient, patience_s: float = PATIENCE_S) -> None:
    """End the stages of runs that are over: what they said last was lost with a process or a server."""
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
    from prefect.states import Completed, Crashed, State

    alive = TaskRunFilter.model_validate(_state("RUNNING", "PENDING"))
    completed: State[None] = Completed(message="its run is completed")
    crashed: State[None] = Crashed(message="its run was stopped or killed")
    until = time.monotonic() + patience_s
    for over, state in ((_state("COMPLETED"), completed), (_state("FAILED", "CRASHED", "CANCELLED"), crashed)):
        ended = FlowRunFilter.model_validate(over)
        while tasks := client.read_task_runs(flow_run_filter=ended, task_run_filter=alive):
            if time.monotonic() < until:
                time.sleep(0.2)
                continue
            for task in tasks:
                client.set_task_run_state(task.id, state, force=True)


def _state(*types: str) -> dict[str, Any]:
    return {"state": {"type": {"any_": list(types)}}}
