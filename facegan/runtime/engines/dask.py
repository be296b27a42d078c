"""Shards sent to the workers of a running Dask cluster (the extra `dask`).

`distributed` is imported only here, and only when a cluster is configured.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import pickle
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field, model_validator

from facegan.core.errors import Remote, UserError
from facegan.runtime.engines import ENGINES, Engine, EngineConfig, Say

CONNECT_S = 10.0
POLL_S = 2.0  # between two looks at the workers and at late shards
COPIES = 3  # of one shard, at most: the second is sent when the first is late
AGAIN = "then run the same command again: finished shards are kept"
NOISY = ("distributed", "distributed.client", "distributed.core", "distributed.comm", "distributed.batched")


@ENGINES.register
class Dask(EngineConfig):
    """The workers of a Dask cluster: `dask scheduler` and `dask worker`, started beforehand.

    All see the working directory at the same path and have the same packages. A shard whose worker dies goes to
    another one. Whoever reaches the scheduler can run programs as its user: private network, or TLS.
    """

    kind: Literal["dask"] = "dask"
    address: str = Field(
        "tcp://127.0.0.1:8786", pattern=r"^(tcp|tls)://.+:\d+$", description="tcp://HOST:PORT of the scheduler"
    )
    timeout_s: float = Field(
        900,
        gt=0,
        description="a shard that is not back by then is given to another worker too; the run ends at the third",
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="what a worker must have free for a shard, as in `dask worker --resources`"
    )
    tls_ca: str = Field("", description="certificate of the authority, PEM; with it all connections are TLS")
    tls_cert: str = Field("", description="certificate of this client, PEM")
    tls_key: str = Field("", description="its key, PEM")

    @model_validator(mode="after")
    def _hangs_together(self) -> Dask:
        tls_options = [bool(self.tls_ca), bool(self.tls_cert), bool(self.tls_key)]
        if any(tls_options) != all(tls_options):
            raise ValueError("tls_ca, tls_cert and tls_key go together: give all three or none")
        if all(tls_options) != self.address.startswith("tls://"):
            raise ValueError(f"a tls:// address needs tls_ca, tls_cert and tls_key, and they need one: {self.address}")
        return self

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec("distributed") is None:
            raise UserError(
                "runtime.engine=dask needs the package distributed, which is not installed",
                fix="pip install 'facegan[dask]'",
            )

    def try_out(self) -> None:
        """See Options: whether the scheduler answers. Workers may come later."""
        with self._connected():
            pass

    @contextmanager
    def open(self, say: Say) -> Iterator[Engine]:
        """See EngineConfig; raises UserError also where there is no worker, or `distributed` is not installed."""
        with self._connected() as client:
            cluster = _Cluster(client, self, say)
            cluster.await_workers()
            yield cluster

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A client of the scheduler."""
        self.check()
        from distributed import Client, Security

        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported below, once
        security = None
        if self.tls_ca:
            security = Security(
                require_encryption=True,
                tls_ca_file=self.tls_ca,
                tls_client_cert=self.tls_cert,
                tls_client_key=self.tls_key,
            )
        start = "start `dask scheduler` and `dask worker`, and look at runtime.engine.address (docs/develop/scaling.md)"
        try:
            client = Client(self.address, timeout=CONNECT_S, security=security, set_as_default=False, name="facegan")
        except (OSError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"no Dask scheduler answers at {self.address}: {reason}", fix=start) from error
        try:
            yield client
        finally:
            # The scheduler then drops all submitted shards: a worker ends the shard that it works on, and nobody waits.
            with contextlib.suppress(Exception):  # a scheduler that is gone
                client.close(timeout=5)


def work_on(task: bytes) -> bytes:
    """Called by a worker. `task` is pickled once more, so that the scheduler need not import what is in it.

    It comes from the stage, over the connections on which Dask itself sends pickles.
    """
    function, arguments = pickle.loads(task)
    result: bytes = function(*arguments)
    return result


