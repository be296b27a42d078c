"""A real Dask cluster for tests: imports little, as the scheduler imports it too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

HERE = Path(__file__).parent  # importable by workers, as the repository is


class Cluster:
    """A scheduler and its workers, each a process of its own; `tls` are options that all of them get."""

    def __init__(self, folder: Path, *tls: str) -> None:
        self.folder, self.tls = folder, tls
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, tuple[str, ...]] = {}
        file = folder / "scheduler.json"
        # Ends by itself where the tests are killed, and the workers with it.
        self._start("scheduler", "--scheduler-file", str(file), "--port", "0", "--idle-timeout", "300")
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.1)
        self.address: str = json.loads(file.read_bytes())["address"]

    def have_worker(self) -> None:
        """One worker without what facegan needs, started."""
        self._start("worker1", self.address, "--no-nanny", "--nthreads", "1", "--local-directory", str(self.folder))

    def have(self, **workers: tuple[str, ...]) -> None:
        """Exactly these workers, ready, with such options: others are killed, missing ones started."""
        for name in [name for name in self.workers if workers.get(name) != self._arguments[name]]:
            self.kill(name)
        options = ["--no-nanny", "--nthreads", "1", "--local-directory", str(self.folder), "--death-timeout", "30"]
        for name in sorted(workers.keys() - set(self.workers)):
            self._arguments[name] = workers[name]
            preload = [
                "--preload",
                "facegan.generation.shard_worker",
                "--name",
                name,
            ]  # registered when it has imported what it needs
            self._start(name, self.address, *options, *preload, *workers[name])
        with self.client() as client:
            deadline = time.monotonic() + 120
            while set(client.run_on_scheduler(state)["processing"]) != set(workers):
                assert time.monotonic() < deadline, [path.read_text() for path in self.folder.glob("*.log")]
                time.sleep(0.1)

    @property
    def workers(self) -> list[str]:
        """Names of those that live."""
        return [name for name in self.processes if name != "scheduler"]

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(30)

    def hold(self, name: str) -> None:
        """Stop a process where it is."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def release(self, name: str) -> None:
        """Let it go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill all."""
        for name in list(self.processes):
            self.kill(name)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A look into the cluster from outside."""
        with Client(self.address, set_as_default=False, timeout=30) as client:
            yield client

    def _start(self, name: str, *arguments: str) -> None:
        kind = name.rstrip("0123456789")
        command = [sys.executable, "-m", "dask", kind, "--host", "127.0.0.1", "--no-dashboard", *self.tls, *arguments]
        paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )


def state(dask_scheduler: Any = None) -> dict[str, Any]:
    """What the scheduler knows of shards: run there."""
    return {
        "tasks": sorted(dask_scheduler.tasks),
        "clients": [name for name in dask_scheduler.clients if "facegan" in name],
        "processing": {
            str(worker.name): [task.key for task in worker.processing] for worker in dask_scheduler.workers.values()
        },
    }


def keep_trying(dask_scheduler: Any = None) -> None:
    """The other way round, as it is by default."""
    dask_scheduler.allowed_failures = 3


def give_up_at_once(dask_scheduler: Any = None) -> None:
    """A task whose worker dies is not tried again: run on the scheduler."""
    dask_scheduler.allowed_failures = 0
