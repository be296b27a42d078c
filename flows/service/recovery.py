"""Ends runs and stages that Prefect takes for alive although no process works on them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

AGAIN = "run it again: it goes on from the last checkpoint"
ALIVE = ("PENDING", "RUNNING", "CANCELLING")
PATIENCE_S = 2.0  # for the last state of a stage to reach the database


def end_runs(client: SyncPrefectClient) -> None:
    """Set every run that looks alive to Crashed, with its stages: for the one process that can have started them."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed, State

    crashed: State[None] = Crashed(message=f"the command that ran this was killed; {AGAIN}")
    alive = FlowRunFilter.model_validate(_state(*ALIVE))
    while runs := client.read_flow_runs(flow_run_filter=alive):
        for run in runs:
            client.set_flow_run_state(run.id, crashed, force=True)
    end_tasks(client, 0)


def end_lost_runs(client: SyncPrefectClient, pool: str) -> None:
    """End the runs of a work pool whose processes ended with an earlier worker.

    Pending ones are scheduled again, running ones become Crashed, cancelling ones Cancelled.
    """
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter, WorkPoolFilterName
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, Crashed, Scheduled, State

    alive = FlowRunFilter.model_validate(_state(*ALIVE))
    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    while runs := client.read_flow_runs(flow_run_filter=alive, work_pool_filter=in_pool):
        for run in runs:
            state: State[None] = Crashed(message=f"its worker was stopped or killed; {AGAIN}")
            if run.state and run.state.type == StateType.PENDING:
                state = Scheduled()
            elif run.state and run.state.type == StateType.CANCELLING:
                state = Cancelled()
            client.set_flow_run_state(run.id, state, force=True)
    end_tasks(client)


def end_tasks(client: SyncPrefectClient, patience_s: float = PATIENCE_S) -> None:
    """End the stages of runs that have ended: their last states were lost with a process or a server."""
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
    from prefect.states import Completed, Crashed, State

    alive = TaskRunFilter.model_validate(_state("RUNNING", "PENDING"))
    completed: State[None] = Completed(message="its run is completed")
    crashed: State[None] = Crashed(message="its run was stopped or killed")
    ended_by_now = {"end_time": {"before_": datetime.now(UTC)}}  # runs that end meanwhile are left to a later call
    for types, state in ((("COMPLETED",), completed), (("FAILED", "CRASHED", "CANCELLED"), crashed)):
        ended = FlowRunFilter.model_validate(_state(*types) | ended_by_now)
        deadline = time.monotonic() + patience_s
        while tasks := client.read_task_runs(flow_run_filter=ended, task_run_filter=alive):
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            for task in tasks:
                client.set_task_run_state(task.id, state, force=True)


def _state(*types: str) -> dict[str, Any]:
    return {"state": {"type": {"any_": list(types)}}}
