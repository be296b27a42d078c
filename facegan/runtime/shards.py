"""Shards: spans of a stage's work, which any engine may do, whose results are kept and taken in in order.

A finished shard lies in a folder of the stage's `work/`, so that a run that was stopped goes on at the next one.
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

MAX_SHARDS_AHEAD = 8  # shards of a worker, at most, from the first that is not done to the last that is handed out


@dataclass(frozen=True)
class Span:
    """The places start .. stop - 1 of one kind of work."""

    kind: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its file, and for people."""
        return f"{self.kind}-{self.start:09d}-{self.stop:09d}"


Task = tuple[Span, tuple[Any, ...]]
"""A span and the arguments of the work on it."""


class ShardQueue:
    """Hands spans out to an engine and takes their bytes in.

    `folder` is for these shards alone, of this digest: those that lie beside it are of no use any more, and erased.
    `whole` says whether bytes are a whole shard.
    """

    def __init__(
        self, folder: Path, engine: Engine, work: Callable[..., bytes], whole: Callable[[bytes], bool]
    ) -> None:
        self.folder, self.engine, self.work, self.whole = folder, engine, work, whole
        for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(parents=True, exist_ok=True)
        self.stored = [span for path in sorted(folder.iterdir()) if (span := _span(path.name))]

    def stop(self, kind: str, start: int, stop: int) -> int:
        """Where a span that begins at `start` ends: as one that is stored, else at `stop` or where one begins."""
        later = [span for span in self.stored if span.kind == kind and span.start >= start]
        for span in later:
            if span.start == start:
                return span.stop
        return min([stop, *(span.start for span in later)])

    def run(self, plan: Callable[[], Task | None]) -> Generator[tuple[Span, bytes], None, None]:
        """The shards in the order in which `plan` gives them, each with its bytes.

        `plan` is asked for a span and the arguments of `work` whenever somebody could work, and says None where there
        is nothing to do before more is taken in; where all is taken in, that is the end.
        """
        order: deque[Task] = deque()
        out: set[str] = set()

        def submit(task: Task) -> None:
            span, arguments = task
            self.engine.submit(span.name, self.work, *arguments)
            out.add(span.name)

        while True:
            while self._takes_more(order, out) and (task := plan()) is not None:
                order.append(task)
                if not self._path(task[0].name).is_file():
                    submit(task)
            if not order:
                return
            span, _ = order[0]
            if span.name in out:
                name, data = self.engine.next()
                write_atomic(self._path(name), data)
                out.remove(name)
            elif (stored := self._read(span)) is None:
                submit(order[0])
            else:
                order.popleft()
                yield span, stored

    def replace(self, span: Span, data: bytes) -> None:
        """Keep other bytes of a shard that was taken in: those of them that are still needed."""
        write_atomic(self._path(span.name), data)

    def _takes_more(self, order: deque[Task], out: set[str]) -> bool:
        """Whether a worker is free, and there is not enough yet that waits to be taken in."""
        waits = order and order[0][0].name not in out
        return not waits and self.engine.free() > 0 and len(order) < MAX_SHARDS_AHEAD * self.engine.workers()

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _read(self, span: Span) -> bytes | None:
        """The bytes of a stored shard, None where they are not whole: then the file is gone."""
        path = self._path(span.name)
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            if self.whole(data):
                return data
            path.unlink()
        return None


def _span(name: str) -> Span | None:
    kind, *ends = name.split("-")
    return Span(kind, int(ends[0]), int(ends[1])) if len(ends) == 2 and all(map(str.isdecimal, ends)) else None


def attempts_to_begin(missing: int, unknown: int, rate: float, workers: int, most: int) -> int:
    """How many attempts to begin now, where so many successes are missing and so many attempts are under way.

    A single worker begins no attempt that might not be needed. Several begin as many as it takes at the rate of
    success so far, shared out among them; `most` in one shard.
    """
    wanted = missing if workers == 1 else math.ceil(missing / rate)
    return max(0, min(most, math.ceil(wanted / workers), wanted - unknown))
