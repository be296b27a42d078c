"""Shards: spans of a stage's work, which any engine may do; results are stored and consumed in order.

A finished shard is a file in the stage's `work/`, so that a run that was stopped goes on with the next one.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegan.core.files import write_atomic
from facegan.runtime.engines import Engine

MAX_SHARDS_AHEAD = 8  # per worker, at most, from the first unfinished shard to the last that was submitted


@dataclass(frozen=True)
class Span:
    """The indices start .. stop - 1 of one kind of work."""

    kind: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of its file, also shown to people."""
        return f"{self.kind}-{self.start:09d}-{self.stop:09d}"


Task = tuple[Span, tuple[Any, ...]]
"""A span and the arguments of the work on it."""


class ShardQueue:
    """Submits spans to an engine and stores the bytes of their results.

    `folder` is for the shards of one digest: the folders beside it are of no use any more, and are erased.
    `is_complete` says whether bytes are a complete shard.
    """

    def __init__(
        self, folder: Path, engine: Engine, work: Callable[..., bytes], is_complete: Callable[[bytes], bool]
    ) -> None:
        self.folder, self.engine, self.work, self.is_complete = folder, engine, work, is_complete
        for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(parents=True, exist_ok=True)
        self.stored = [span for path in sorted(folder.iterdir()) if (span := _span_of(path.name))]

    def stop(self, kind: str, start: int, stop: int) -> int:
        """Where a span from `start` ends: with a stored one from there, else at `stop` or the start of a later one."""
        stored = [span for span in self.stored if span.kind == kind and span.start >= start]
        for span in stored:
            if span.start == start:
                return span.stop
        return min([stop, *(span.start for span in stored)])

    def run(self, plan: Callable[[], Task | None]) -> Generator[tuple[Span, bytes], None, None]:
        """The shards in the order in which `plan` returns them, each with its bytes.

        `plan` returns a span and the arguments of `work`; it is called whenever a worker is free. It returns None where
        nothing can begin before more results were consumed; where all were consumed, None ends the iteration.
        """
        pending: deque[Task] = deque()
        in_flight: set[str] = set()

        def submit(task: Task) -> None:
            span, arguments = task
            self.engine.submit(span.name, self.work, *arguments)
            in_flight.add(span.name)

        while True:
            while self._takes_more(pending, in_flight) and (task := plan()) is not None:
                pending.append(task)
                if not self._path(task[0].name).is_file():
                    submit(task)
            if not pending:
                return
            span, _ = pending[0]
            if span.name in in_flight:
                name, result = self.engine.next()
                write_atomic(self._path(name), result)
                in_flight.remove(name)
            elif (data := self._read(span)) is None:
                submit(pending[0])
            else:
                pending.popleft()
                yield span, data

    def replace(self, span: Span, data: bytes) -> None:
        """Store other bytes for a shard that was consumed: those still needed."""
        write_atomic(self._path(span.name), data)

    def _takes_more(self, pending: deque[Task], in_flight: set[str]) -> bool:
        """Whether a worker is free, and not too many results wait to be consumed."""
        oldest_done = pending and pending[0][0].name not in in_flight
        return not oldest_done and self.engine.free() > 0 and len(pending) < MAX_SHARDS_AHEAD * self.engine.workers()

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _read(self, span: Span) -> bytes | None:
        """The bytes of a stored shard; None where they are incomplete, after deleting the file."""
        path = self._path(span.name)
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            if self.is_complete(data):
                return data
            path.unlink()
        return None


def _span_of(name: str) -> Span | None:
    kind, *ends = name.split("-")
    return Span(kind, int(ends[0]), int(ends[1])) if len(ends) == 2 and all(map(str.isdecimal, ends)) else None


def attempts_to_begin(missing: int, in_flight: int, rate: float, workers: int, max_attempts: int) -> int:
    """How many attempts to begin now, with `missing` successes and `in_flight` attempts whose result is not known.

    A single worker begins no attempt that might not be needed. Several begin as many as are needed at the success
    `rate` so far, divided among them; `max_attempts` in one shard.
    """
    needed = missing if workers == 1 else math.ceil(missing / rate)
    return max(0, min(max_attempts, math.ceil(needed / workers), needed - in_flight))
