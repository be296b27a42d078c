"""A temporary Prefect server for one command: private, and gone with the command however that ends.

Prefect's own ephemeral server lives on after kill -9 of the command and asks nobody who they are; this one
ends with the pipe that its parent holds and lets in only who knows a password made for it.
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

from filelock import Timeout

from facegan.core.errors import UserError
from facegan.core.scratch import scratch
from flows.service import address
from flows.service.child_process import Child, begin_child
from flows.service.recovery import end_runs, end_tasks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PATIENCE_S = 180.0
RESTARTS = 3
HOSTS = (
    "FACEGAN_HOSTS"  # names by which a server is called; none others, so that no web page reaches it by its own name
)
CALM = {
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
    # The command has a screen of its own; in Prefect all messages are kept.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if os.environ.get("PREFECT_API_URL"):
        _check_there()
        yield
        return
    if up := address.of_up(workdir):
        with _environment({"PREFECT_HOME": str(address.home(workdir)), **up.client()}):
            _reread_settings()
            try:
                yield
            finally:
                _flush()
                _mend(end_tasks)
        return
    with contextlib.ExitStack() as stack:
        home, only_ours = stack.enter_context(_home(workdir))
        password = f"facegan:{secrets.token_urlsafe(24)}"
        changes = {"PREFECT_HOME": str(home), "PREFECT_API_AUTH_STRING": password, "PREFECT_API_URL": ""}
        stack.enter_context(_environment({**changes, **address.no_proxy()}))
        os.environ["PREFECT_API_URL"] = stack.enter_context(_running(home, password))
        _reread_settings()
        if only_ours:
            _mend(end_runs)
        try:
            yield
        finally:
            _flush()
            _mend(end_tasks)


def _check_there() -> None:
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
    """What to say of a server that answered with an error, or no more: its own database may have found no room."""
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

    Of two commands at once in one workdir the second gets a folder that goes with it.
    """
    if chosen := os.environ.get("PREFECT_HOME"):
        Path(chosen).mkdir(parents=True, exist_ok=True, mode=0o700)
        yield Path(chosen), False
        return
    home = address.private_home(workdir)
    lock = address.lock(home)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = scratch(workdir) / "prefect"
        other.mkdir(exist_ok=True, mode=0o700)
        yield other, True
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

    The command holds the socket on which the server listens: who calls meanwhile waits for the next one.
    """
    (home / "server.log").unlink(missing_ok=True)
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        settings = {"PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_API_URL": url}
        start = partial(start_server, {**os.environ, **CALM, **settings}, listener, home / "server.log")
        children, over = [start()], threading.Event()

        def watch() -> None:
            while len(children) <= RESTARTS:
                children[-1].process.wait()
                if over.is_set():
                    return
                children.append(start())
            listener.close()  # so that nobody waits for ever

        watching = threading.Thread(target=watch, daemon=True)
        try:
            wait(children[0], url, home / "server.log")
            watching.start()
            yield url
        finally:
            over.set()
            children[-1].stop()
            if watching.ident is not None:
                watching.join(timeout=3)
            children[-1].stop()  # the watcher may just have started one


def listen(host: str, port: int) -> socket.socket:
    """The socket of a server, held by whom starts it (0: any free port); raises UserError when it is not to be had."""
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
    """Until the server answers or `stopping`; raises UserError with the end of its log when it does not."""
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
    """Tell a prefect that was imported before (in a test, a notebook) of the new environment."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def _mend(work: Callable[[SyncPrefectClient], None]) -> None:
    """What can be told of dead runs is told; a server that is gone or full stops nobody."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    with contextlib.suppress(HTTPError), get_client(sync_client=True) as client:
        work(client)


def _flush() -> None:
    """Hand logs and events over while the server still listens: thousands, where a study's stages were all cached."""
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

    def app() -> Any:  # wrapped, not changed: the server calls its own app too, by a name of its own
        hosts = os.environ.get(HOSTS)
        return TrustedHostMiddleware(create_app(), allowed_hosts=hosts.split(",")) if hosts else create_app()

    config = uvicorn.Config(app, factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
