"""One run of a deployment, in the process that the worker starts for it: Prefect's engine with our log.

It ends when the worker ends, and its stages with it; it holds a lock by which `facegan up` sees that it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facegan.core.scratch import temporary_files
from flows.service.child_process import end_with_parent

if TYPE_CHECKING:
    from facegan.console.json_log import JsonLog
    from facegan.console.screen import Screen

WORKER = "FACEGAN_WORKER"  # the worker's process id
LOG_JSON = "FACEGAN_LOG_JSON"


@contextlib.contextmanager
def alive(home: Path) -> Iterator[None]:
    """The shared lock that every run holds while it lives."""
    with open(home / "runs.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def none_alive(home: Path) -> bool:
    """Whether no process of a run is left."""
    with open(home / "runs.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def run_log(run: str) -> Screen | JsonLog:
    """The screen or log for a run that the worker started; `run` is its id."""
    from facegan.console.json_log import JsonLog
    from facegan.console.screen import Screen

    return JsonLog(run[:8]) if os.environ.get(LOG_JSON) else Screen(run[:8])


def main() -> None:
    """Run the flow run that PREFECT__FLOW_RUN_ID names."""
    os.umask(0o077)
    end_with_parent(int(os.environ[WORKER]))
    with alive(Path(os.environ["PREFECT_HOME"])), temporary_files(Path(os.environ["FACEGAN_WORKDIR"])):
        os.dup2(2, 1)
        from flows.pipeline import pipeline
        from flows.tasks import OBSERVER

        log = run_log(os.environ["PREFECT__FLOW_RUN_ID"])
        OBSERVER.set(log)

        def ended(flow: Any, flow_run: Any, state: Any) -> None:
            log.ended(f"{flow_run.name}: {state.name}", "" if state.is_completed() else state.message or "")

        pipeline.on_completion_hooks.append(ended)
        pipeline.on_failure_hooks.append(ended)
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
