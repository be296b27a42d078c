"""The home of Prefect in a working directory, its lock, and the file in which `facegan up` notes its address."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from facegan.core.files import write_atomic

HEARTBEAT_S = 30  # the least that Prefect takes
PROXIES = tuple(f(f"{kind}_proxy") for kind in ("all", "http", "https") for f in (str.lower, str.upper))
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Address:
    """A server: the address of its API, of its page, and `user:password` where it asks for one."""

    api: str
    page: str
    auth: str | None = None

    def client(self) -> dict[str, str]:
        """The environment of a process that talks to it."""
        password = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        heartbeat = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
        return {"PREFECT_API_URL": self.api, **heartbeat, **password, **no_proxy(urlsplit(self.api).hostname)}


def no_proxy(host: str | None = None) -> dict[str, str]:
    """The environment in which a proxy (HTTP_PROXY) is not used for this machine and `host`.

    A proxy that httpx cannot use is not named in it at all: httpx would refuse to start, used or not.
    """
    current = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    unusable = dict.fromkeys(unusable_proxies(), "")
    if current.strip() == "*":
        return unusable
    names = dict.fromkeys(
        [*filter(None, (name.strip() for name in current.split(","))), *LOOPBACK, *filter(None, [host])]
    )
    return {**unusable, **dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(names))}


def unusable_proxies() -> dict[str, str]:
    """{variable: address} of the environment's proxies that httpx cannot use: SOCKS, where socksio is not installed."""
    schemes = {"http", "https"} | ({"socks5", "socks5h"} if importlib.util.find_spec("socksio") is not None else set())
    named = {name: os.environ.get(name, "") for name in PROXIES}
    return {name: value for name, value in named.items() if "://" in value and value.split("://")[0] not in schemes}


def home(workdir: Path) -> Path:
    """PREFECT_HOME of a working directory."""
    return workdir / "data" / "prefect"


def private_home(workdir: Path) -> Path:
    """The same, made if missing, for its owner alone."""
    folder = home(workdir)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def lock(home: Path) -> FileLock:
    """The lock of the one process that runs a server on this home; released when it dies."""
    return FileLock(home / "lock", mode=0o600)


def note(home: Path) -> Path:
    """The file with the address."""
    return home / "address.json"


def write(home: Path, address: Address) -> None:
    """Write the file with the address (it may hold the password: the umask must be 077)."""
    write_atomic(note(home), json.dumps(asdict(address)).encode())


def of_up(workdir: Path) -> Address | None:
    """The server of `facegan up` in a working directory, if it is up."""
    prefect_home = home(workdir)
    try:
        up = Address(**json.loads(note(prefect_home).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    with contextlib.suppress(Timeout), lock(prefect_home).acquire(timeout=0):
        return None  # nobody holds it: the note is of one that was killed
    return up if answers(up.api) else None


def answers(url: str) -> bool:
    """Whether a server of this machine answers at the address of its API; needs no password, uses no proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, http.client.HTTPException):
        return bool(direct.open(f"{url}/health", timeout=5).status == 200)
    return False
