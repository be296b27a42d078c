"""Where the shards of a stage are worked on: in this process, or on a running cluster. One file adds a member."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from facegan.core.options import Options
from facegan.core.registry import Registry

ENGINES = Registry("engine", __name__)

Say = Callable[[str], None]


class Engine(Protocol):
    """A running engine. It gets module-level functions, which return bytes."""

    remote: bool  # the work is done by other processes: they get paths of files, and open these themselves

    def workers(self) -> int:
        """How many shards are worked on at a time; at least 1."""

    def free(self) -> int:
        """How many more shards it takes now, so that no worker waits."""

    def submit(self, name: str, work: Callable[..., bytes], *arguments: Any) -> None:
        """Submit a shard."""

    def next(self) -> tuple[str, bytes]:
        """Wait for any submitted shard: its name and the result of `work`.

        Raises what `work` raised, and UserError where the result cannot be had.
        """


class EngineConfig(Options):
    """What every engine has: a literal `kind` and `open`."""

    kind: str

    def open(self, say: Say) -> AbstractContextManager[Engine]:
        """The running engine; leaving it drops submitted shards. `say` takes lines that a person should read.

        Raises UserError where it cannot be reached.
        """
        raise TypeError(f"{type(self).__name__} must define open()")
