"""Functions in child processes, which end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from facegan.core.errors import Remote, UserError
from facegan.runtime.context import OnEvent
from facegan.runtime.devices import cores
from facegan.runtime.options import Runtime

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
MAX_THRESHOLD, LARGE_ARRAY = 2**31 - 1, 2**28  # bytes: the most that mallopt takes; 256 MB


def keep_freed() -> None:
    """Let this process keep the memory that it frees, up to 2 GB, until it ends; arrays above 256 MB are handed back.

    The system zeroes and maps each page at its first touch. Activations are allocated and freed in every step, which
    takes a twentieth of a training's time. Values do not change, nor does the peak memory.
    Does nothing where malloc is not that of the GNU C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGE_ARRAY)
        library.mallopt(M_TRIM_THRESHOLD, MAX_THRESHOLD)


PRELOAD = ["facegan.pipeline.preload"]


QUIET_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


AGAIN = "run the same command again: it goes on from the last checkpoint"


class WorkerKilled(UserError):
    """The process of a stage, or one that works for it, was ended from outside; running again may help."""


class Stopped(UserError):
    """The stage was given up because the run ends: another stage failed, or the user stopped it."""


class ChildProcesses:
    """Functions called in processes of their own, forked from a server; leaving the context ends them all."""

    def __init__(self, runtime: Runtime) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._lock = threading.Lock()
        self._processes: set[Any] = set()
        self._stopped = False
        start_forkserver(runtime)

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill every process; a pending `call` raises Stopped."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()

    def call(self, title: str, function: Callable[..., Any], arguments: tuple[Any, ...], on_event: OnEvent) -> Any:
        """`function(*arguments, on_event)` in a process; its result, or what it raised."""
        parent_end, child_end = self._context.Pipe()
        process = self._context.Process(target=_child, args=(child_end, function, arguments), name=title)
        try:
            with no_main():
                process.start()
            child_end.close()
            with self._lock:
                self._processes.add(process)
                if self._stopped:
                    process.kill()
            return self._listen(title, process, parent_end, on_event)
        finally:
            with self._lock:
                self._processes.discard(process)
            if process.pid is not None:
                if process.is_alive():
                    process.kill()
                process.join()
            parent_end.close()

    def _listen(self, title: str, process: Any, pipe: Connection, on_event: OnEvent) -> Any:
        while True:
            try:
                kind, *payload = pipe.recv()
            except (EOFError, OSError):
                break
            if kind == "event":
                on_event(payload[0])
            elif kind == "done":
                return payload[0]
            else:
                raise with_remote_traceback(*payload)
        process.join()
        if self._stopped:
            raise Stopped(f"{title} was stopped", fix=AGAIN)
        raise killed_error(f"the process of {title}", process)


def start_forkserver(runtime: Runtime) -> None:
    """Start the process that children are forked from, once; it imports torch while this returns at once."""
    from multiprocessing import forkserver

    threads = runtime.threads or max(1, cores() // (runtime.jobs or min(2, cores())))
    variables = {"OMP_NUM_THREADS": str(threads), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update({**variables, **{name: os.environ.get(name, value) for name, value in QUIET_ENVIRONMENT.items()}})
    # Inherited: Ctrl-C reaches the whole group, and only the parent handles it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with no_main():
            multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_main_lock = threading.Lock()


@contextlib.contextmanager
def no_main() -> Iterator[None]:
    """Hide the main script, which multiprocessing would otherwise run again in each child."""
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def set_up_child() -> None:
    """Set up a new process: signals are the parent's, files private, freed memory kept, output and warnings quiet."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o077)
    keep_freed()
    os.dup2(2, 1)  # standard output belongs to the command, and may be JSON
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _child(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the new process: call `function`, send its events and its result or error to the parent."""
    set_up_child()
    threading.Thread(target=exit_when_closed, args=(pipe,), daemon=True).start()
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock:
            pipe.send(message)

    try:
        send("done", function(*arguments, lambda event: send("event", event)))
    except BaseException as error:
        send("error", picklable(error), traceback.format_exc())


def exit_when_closed(pipe: Connection) -> None:
    """End this process, whatever it does, as soon as the other end of `pipe` is closed: its parent has died."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)


def killed_error(subject: str, process: Any) -> WorkerKilled:
    """The error for a process that has died, after waiting for it to end; `subject` names it in the message."""
    process.join()
    code = process.exitcode
    ending = f"was killed (signal {-code})" if code and code < 0 else f"ended by itself (exit code {code})"
    memory = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
    return WorkerKilled(f"{subject} {ending}{memory}", fix=AGAIN)


def with_remote_traceback(error: BaseException, remote_traceback: str) -> BaseException:
    """An error from another process; where it is no UserError, its traceback there becomes its cause."""
    if not isinstance(error, UserError):
        error.__cause__ = Remote(remote_traceback)
    return error


def picklable(error: BaseException) -> BaseException:
    """The error, in a form that can be sent to another process."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first_line = (str(error).splitlines() or [""])[0]
        return UserError(
            f"out of memory: {first_line or type(error).__name__}",
            fix="set a smaller batch_size or fewer runtime.jobs, then run the same command again",
        )
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
