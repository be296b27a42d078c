"""`facegan up`: a Prefect server, a worker, the deployments and a watch over sources, kept running in one directory.

Server, worker and watch are separate processes, so that each may die alone. The socket of the server is held here:
while the server is started again, clients wait instead of being refused. Runs are in a work pool rather than in a
`serve` process: runs that fall due while there is no worker wait in the server, and the next worker starts them.
Imports no Prefect.
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
from flows.service import address, blank_database
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
    """Restart with the password in the environment where it is in the command line, which `ps` shows to all."""
    is_visible = database is not None and any(database in argument for argument in sys.argv)
    if not (is_visible and database and urlsplit(database).password):
        return
    url = urlsplit(database)
    user_and_host = f"{url.username or ''}@{url.netloc.rpartition('@')[2]}"
    url_without_password = urlunsplit(url._replace(netloc=user_and_host))
    arguments = [argument.replace(database, url_without_password) for argument in sys.argv[1:]]
    secret = unquote(url.password or "")
    os.execve(sys.executable, [sys.executable, "-m", "facegan", *arguments], {**os.environ, "PGPASSWORD": secret})


class Log(Protocol):
    """The output for lines: the screen or JSON."""

    def line(self, text: str, level: str = "info") -> None:
        """One line."""

    def answer(self, text: str) -> None:
        """The command's answer: on standard output, or as JSON."""


@dataclass(frozen=True)
class ServiceOptions:
    """The options of `facegan up`; `database` is a PostgreSQL URL, `runs` how many flow runs may work at once."""

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
            running = address.of_up(options.workdir)
            if running is None:
                raise UserError(
                    f"another command holds {address.home(options.workdir)}: a `facegan run` with a server of its own, "
                    "or a `facegan up` that is starting",
                    fix="wait until it has ended, then give this command again",
                )
            log.answer(f"already up: {running.page}")
            return
        with _stopping() as stopping, listen(options.host, options.port) as listener:
            Supervisor(options, home, listener, log, stopping).run()


@contextlib.contextmanager
def _home(workdir: Path) -> Iterator[Path | None]:
    """The home of Prefect, locked; None where another process holds it."""
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
    """An event that SIGINT, SIGTERM and SIGHUP set."""
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
    """Starts server, worker and watch, restarts those that end, and stops all."""

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
        """Run until asked to stop."""
        log = self._server_log
        server = SupervisedChild("server", log, lambda: start_server(self._server_env(), self._listener, log))
        worker = SupervisedChild(
            "worker", self._home / "worker.log", lambda: Child("flows.service.worker", self._worker_env())
        )
        watch = SupervisedChild(
            "watch", self._home / "watch.log", lambda: Child("flows.service.source_watch", self._worker_env())
        )
        try:
            is_new = blank_database.lay(self._home, self._server_env())
            self._start(server)
            assert server.child is not None
            wait(server.child, self._address.api, log, self._stopping.is_set)
            if not self._stopping.is_set():
                if is_new:
                    blank_database.keep(self._home)
                self._start(worker)
            ready = False
            while not self._stopping.wait(0.3):
                for supervised in (server, worker, watch) if ready else (server, worker):
                    self._restart_if_ended(supervised)
                if not ready and worker.child and worker.child.received() == READY:
                    ready = True
                    self._tell_ready()
        finally:
            self._stop(watch, worker, server)

    def _start(self, supervised: SupervisedChild) -> None:
        supervised.child, supervised.started = supervised.start(), time.monotonic()

    def _restart_if_ended(self, supervised: SupervisedChild) -> None:
        """Start a child again that has ended: at once the first time, then ever later; raises UserError in the end."""
        now = time.monotonic()
        if supervised.child is None:
            if now >= supervised.again_at:
                self._start(supervised)
            return
        if supervised.child.code is None:
            return
        code, supervised.child = supervised.child.code, None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        supervised.failures = supervised.failures + 1 if now - supervised.started < SOON_S else 1
        if supervised.failures > TRIES:
            raise UserError(
                f"the {supervised.name} {how}, {supervised.failures} times in a row", fix=f"see {supervised.log}"
            )
        supervised.again_at = now + (0 if supervised.failures == 1 else min(2.0**supervised.failures, 60))
        self._log.line(f"the {supervised.name} {how} (see {supervised.log}): starting it again", "error")

    def _tell_ready(self) -> None:
        address.write(self._home, self._address)
        source = f"the one in {AUTH}" if os.environ.get(AUTH) else f"the line in {self._password_file()}"
        note = f"; its password is {source}" if self._address.auth else ""
        self._log.answer(f"up: {self._address.page}{note}")
        self._log.line(f"everything lies in {self._options.workdir}; Ctrl-C stops it")

    def _stop(self, watch: SupervisedChild, worker: SupervisedChild, server: SupervisedChild) -> None:
        """End the watch, the worker, then its runs (which tell the server), then the server."""
        self._log.line("stopping")
        address.note(self._home).unlink(missing_ok=True)
        if watch.child:
            watch.child.stop()
        if worker.child:
            worker.child.stop()
        deadline = time.monotonic() + GRACE_S + 2
        while not none_alive(self._home) and time.monotonic() < deadline:
            time.sleep(0.1)
        if server.child:
            server.child.stop(5)
        tidy(self._options.workdir)
        self._log.line("stopped; a run that was at work is Crashed: run it again, it goes on from the last checkpoint")

    def _password_file(self) -> Path:
        return self._home / "password"

    def _password(self) -> str | None:
        """`user:password` of this working directory, made once; None where only this machine can reach the server."""
        if from_environment := os.environ.get(AUTH):
            return from_environment
        if self._options.host in LOOPBACK and not self._options.auth:
            return None
        path = self._password_file()
        if not path.exists():
            write_atomic(path, f"facegan:{secrets.token_urlsafe(24)}\n".encode())
        return path.read_text().strip()

    def _common_env(self) -> dict[str, str]:
        """The user's environment without the variables that would point Prefect elsewhere."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PG")) and k != DATABASE}
        quiet = {name: os.environ[name] for name in ("PREFECT_SERVER_ANALYTICS_ENABLED",)}
        return {
            **inherited,
            **quiet,
            **address.no_proxy(),
            "PREFECT_HOME": str(self._home),
            "PREFECT_API_URL": self._address.api,
            **caches(self._options.workdir),
        }

    def _server_env(self) -> dict[str, str]:
        """Prefect's settings of the server; passwords are passed only here, where `ps` does not show them."""
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
            # Leases in memory would be lost with a killed server, and with them the concurrency slots that they hold.
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
