"""Who works in a working directory: an OS lock that many may share or one may have alone, released by death.

flock(2): every run holds it shared, what erases (`facegan forget`, `facegan gc`) holds it alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from facegan.core.errors import UserError

LONGEST = 100  # characters of a command that a message shows
STAGE = "multiprocessing.forkserver"  # in the command of a stage's process, which its run started


@contextlib.contextmanager
def shared(path: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock at `path` beside others; while one has it alone, say who and wait (that takes minutes at most)."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting until {' and '.join(holders(path))} is done")
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock at `path` with nobody beside; raises UserError that names who has it (runs take hours)."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"at work in this working directory: {', '.join(holders(path))}",
                fix="wait for it or stop it, then give this again",
            ) from None
        yield


def free(path: Path) -> bool:
    """Whether nobody holds the lock at `path` (an OS lock of filelock's too); a file that is not there is free."""
    if not path.exists():
        return True
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The lock file, for its owner alone; closing it gives the lock up. Raises UserError where it cannot be made."""
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
    """Those who hold the lock at `path`: command and process, where the system tells (Linux: proc(5), /proc/locks)."""
    pids = []
    with contextlib.suppress(OSError):
        inode = path.stat().st_ino
        held = re.findall(r"^\d+: FLOCK +\w+ +\w+ +(\d+) +[\w:]+:(\d+) ", Path("/proc/locks").read_text(), re.MULTILINE)
        pids = sorted({int(pid) for pid, node in held if int(node) == inode and int(pid)})
    told = [f"{command} (process {pid})" for pid in pids if STAGE not in (command := _command(pid))]
    return told or ["a stage of a run that ends" if pids else "another facegan command"]


def _command(pid: int) -> str:
    """What a process was started with, shortened."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    first = next((place for place, word in enumerate(words) if Path(word).name == "facegan"), None)
    text = " ".join(words if first is None else ["facegan", *words[first + 1 :]]).strip()
    return f"'{text[:LONGEST]}'" if text else "a command"
