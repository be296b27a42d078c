"""`facegan up` in a working directory of its own, and what lives below it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.orchestration import get_client as client_of_settings
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

PATIENCE_S = 240.0  # of a machine that is busy


def wait_for(happened: Callable[[], Any], event: str, seconds: float = PATIENCE_S) -> Any:
    """The result of `happened()` as soon as it is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < deadline, f"{event} did not happen within {seconds:.0f} s"
        time.sleep(0.2)
    return result


def below(pid: int) -> dict[int, str]:
    """Every process that descends from `pid`: {pid: command line}."""
    table = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    descendants: dict[int, str] = {}
    queue = [pid]
    while queue:
        parent = queue.pop()
        children = {int(row[0]): row[2] for row in rows if int(row[1]) == parent and len(row) == 3}
        descendants |= children
        queue += children
    return descendants


def left(pids: dict[int, str]) -> list[str]:
    """Those of them that still live (a zombie does not)."""
    living = []
    for pid, command in pids.items():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            living.append(command)
    return living


class Up:
    """A `facegan up` of the tests."""

    def __init__(self, workdir: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.workdir, self.log = workdir, workdir.with_suffix(".log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
        environment |= {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # a proxy on which nobody listens
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "facegan", "up", "--workdir", str(workdir), "--port", "0", *arguments],
                env={**environment, **(env or {})},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def note(self) -> Path:
        """Where other commands find it."""
        return self.workdir / "data" / "prefect" / "address.json"

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text()

    def __enter__(self) -> Up:
        """Wait until it is up."""

        def is_up() -> bool:
            assert self.process.poll() is None, self.said()
            return "up: http" in self.said()

        try:
            wait_for(is_up, "facegan up")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        """A client with the password, where there is one."""
        address = json.loads(self.note.read_bytes())
        settings = {PREFECT_API_URL: address["api"], PREFECT_API_AUTH_STRING: address["auth"]}
        with temporary_settings(settings), client_of_settings(sync_client=True) as client:
            yield client

    def child(self, module: str) -> int | None:
        """The process id of the child that runs a module."""
        return next((pid for pid, command in below(self.process.pid).items() if module in command), None)

    def stop(self) -> None:
        """Ask it to end; whatever is left after that is killed, so that a failed test leaves nothing."""
        descendants = below(self.process.pid)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for pid in descendants:
            if left({pid: ""}):
                os.kill(pid, signal.SIGKILL)
