"""Who works in a working directory: an OS lock, shared or exclusive, that ends with the process which holds it.

flock(2): every run holds it shared, commands that erase (`facegan forget`, `facegan gc`) hold it exclusively.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from facegan.core.errors import UserError

MAX_COMMAND = 100  # characters of a command that a message shows
STAGE = "multiprocessing.forkserver"  # in the command line of a stage's process, which its run has started


@contextlib.contextmanager
def shared(path: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the shared lock at `path`; while a process holds it exclusively, say who and wait (minutes at most)."""
    with _open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting until {' and '.join(holders(path))} is done")
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock at `path` exclusively; raises UserError that names who holds it (runs take hours)."""
    with _open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"at work in this working directory: {', '.join(holders(path))}",
                fix="wait for it or stop it, then give this again",
            ) from None
        yield


def free(path: Path) -> bool:
    """Whether nobody holds the lock at `path` (or an OS lock of filelock); a missing file is free."""
    if not path.exists():
        return True
    with _open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextlib.contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    """The lock file, for its owner alone; closing it releases the lock. Raises UserError where it cannot be made."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fix = "look whose the folder is, and whether its disk is full"
        raise UserError(f"cannot open the lock {path}: {error.strerror}", fix=fix) from error
    try:
        yield file
    finally:
        os.close(file)


def holders(path: Path) -> list[str]:
    """Who holds the lock at `path`: commands and processes, where the system tells (Linux: proc(5), /proc/locks)."""
    pids = []
    with contextlib.suppress(OSError):
        inode = path.stat().st_ino
        held = re.findall(r"^\d+: FLOCK +\w+ +\w+ +(\d+) +[\w:]+:(\d+) ", Path("/proc/locks").read_text(), re.MULTILINE)
        pids = sorted({int(pid) for pid, node in held if int(node) == inode and int(pid)})
    descriptions = [f"{command} (process {pid})" for pid in pids if STAGE not in (command := _command(pid))]
    return descriptions or ["a stage of a run that ends" if pids else "another facegan command"]


def _command(pid: int) -> str:
    """The command line of a process, shortened."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    start = next((index for index, word in enumerate(words) if Path(word).name == "facegan"), None)
    text = " ".join(words if start is None else ["facegan", *words[start + 1 :]]).strip()
    return f"'{text[:MAX_COMMAND]}'" if text else "a command"
