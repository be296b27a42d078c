"""Processes of a group, and waiting until they are gone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def group(leader: int) -> list[int]:
    """The processes of a session that are not yet dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until_gone(leader: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := group(leader)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
