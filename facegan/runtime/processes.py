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
KEPT, WHOLE = 2**31 - 1, 2**28  # bytes: the largest that it takes; 256 MB


def keep_freed() -> None:
    """Let this process keep the memory that it frees, up to 2 GB, until it ends; arrays above 256 MB are handed back.

    Each page that the system hands out is zeroed and mapped at its first touch. Activations come and go with every
    step, so that a twentieth of a training's time goes there. Values do not change, nor does the most that is held.
    Does nothing where malloc is not that of the GNU C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, WHOLE)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)


PRELOAD = ["facegan.pipeline.preload"]


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


class ChildProcesses:
    """Functions called in processes of their own, forked from a server; leaving the context ends them all."""

    def __init__(self, runtime: Runtime) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._guard = threading.Lock()
        self._processes: set[Any] = set()
        self._stopped = False
        start_forkserver(runtime)

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill every process; who waits for one raises Stopped."""
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
        raise killed(f"the process of {title}", process)


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
