"""Who works on the shards of a stage: this process, or a cluster that is there already. One file adds a member."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from facegan.core.options import Options
from facegan.core.registry import Registry

ENGINES = Registry("engine", __name__)

Say = Callable[[str], None]


class Engine(Protocol):
    """An engine at work. What it is given are functions of a module, which hand back bytes."""

    remote: bool  # the work is done by other processes: they are told where files lie, and open them for themselves

    def workers(self) -> int:
        """How many shards are worked on at a time; at least 1."""

    def free(self) -> int:
        """How many shards more it takes now, so that nobody who could work waits."""

    def submit(self, name: str, work: Callable[..., bytes], *arguments: Any) -> None:
        """Hand out a shard."""

    def next(self) -> tuple[str, bytes]:
        """Wait for any shard that was handed out: its name and what `work` gave.

        Raises what `work` raised, and UserError where a shard cannot be had.
        """


class EngineConfig(Options):
    """What every engine has: a literal `kind` and `open`."""

    kind: str

    def open(self, say: Say) -> AbstractContextManager[Engine]:
        """The engine; leaving it gives up what is still handed out. `say` takes lines that a person should read.

        Raises UserError where it cannot be reached.
        """
        raise TypeError(f"{type(self).__name__} must define open()")
