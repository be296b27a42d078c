"""A temporary Prefect server for one command: private, and ended with the command however that ends.

Prefect's own ephemeral server outlives kill -9 of the command and asks for no password; this one ends with the pipe
that its parent holds, and asks for a password made for it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import Timeout

from facegan.core.errors import UserError
from facegan.core.scratch import scratch
from flows.service import address, blank_database
from flows.service.child_process import Child, begin_child
from flows.service.recovery import end_runs, end_tasks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PATIENCE_S = 180.0
RESTARTS = 3
# The host names that a server accepts, no others: a web page cannot reach it under a name of its own (DNS rebinding).
HOSTS = "FACEGAN_HOSTS"
SHORT_LIVED = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # only the services that a short-lived server needs
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


@contextlib.contextmanager
def prefect_server(workdir: Path) -> Iterator[None]:
    """The environment for a flow: the server of PREFECT_API_URL, else of `facegan up` there, else a temporary one.

    The temporary one keeps its database in PREFECT_HOME or, unless that is set, in `workdir/data/prefect`
    (`PREFECT_HOME=... prefect server start` shows it later). Call before prefect is imported.
    """
    # The command has its own screen; Prefect keeps all messages.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if url := os.environ.get("PREFECT_API_URL"):
        host = urlsplit(url).hostname
        here = address.no_proxy() if host in address.LOOPBACK else {}
        if not here and (unusable := address.unusable_proxies()):
            name, proxy = next(iter(unusable.items()))
            raise UserError(
                f"the proxy {name}={proxy} cannot be used to reach PREFECT_API_URL={url}: SOCKS is not installed",
                fix=f"pip install 'httpx[socks]', or unset {name} where the server is reached without",
            )
        with _environment(here):
            _check_answers()
            yield
        return
    if up := address.of_up(workdir):
        with _environment({"PREFECT_HOME": str(address.home(workdir)), **up.client()}):
            _reread_settings()
            try:
                yield
            finally:
                _flush()
                _with_client(end_tasks)
        return
    with contextlib.ExitStack() as stack:
        home, is_exclusive = stack.enter_context(_home(workdir))
        password = f"facegan:{secrets.token_urlsafe(24)}"
        changes = {"PREFECT_HOME": str(home), "PREFECT_API_AUTH_STRING": password, "PREFECT_API_URL": ""}
        stack.enter_context(_environment({**changes, **address.no_proxy()}))
        os.environ["PREFECT_API_URL"] = stack.enter_context(_running(home, password))
        _reread_settings()
        if is_exclusive:
            _with_client(end_runs)
        try:
            yield
        finally:
            _flush()
            _with_client(end_tasks)


def _check_answers() -> None:
    """Raise UserError when the user's own server does not answer."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise UserError(
            f"no Prefect server answers at PREFECT_API_URL={os.environ['PREFECT_API_URL']}: {problem}",
            fix="start it, or unset PREFECT_API_URL to run with a temporary one",
        )


def server_error(workdir: Path, error: Exception) -> UserError:
    """The error for a server that fails or does not answer: the disk may be too full for its database."""
    free = f"{shutil.disk_usage(workdir).free / 1e6:.0f} MB free at {workdir}"
    why = str(error).partition(" - Response")[0].partition("\n")[0] or type(error).__name__
    return UserError(
        f"the Prefect server failed ({free}): {why}",
        fix=f"free some space if there is little, see {address.home(workdir) / 'server.log'}; the same command goes on "
        "from the last checkpoint",
    )


@contextlib.contextmanager
def _home(workdir: Path) -> Iterator[tuple[Path, bool]]:
    """A private folder, and whether no other server can be at work on its database.

    Of two commands at once in one workdir the second gets a temporary folder.
    """
    if from_environment := os.environ.get("PREFECT_HOME"):
        Path(from_environment).mkdir(parents=True, exist_ok=True, mode=0o700)
        yield Path(from_environment), False
        return
    home = address.private_home(workdir)
    lock = address.lock(home)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        temporary = scratch(workdir) / "prefect"
        temporary.mkdir(exist_ok=True, mode=0o700)
        yield temporary, True
        return
    try:
        yield home, True
    finally:
        lock.release()


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _running(home: Path, password: str) -> Iterator[str]:
    """Start the server and wait for it; yields the address of its API. One that dies is started again.

    The command holds the socket on which the server listens: clients that connect meanwhile wait for the next one.
    """
    (home / "server.log").unlink(missing_ok=True)
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        settings = {"PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_API_URL": url}
        env = {**os.environ, **SHORT_LIVED, **settings}
        start = partial(start_server, env, listener, home / "server.log")
        is_new = blank_database.lay(home, env)
        children, ended = [start()], threading.Event()

        def watch() -> None:
            while len(children) <= RESTARTS:
                children[-1].process.wait()
                if ended.is_set():
                    return
                children.append(start())
            listener.close()  # so that no client waits for ever

        thread = threading.Thread(target=watch, daemon=True)
        try:
            wait(children[0], url, home / "server.log")
            thread.start()
            if is_new:
                blank_database.keep(home)
            yield url
        finally:
            ended.set()
            children[-1].stop()
            if thread.ident is not None:
                thread.join(timeout=3)
            children[-1].stop()  # the watcher may just have started one


def listen(host: str, port: int) -> socket.socket:
    """The socket of a server, held by the process that starts it (port 0: any free one); raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}", fix="give another --port or --host"
        ) from None


def start_server(env: dict[str, str], listener: socket.socket, log: Path) -> Child:
    """A Prefect server that answers at `listener`, set up by `env`, writing to `log`."""
    return Child("flows.service.server", env, log, (listener.fileno(),))


def wait(server: Child, url: str, log: Path, stopping: Callable[[], bool] = lambda: False) -> None:
    """Wait until the server answers or `stopping`; raises UserError with the end of its log when it does not."""
    started = time.monotonic()
    while server.code is None and time.monotonic() - started < PATIENCE_S and not stopping():
        if address.answers(url):
            return
        time.sleep(0.1)
    if stopping():
        return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    took, free = time.monotonic() - started, shutil.disk_usage(log.parent).free / 1e6
    state = "is not up yet" if server.code is None else f"ended with code {server.code}"
    raise UserError(
        f"the Prefect server {state} after {took:.0f} s ({free:.0f} MB free there):\n{tail}",
        fix=f"see {log}, or start one yourself (`prefect server start`) and set PREFECT_API_URL",
    )


def _reread_settings() -> None:
    """Let a prefect that was imported before (in a test, a notebook) read the new environment."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def _with_client(action: Callable[[SyncPrefectClient], None]) -> None:
    """Call `action` with a client; errors of a server that has ended or is full are ignored."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    with contextlib.suppress(HTTPError), get_client(sync_client=True) as client:
        action(client)


def _flush() -> None:
    """Send logs and events while the server still listens: thousands, where a study's stages were all cached."""
    with contextlib.suppress(Exception):
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        EventsWorker.drain_all(timeout=60)
        APILogWorker.drain_all(timeout=5)


def _serve(pipe: int, listener: int) -> None:
    """In the server's process."""
    begin_child(pipe)
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    def app() -> Any:  # wrapped, not changed: the server also calls its own app, under another host name
        hosts = os.environ.get(HOSTS)
        return TrustedHostMiddleware(create_app(), allowed_hosts=hosts.split(",")) if hosts else create_app()

    config = uvicorn.Config(app, factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
