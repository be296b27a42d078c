"""A flow run that is asked to cancel stops: what a worker does for its runs, for one that a command started itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

EVERY_S = 2.0


@contextlib.contextmanager
def when_cancelled(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, in a thread, when the flow run around this is asked to cancel; runs of a worker are its business."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is not None:
        yield
        return
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(context.flow_run.id, stop, over), daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()


def _watch(run_id: UUID, stop: Callable[[], None], over: threading.Event) -> None:
    """Ask the API now and then; a server that does not answer is no reason to stop."""
    with get_client(sync_client=True) as client:
        while not over.wait(EVERY_S):
            with contextlib.suppress(Exception):
                state = client.read_flow_run(run_id).state
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    stop()
                    return
