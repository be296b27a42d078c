"""Trainings of several ranks, stopped where one likes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from facegan.runtime.context import Event

TESTS = Path(__file__).parents[1]


class Stop(Exception):
    """Raised in the middle of a training, as a crash would come."""


def at(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """Do something when rank 0 tells of a step."""

    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.done == step:
            act()

    return on_event


def stop() -> None:
    raise Stop


def signalled(rank: int, number: signal.Signals) -> Callable[[], None]:
    """Send a signal to a rank."""

    def act() -> None:
        (one,) = [child for child in multiprocessing.active_children() if child.name.endswith(f"training, rank {rank}")]
        assert one.pid
        os.kill(one.pid, number)

    return act


def environment() -> dict[str, str]:
    """Variables with which a script finds the tests' modules."""
    paths = [str(TESTS / "helpers"), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
