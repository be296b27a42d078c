"""Stages in processes of their own, some side by side; none outlives the command that started it.

Small nets run 1.3 times faster as two one-thread processes than as one process with two threads. Children are
forked from a server that has imported the heavy modules once (seconds), so that each starts in milliseconds;
one process a stage hands its memory back when the stage ends. Importing this module imports no torch.
"""

from __future__ import annotations

import contextlib
import heapq
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from facegan import graph
from facegan.config import Runtime
from facegan.errors import Remote, UserError
from facegan.events import OnEvent, silent
from facegan.memory import keep_freed
from facegan.store import Artifact, Store

PRELOAD = ["facegan.preloaded"]
QUIET = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
AGAIN = "run the same command again: it goes on from the last checkpoint"


class WorkerKilled(UserError):
    """The process of a stage, or one that works for it, was ended from outside; trying again may help."""


class Stopped(UserError):
    """The stage was given up because the run ends: another stage failed, or the user stopped it."""


class Workers:
    """At most `runtime.jobs` stages at work, each in a process of its own; leaving the context stops all."""

    def __init__(self, runtime: Runtime, unmade: Sequence[graph.Node] = ()) -> None:
        """`unmade` are stages that are sure to work: what they ask for is tried out before the first turn."""
        self._asked, self._unmade = runtime, unmade
        self._runtime: Runtime | None = None
        self._context = multiprocessing.get_context("forkserver")
        self._lock, self._guard, self._turns = threading.Lock(), threading.Lock(), _Turns()
        self._processes: set[Any] = set()
        self._stopped = False
        start_forkserver(runtime)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def runtime(self) -> Runtime:
        """What `auto` and 0 came to on this machine; raises UserError for what is not there or does not work."""
        with self._lock:
            if self._runtime is None:
                self._runtime = self.call("start", resolve, (self._asked, self._unmade), silent)
                self._turns.open(self._runtime.jobs)
            return self._runtime

    @contextlib.contextmanager
    def turn(self, rank: int) -> Iterator[None]:
        """Wait for a place at work and hold it; of those who wait the lowest `rank` goes first."""
        self.runtime()
        with self._turns.turn(rank):
            yield

    def run(self, item: graph.Node, store: Store, inputs: list[Artifact], on_event: OnEvent = silent) -> Artifact:
        """The artifact of `item`, found or made in a process. Hold a `turn` while you call this.

        Raises what the stage raised, WorkerKilled when its process died, Stopped after `stop()`.
        """
        done = {artifact.fingerprint: artifact for artifact in inputs}
        arguments = (item, store, done, self.runtime())
        artifact: Artifact = self.call(item.title, graph.execute, arguments, on_event)
        return artifact

    def stop(self) -> None:
        """Kill every process; all who wait or work raise Stopped. Checkpoints are whole at any moment."""
        self._turns.close()
        with self._guard:
            self._stopped = True
            for process in self._processes:
                process.kill()

    def call(self, title: str, function: Callable[..., Any], arguments: tuple[Any, ...], on_event: OnEvent) -> Any:
        """`function(*arguments, on_event)` in a process; its result, or what it raised."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_child, args=(theirs, function, arguments), name=title)
        try:
            with no_main():
                process.start()
            theirs.close()
            with self._guard:
                self._processes.add(process)
                if self._stopped:
                    process.kill()
            return self._listen(title, process, ours, on_event)
        finally:
            with self._guard:
                self._processes.discard(process)
            if process.pid is not None:
                if process.is_alive():
                    process.kill()
                process.join()
            ours.close()

    def _listen(self, title: str, process: Any, ours: Connection, on_event: OnEvent) -> Any:
        while True:
            try:
                kind, *payload = ours.recv()
            except (EOFError, OSError):
                break
            if kind == "event":
                on_event(payload[0])
            elif kind == "done":
                return payload[0]
            else:
                raise told(*payload)
        process.join()
        if self._stopped:
            raise Stopped(f"{title} was stopped", fix=AGAIN)
        raise killed(f"the process of stage {title}", process)


class _Turns:
    """Who works next: a few at a time, and of those who wait the one that stands first in the graph."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free, self._closed = 0, False
        self._waiting: list[tuple[int, int]] = []

    def open(self, places: int) -> None:
        """Let `places` work side by side."""
        with self._changed:
            self._free += places
            self._changed.notify_all()

    def close(self) -> None:
        """Send away all who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @contextlib.contextmanager
    def turn(self, rank: int) -> Iterator[None]:
        """Wait for a place and hold it; raises Stopped when closed."""
        me = (rank, threading.get_ident())
        with self._changed:
            heapq.heappush(self._waiting, me)
            self._changed.wait_for(lambda: self._closed or (self._free > 0 and self._waiting[0] == me))
            self._waiting.remove(me)
            heapq.heapify(self._waiting)
            if self._closed:
                raise Stopped("the run was stopped", fix=AGAIN)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve(runtime: Runtime, unmade: Sequence[graph.Node] = (), on_event: OnEvent = silent) -> Runtime:
    """`runtime` with device, jobs and threads as they are on this machine (imports torch).

    Raises UserError where something that the stages `unmade` ask for does not work.
    """
    from facegan import ready
    from facegan.training import device_of, threads_of

    device = device_of(runtime)
    side_by_side = min(2, cores()) if device.type == "cpu" and runtime.nproc_per_node == 1 else 1
    jobs = runtime.jobs or side_by_side
    runtime = runtime.model_copy(update={"device": str(device), "jobs": jobs})
    runtime = runtime.model_copy(update={"threads": threads_of(runtime)})
    ready.try_out(unmade, runtime)
    return runtime


def start_forkserver(runtime: Runtime) -> None:
    """Start the process that children are forked from, once; it imports torch while this returns at once."""
    from multiprocessing import forkserver

    threads = runtime.threads or max(1, cores() // (runtime.jobs or min(2, cores())))
    wanted = {"OMP_NUM_THREADS": str(threads), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({**wanted, **{name: os.environ.get(name, value) for name, value in QUIET.items()}})
    # Inherited: Ctrl-C reaches the whole group, and is the parent's business.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with no_main():
            multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_main_lock = threading.Lock()


@contextlib.contextmanager
def no_main() -> Iterator[None]:
    """Hide the main script, which multiprocessing would else run again in each child."""
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def begin() -> None:
    """In a new process: leave signals to the parent, and keep files private, memory, and silence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o077)
    keep_freed()
    os.dup2(2, 1)  # standard output belongs to the command, and may be JSON
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _child(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the new process: work, tell, hand the result back."""
    begin()
    threading.Thread(target=end_with, args=(pipe,), daemon=True).start()
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock:
            pipe.send(message)

    try:
        send("done", function(*arguments, lambda event: send("event", event)))
    except BaseException as error:
        send("error", portable(error), traceback.format_exc())


def end_with(pipe: Connection) -> None:
    """End this process, whatever it does, as soon as the other end of `pipe` is gone: its parent has died."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)


def killed(said: str, process: Any) -> WorkerKilled:
    """What to tell of a process that has died, which is waited for; `said` names it."""
    process.join()
    code = process.exitcode
    how = f"was killed (signal {-code})" if code and code < 0 else f"ended by itself (exit code {code})"
    memory = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
    return WorkerKilled(f"{said} {how}{memory}", fix=AGAIN)


def told(error: BaseException, text: str) -> BaseException:
    """An error that came from another process, with its traceback there as the cause, where the user cannot mend it."""
    if not isinstance(error, UserError):
        error.__cause__ = Remote(text)
    return error


def portable(error: BaseException) -> BaseException:
    """The error, in a form that crosses the process border."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first = (str(error).splitlines() or [""])[0]
        return UserError(
            f"out of memory: {first or type(error).__name__}",
            fix="set a smaller batch_size or fewer runtime.jobs, then run the same command again",
        )
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
