"""Stops a flow run that a command started itself when Prefect cancels it; a worker does that for its own runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

POLL_S = 2.0


@contextlib.contextmanager
def when_cancelled(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, in a thread, when the surrounding flow run is cancelled; does nothing in runs of a worker."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is not None:
        yield
        return
    ended = threading.Event()
    watching = threading.Thread(target=_poll, args=(context.flow_run.id, stop, ended), daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()


def _poll(run_id: UUID, stop: Callable[[], None], ended: threading.Event) -> None:
    """Ask the API every POLL_S seconds; errors of the server are ignored."""
    with get_client(sync_client=True) as client:
        while not ended.wait(POLL_S):
            with contextlib.suppress(Exception):
                state = client.read_flow_run(run_id).state
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    stop()
                    return
