"""The stage's own process: one shard after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from facegan.runtime.engines import ENGINES, Engine, EngineConfig, Say


@ENGINES.register
class Local(EngineConfig):
    """This machine: the stage's own process works on one shard after the other."""

    kind: Literal["local"] = "local"

    @contextmanager
    def open(self, say: Say) -> Iterator[Engine]:
        """See EngineConfig."""
        yield _InProcess()


class _InProcess:
    """See Engine."""

    remote = False

    def __init__(self) -> None:
        self._queue: deque[tuple[str, Callable[..., bytes], tuple[Any, ...]]] = deque()

    def workers(self) -> int:
        return 1

    def free(self) -> int:
        return 1 - len(self._queue)

    def submit(self, name: str, work: Callable[..., bytes], *arguments: Any) -> None:
        self._queue.append((name, work, arguments))

    def next(self) -> tuple[str, bytes]:
        name, work, arguments = self._queue.popleft()
        return name, work(*arguments)
