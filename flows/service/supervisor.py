"""`facegan up`: a Prefect server, a worker, the deployments and a watch over sources, kept running in one directory.

Server, worker and watch are processes of their own, so that each may die alone. The socket of the server is held here:
while the server is started again, those who call wait instead of being refused. Work lies in a work pool rather than in
a `serve` process, because what falls due while the worker is away then waits in the server, and a worker that is
started again takes it up. Imports no Prefect.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from filelock import Timeout

from facegan.core.errors import ConfigError, UserError
from facegan.core.files import write_atomic
from facegan.core.scratch import caches, tidy
from flows.service import address
from flows.service.address import LOOPBACK, Address
from flows.service.child_process import GRACE_S, Child
from flows.service.flow_run import LOG_JSON, none_alive
from flows.service.server import HOSTS, listen, start_server, wait
from flows.service.worker import READY, RUNS

EVERYWHERE = ("0.0.0.0", "::")
TRIES = 5  # of a child that ends soon after its start; each time it waits twice as long
SOON_S = 120.0
DATABASE = "FACEGAN_DATABASE"
AUTH = "PREFECT_SERVER_API_AUTH_STRING"


def hide_password(database: str | None) -> None:
    """Where a password stands in the command line, which `ps` shows to all, start anew with it in the environment."""
    shown = database is not None and any(database in argument for argument in sys.argv)
    if not (shown and database and urlsplit(database).password):
        return
    url = urlsplit(database)
    where = f"{url.username or ''}@{url.netloc.rpartition('@')[2]}"
    without = urlunsplit(url._replace(netloc=where))
    arguments = [argument.replace(database, without) for argument in sys.argv[1:]]
    secret = unquote(url.password or "")
    os.execve(sys.executable, [sys.executable, "-m", "facegan", *arguments], {**os.environ, "PGPASSWORD": secret})


class Log(Protocol):
    """Where lines go: the screen or JSON."""

    def line(self, text: str, level: str = "info") -> None:
        """One line."""

    def answer(self, text: str) -> None:
        """What the command was asked for: on standard output, unless that is no place for people."""


@dataclass(frozen=True)
class ServiceOptions:
    """What `facegan up` was asked for; `database` is a PostgreSQL URL, `runs` how many flow runs may work at once."""

    workdir: Path
    host: str = "127.0.0.1"
    port: int = 4200
    database: str | None = None
    auth: bool = False
    runs: int = 1
    log_json: bool = False

    def __post_init__(self) -> None:
        if self.database is not None and urlsplit(self.database).scheme not in ("postgresql", "postgres"):
            raise ConfigError("--database is no PostgreSQL URL", fix="postgresql://user@host:5432/name")


def up(options: ServiceOptions, log: Log) -> None:
    """Start, keep running, and stop all on SIGINT, SIGTERM or SIGHUP; raises UserError for what cannot start."""
    os.umask(0o077)
    with _home(options.workdir) as home:
        if home is None:
            found = address.of_up(options.workdir)
            if found is None:
                raise UserError(
                    f"another command holds {address.home(options.workdir)}: a `facegan run` with a server of its own, "
                    "or a `facegan up` that is starting",
                    fix="wait until it has ended, then give this command again",
                )
            log.answer(f"already up: {found.page}")
            return
        with _stopping() as stopping, listen(options.host, options.port) as listener:
            Supervisor(options, home, listener, log, stopping).run()


@contextlib.contextmanager
def _home(workdir: Path) -> Iterator[Path | None]:
    """The home of Prefect, held; None where another holds it."""
    home = address.private_home(workdir)
    lock = address.lock(home)
    try:
        lock.acquire(timeout=2)  # others hold it for a moment to see whether it is held
    except Timeout:
        yield None
        return
    try:
        yield home
    finally:
        address.note(home).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that the signals to stop set."""
    event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class SupervisedChild:
    """A child that is started again when it ends."""

    name: str
    log: Path
    start: Callable[[], Child]
    child: Child | None = None
    started: float = 0.0
    failures: int = 0
    again_at: float = 0.0


