"""Turns of stages that wait for a worker: the order of the graph, and what closing does."""

from __future__ import annotations

import importlib.util
import threading
import time

import pytest

from facegan.pipeline.workers import _Slots
from facegan.runtime.processes import PRELOAD, Stopped


def test_of_those_who_wait_the_first_in_the_graph_goes_first() -> None:
    turns, order = _Slots(), []

    def work(rank: int) -> None:
        with turns.turn(rank):
            order.append(rank)
            time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    while len(turns._waiting) < 4:
        time.sleep(0.001)
    turns.open(1)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]


def test_closing_sends_away_all_who_wait() -> None:
    turns, seen = _Slots(), []

    def work() -> None:
        with pytest.raises(Stopped), turns.turn(0):
            pass
        seen.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    turns.close()
    for thread in threads:
        thread.join(timeout=5)
    assert len(seen) == 3


def test_what_is_imported_before_children_are_forked_is_there() -> None:
    """A name that is not would be passed over, and each stage would import torch by itself."""
    assert PRELOAD and all(importlib.util.find_spec(name) for name in PRELOAD)
