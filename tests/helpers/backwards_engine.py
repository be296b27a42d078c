"""An engine whose workers finish out of order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Backwards:
    """An engine of four workers who finish in the wrong order."""

    remote = False

    def __init__(self) -> None:
        self.submitted: list[tuple[str, Callable[..., bytes], tuple[Any, ...]]] = []
        self.finished: list[str] = []

    def workers(self) -> int:
        return 4

    def free(self) -> int:
        return 8 - len(self.submitted)

    def submit(self, name: str, work: Callable[..., bytes], *arguments: Any) -> None:
        self.submitted.append((name, work, arguments))

    def next(self) -> tuple[str, bytes]:
        name, work, arguments = self.submitted.pop()
        self.finished.append(name)
        return name, work(*arguments)