class Supervisor:
    """The children and their upkeep."""

    def __init__(
        self, options: ServiceOptions, home: Path, listener: socket.socket, log: Log, stopping: threading.Event
    ):
        self._options, self._home, self._listener, self._log, self._stopping = options, home, listener, log, stopping
        port = listener.getsockname()[1]
        host = options.host if options.host not in EVERYWHERE else "127.0.0.1"
        self._origin = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._address = Address(f"{self._origin}/api", self._origin, self._password())
        self._server_log = home / "server.log"
        self._server_log.unlink(missing_ok=True)

    def run(self) -> None:
        """Until asked to stop."""
        log = self._server_log
        server = SupervisedChild("server", log, lambda: start_server(self._server_env(), self._listener, log))
        worker = SupervisedChild(
            "worker", self._home / "worker.log", lambda: Child("flows.service.worker", self._worker_env())
        )
        watch = SupervisedChild(
            "watch", self._home / "watch.log", lambda: Child("flows.service.source_watch", self._worker_env())
        )
        try:
            self._start(server)
            assert server.child is not None
            wait(server.child, self._address.api, log, self._stopping.is_set)
            if not self._stopping.is_set():
                self._start(worker)
            ready = False
            while not self._stopping.wait(0.3):
                for kept in (server, worker, watch) if ready else (server, worker):
                    self._look_after(kept)
                if not ready and worker.child and worker.child.said() == READY:
                    ready = True
                    self._tell_ready()
        finally:
            self._stop(watch, worker, server)

    def _start(self, kept: SupervisedChild) -> None:
        kept.child, kept.started = kept.start(), time.monotonic()

    def _look_after(self, kept: SupervisedChild) -> None:
        """Start a child again that has ended: at once the first time, then ever later; raises UserError in the end."""
        now = time.monotonic()
        if kept.child is None:
            if now >= kept.again_at:
                self._start(kept)
            return
        if kept.child.code is None:
            return
        code, kept.child = kept.child.code, None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        kept.failures = kept.failures + 1 if now - kept.started < SOON_S else 1
        if kept.failures > TRIES:
            raise UserError(f"the {kept.name} {how}, {kept.failures} times in a row", fix=f"see {kept.log}")
        kept.again_at = now + (0 if kept.failures == 1 else min(2.0**kept.failures, 60))
        self._log.line(f"the {kept.name} {how} (see {kept.log}): starting it again", "error")

    def _tell_ready(self) -> None:
        address.write(self._home, self._address)
        given = f"the one in {AUTH}" if os.environ.get(AUTH) else f"the line in {self._password_file()}"
        lies = f"; its password is {given}" if self._address.auth else ""
        self._log.answer(f"up: {self._address.page}{lies}")
        self._log.line(f"everything lies in {self._options.workdir}; Ctrl-C stops it")

    def _stop(self, watch: SupervisedChild, worker: SupervisedChild, server: SupervisedChild) -> None:
        """The watch, the worker, then its runs (which tell the server), then the server: nothing is left."""
        self._log.line("stopping")
        address.note(self._home).unlink(missing_ok=True)
        if watch.child:
            watch.child.stop()
        if worker.child:
            worker.child.stop()
        until = time.monotonic() + GRACE_S + 2
        while not none_alive(self._home) and time.monotonic() < until:
            time.sleep(0.1)
        if server.child:
            server.child.stop(5)
        tidy(self._options.workdir)
        self._log.line("stopped; a run that was at work is Crashed: run it again, it goes on from the last checkpoint")

    def _password_file(self) -> Path:
        return self._home / "password"

    def _password(self) -> str | None:
        """`user:password` of this working directory, made once; None where nobody else can reach the server."""
        if given := os.environ.get(AUTH):
            return given
        if self._options.host in LOOPBACK and not self._options.auth:
            return None
        path = self._password_file()
        if not path.exists():
            write_atomic(path, f"facegan:{secrets.token_urlsafe(24)}\n".encode())
        return path.read_text().strip()

    def _common_env(self) -> dict[str, str]:
        """The user's environment without what would point Prefect elsewhere."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PG")) and k != DATABASE}
        quiet = {name: os.environ[name] for name in ("PREFECT_SERVER_ANALYTICS_ENABLED",)}
        return {
            **kept,
            **quiet,
            **address.no_proxy(),
            "PREFECT_HOME": str(self._home),
            "PREFECT_API_URL": self._address.api,
            **caches(self._options.workdir),
        }

    def _server_env(self) -> dict[str, str]:
        """Prefect's settings of the server; passwords travel here alone, where `ps` does not show them."""
        origins, hosts = [self._origin], {}
        if self._options.host in LOOPBACK:
            port = self._listener.getsockname()[1]
            origins = [f"http://{name}:{port}" for name in LOOPBACK]
            hosts = {HOSTS: ",".join(LOOPBACK)}
        auth = {AUTH: self._address.auth} if self._address.auth else {}
        postgres = {name: value for name, value in os.environ.items() if name.startswith("PG")}
        return {
            **self._common_env(),
            **postgres,
            **hosts,
            **auth,
            "PREFECT_API_DATABASE_CONNECTION_URL": self._database(),
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
            "PREFECT_UI_ENABLED": "true",
            "PREFECT_UI_API_URL": "/api",  # under whatever name the page was opened
            "PREFECT_UI_STATIC_DIRECTORY": str(self._home / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # Leases in memory would be lost with a killed server, and with them the places that they hold.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT__SERVER_FINAL": "1",
        }

    def _database(self) -> str:
        if self._options.database is None:
            return f"sqlite+aiosqlite:///{self._home / 'prefect.db'}"
        return urlunsplit(urlsplit(self._options.database)._replace(scheme="postgresql+asyncpg"))

    def _worker_env(self) -> dict[str, str]:
        json = {LOG_JSON: "1"} if self._options.log_json else {}
        return {
            **self._common_env(),
            **self._address.client(),
            **json,
            "FACEGAN_WORKDIR": str(self._options.workdir),
            RUNS: str(self._options.runs),
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            "PREFECT_WORKER_QUERY_SECONDS": "5",
        }