class _Cluster:
    """See Engine."""

    remote = True

    def __init__(self, client: Any, config: Dask, say: Say) -> None:
        self.client, self.config, self.say = client, config, say
        self._tasks: dict[str, bytes] = {}
        self._copies: dict[str, list[Any]] = {}  # futures of the shards that were submitted
        self._deadlines: dict[str, float] = {}
        self._workers, self._counted_at = 0, -math.inf

    def await_workers(self) -> None:
        """Wait a little for a worker that can do the work."""
        deadline = time.monotonic() + CONNECT_S
        while not self._count() and time.monotonic() < deadline:
            time.sleep(0.2)
        if not self._count():
            having = f" with {self.config.resources}" if self.config.resources else ""
            raise UserError(
                f"the Dask scheduler at {self.config.address} has no worker{having}",
                fix=f"start one: dask worker {self.config.address} --nthreads 1 (docs/develop/scaling.md)",
            )

    def workers(self) -> int:
        if time.monotonic() - self._counted_at > POLL_S:
            self._count()
        return max(1, self._workers)

    def free(self) -> int:
        return 2 * self.workers() - len(self._copies)  # one to work on and one at hand

    def submit(self, name: str, work: Callable[..., bytes], *arguments: Any) -> None:
        self._tasks[name] = pickle.dumps((work, arguments))
        self._copies[name] = []
        self._send(name)

    def next(self) -> tuple[str, bytes]:
        from distributed import wait

        while True:
            for name, futures in self._copies.items():
                if finished := [future for future in futures if future.status == "finished"]:
                    return name, self._result(name, finished[0])
                if all(future.status in ("error", "cancelled") for future in futures):
                    failure = self._failure(name, futures)
                    raise failure from failure.__cause__
            for name in [name for name, deadline in self._deadlines.items() if time.monotonic() > deadline]:
                self._resend(name)
            in_flight = [future for futures in self._copies.values() for future in futures]
            pending = [future for future in in_flight if future.status == "pending"]
            # A future that was finished when its worker died is "lost" until another worker has done it again.
            if not pending:
                time.sleep(0.1)
                continue
            timeout = POLL_S if len(pending) == len(in_flight) else 0.1
            with contextlib.suppress(Exception):  # their status is looked at above
                wait(pending, timeout=timeout, return_when="FIRST_COMPLETED")

    def _count(self) -> int:
        """How many shards can be worked on at a time, as the scheduler sees it now."""
        with contextlib.suppress(Exception):  # a scheduler that is gone or hangs: the futures show it
            identity = self.client.scheduler.identity
            workers = self.client.sync(identity, n_workers=-1, callback_timeout=CONNECT_S)["workers"].values()
            resources = self.config.resources.items()
            self._workers = sum(
                all(worker.get("resources", {}).get(kind, 0) >= amount for kind, amount in resources)
                for worker in workers
            )
        self._counted_at = time.monotonic()
        return self._workers

    def _send(self, name: str) -> None:
        key = f"facegan-{name}-{uuid.uuid4().hex}"
        resources = self.config.resources or None
        self._copies[name].append(
            self.client.submit(work_on, self._tasks[name], key=key, pure=False, resources=resources)
        )
        self._deadlines[name] = time.monotonic() + self.config.timeout_s

    def _result(self, name: str, future: Any) -> bytes:
        try:
            data: bytes = future.result(timeout=self.config.timeout_s)
        except Exception as error:
            failure = self._failure(name, [future], error)
            raise failure from failure.__cause__
        del self._copies[name], self._tasks[name], self._deadlines[name]  # dropping a future releases it
        return data

    def _resend(self, name: str) -> None:
        """Send another copy of a late shard, while the first keeps its worker busy; raises UserError after COPIES."""
        seconds = f"{self.config.timeout_s:g} s"
        if not self._count():
            raise UserError(
                f"shard {name} was not begun for {seconds}: the scheduler at {self.config.address} has no worker left",
                fix=f"start workers, {AGAIN}",
            )
        if len(self._copies[name]) == COPIES:
            raise UserError(
                f"shard {name} did not come back from {COPIES} workers, for {seconds} from each",
                fix=f"look at the workers' logs, raise runtime.engine.timeout_s or lower runtime.shard_images, {AGAIN}",
            )
        self.say(f"shard {name} did not come back for {seconds}: it is given to another worker too")
        self._send(name)

    def _failure(self, name: str, futures: list[Any], error: BaseException | None = None) -> BaseException:
        """Why a shard cannot be had: a UserError where the cause is known."""
        from distributed import KilledWorker

        failed = [future for future in futures if future.status == "error"]
        if error is None and failed:
            error = failed[0].exception(timeout=CONNECT_S)
        if isinstance(error, UserError):
            return error
        if isinstance(error, KilledWorker):
            return UserError(
                f"shard {name} was lost with its worker again and again; the last was {error.last_worker.address}",
                fix=f"look at the workers' logs (out of memory?), lower runtime.shard_images, {AGAIN}",
            )
        if isinstance(error, ModuleNotFoundError):
            return UserError(
                f"a worker of {self.config.address} cannot import {error.name}",
                fix="install facegan[dask] in the environment of scheduler and workers, as here",
            )
        if error is not None and failed:
            error.__cause__ = Remote("".join(traceback.format_tb(failed[0].traceback(timeout=CONNECT_S))))
            return error
        return UserError(
            f"the Dask scheduler at {self.config.address} was lost",
            fix=f"start it and its workers again, {AGAIN}",
        )
