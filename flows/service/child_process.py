"""Child processes of the command: none outlives it, however it ends (kill -9 included).

A child holds one end of a pipe whose other end closes when its parent dies. Below the worker, where Prefect starts the
processes and closes all pipes, a child polls whether its parent is still the one that started it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from multiprocessing.connection import Connection
from pathlib import Path

from facegan.runtime.processes import exit_when_closed

POLL_S = 0.3
GRACE_S = 8.0  # to end after SIGTERM, which for a flow run includes telling the server


class Child:
    """`python -m module HANDLE...` that ends with this process; `handles` are open files that it inherits."""

    def __init__(self, module: str, env: dict[str, str], log: Path | None = None, handles: Sequence[int] = ()) -> None:
        self.pipe, child_end = multiprocessing.Pipe()
        handles_passed = (child_end.fileno(), *handles)
        with open(log, "ab") if log else contextlib.nullcontext() as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, handles_passed)],  # -P: no module of the current folder
                env=env,
                pass_fds=handles_passed,
                stdin=subprocess.DEVNULL,
                stdout=out if log else 2,  # standard output belongs to the command, and may be JSON
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the command, which then ends the child
            )
        child_end.close()

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def received(self) -> str | None:
        """The next message that the child sent with `send`; None when there is none (yet)."""
        with contextlib.suppress(EOFError, OSError):
            return str(self.pipe.recv_bytes(), "utf-8") if self.pipe.poll() else None
        return None

    def stop(self, patience_s: float = 3.0) -> None:
        """End it with SIGTERM, after `patience_s` with SIGKILL."""
        self.process.terminate()
        try:
            self.process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.pipe.close()


def begin_child(handle: int) -> Connection:
    """In the child: make new files private, and end with the parent. Returns the pipe for `send`."""
    os.umask(0o077)
    pipe = Connection(handle)
    threading.Thread(target=exit_when_closed, args=(pipe,), daemon=True).start()
    return pipe


def send(pipe: Connection, text: str) -> None:
    """In the child: send a message that the parent's `received` returns."""
    pipe.send_bytes(text.encode())


def end_with_parent(parent: int) -> None:
    """End this process, with SIGTERM and GRACE_S later at once, when `parent` has died and is no longer its parent."""

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=poll, daemon=True).start()


def log_to(path: Path) -> None:
    """Write Prefect's log to a file of this process, not to the screen."""
    import prefect.main  # noqa: F401 # sets up its logging, once, which takes away the handlers that are there

    handler = RotatingFileHandler(path, maxBytes=2_000_000, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    logging.getLogger("prefect").addHandler(handler)
