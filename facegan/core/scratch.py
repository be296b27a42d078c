"""A private folder below `data/tmp` for each command; the next command removes what a killed one has left."""

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
    """Where libraries keep their compiled caches: where the user has put them, else in `workdir/data`."""
    return {name: os.environ.get(name, str(workdir / "data" / folder)) for name, folder in CACHES.items()}


@cache
def scratch(workdir: Path) -> Path:
    """This process's folder in `workdir/data/tmp`, removed when it ends; raises UserError where the disk is full."""
    top = workdir / "data" / "tmp"
    try:
        return _new_folder(top)
    except OSError as error:
        raise disk_error(top, error) from error


def tidy(workdir: Path) -> None:
    """Remove what killed processes have left in `workdir/data/tmp`."""
    if (top := workdir / "data" / "tmp").is_dir():
        with contextlib.suppress(OSError), _exclusive(top):
            pass


@contextlib.contextmanager
def _exclusive(top: Path) -> Iterator[None]:
    """Hold the lock on `top`, after removing the folders of dead processes.

    A new folder is made and locked under it, so that no other process takes it for that of a dead one.
    """
    top.mkdir(parents=True, exist_ok=True)
    top.chmod(0o700)
    with FileLock(top / "lock", mode=0o600):
        for stale in [path for path in top.iterdir() if path.is_dir() and locks.free(path / "lock")]:
            shutil.rmtree(stale, ignore_errors=True)
        yield


def _new_folder(top: Path) -> Path:
    with _exclusive(top):
        folder = Path(tempfile.mkdtemp(prefix="", dir=top))
        lock = FileLock(folder / "lock", mode=0o600)
        lock.acquire()
    Finalize(None, _remove, args=(folder, lock), exitpriority=-200)  # after multiprocessing has emptied it
    return folder


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()


@contextlib.contextmanager
def temporary_files(workdir: Path) -> Iterator[None]:
    """Send temporary files of this process and its children to `scratch`, and caches of libraries beside it.

    Nothing is left elsewhere; a cache that the user has put somewhere stays there.
    """
    os.environ.update(caches(workdir))
    previous = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = _short_path(scratch(workdir)), None
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if previous is not None:
            os.environ["TMPDIR"] = previous
        tempfile.tempdir = None


@cache
def _short_path(folder: Path) -> str:
    """A path to `folder` short enough for a socket below it; on Linux through this process's open files."""
    if len(os.fsencode(folder)) + len(SOCKET) <= LONGEST_SOCKET:
        return str(folder)
    link = f"/proc/{os.getpid()}/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"
    return link if os.path.isdir(link) else tempfile.gettempdir()
