"""A private folder below `data/tmp` for each command; what a killed one left is removed by the next that starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path

from filelock import FileLock

from facegan.core import locks
from facegan.core.files import disk_error

LONGEST_SOCKET = 107  # bytes of the path of a Unix socket: unix(7)
SOCKET = "/pymp-12345678/listener-12345678"  # what multiprocessing puts below a temporary folder

CACHES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}  # else in HOME and TMPDIR


def caches(workdir: Path) -> dict[str, str]:
    """Where libraries keep what they have compiled: where the user has put it, else in `workdir/data`."""
    return {name: os.environ.get(name, str(workdir / "data" / folder)) for name, folder in CACHES.items()}


@cache
def scratch(workdir: Path) -> Path:
    """This process's own folder in `workdir/data/tmp`, gone with it; raises UserError where the disk is full."""
    top = workdir / "data" / "tmp"
    try:
        return _made(top)
    except OSError as error:
        raise disk_error(top, error) from error


def tidy(workdir: Path) -> None:
    """Remove what killed processes have left in `workdir/data/tmp`."""
    if (top := workdir / "data" / "tmp").is_dir():
        with contextlib.suppress(OSError), _looking(top):
            pass


@contextlib.contextmanager
def _looking(top: Path) -> Iterator[None]:
    """Nobody else makes a folder meanwhile: between making and holding it nobody may look. Those of the dead go."""
    top.mkdir(parents=True, exist_ok=True)
    top.chmod(0o700)
    with FileLock(top / "lock", mode=0o600):
        for old in [path for path in top.iterdir() if path.is_dir() and locks.free(path / "lock")]:
            shutil.rmtree(old, ignore_errors=True)
        yield


def _made(top: Path) -> Path:
    with _looking(top):
        folder = Path(tempfile.mkdtemp(prefix="", dir=top))
        held = FileLock(folder / "lock", mode=0o600)
        held.acquire()
    Finalize(None, _leave, args=(folder, held), exitpriority=-200)  # after multiprocessing has left its folder in it
    return folder


def _leave(folder: Path, held: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    held.release()


@contextlib.contextmanager
def temporary_files(workdir: Path) -> Iterator[None]:
    """Temporary files of this process and of those that it starts go to `scratch`, caches of libraries beside it.

    So nothing is left elsewhere; a cache that the user has put somewhere stays there.
    """
    os.environ.update(caches(workdir))
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = _short(scratch(workdir)), None
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None


@cache
def _short(folder: Path) -> str:
    """A path to `folder` that leaves room for the name of a socket; on Linux through this process's open files."""
    if len(os.fsencode(folder)) + len(SOCKET) <= LONGEST_SOCKET:
        return str(folder)
    there = f"/proc/{os.getpid()}/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"
    return there if os.path.isdir(there) else tempfile.gettempdir()
