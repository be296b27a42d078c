"""`--log-json`: what the screen shows to people, as one JSON object a line on standard error, for machines.

Keys: `time` (UTC), `level` (info, error), `run` (where a worker tells of several), `stage`, `arm`, `seed` (null outside
a stage), `event` (planned, started, progress, cached, ran, resumed, message), `text`, and in a progress `done` of
`total` in `unit`, with the current `values`.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

from facegan.console.screen import LINE_EVERY_S
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.store.local import Artifact


def line(text: str, level: str = "info", event: str = "message", item: Node | None = None, **more: Any) -> None:
    """Write one line. `time` is UTC to the millisecond; `more` are further keys."""
    node_keys = {"stage": item and item.stage, "arm": item and item.arm, "seed": None if item is None else item.seed}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = {"time": now, "level": level, **node_keys, "event": event, "text": text, **more}
    sys.stderr.write(json.dumps(record, ensure_ascii=False) + "\n")
    sys.stderr.flush()


class JsonLog:
    """A RunObserver of the flow; a context manager like Screen."""

    def __init__(self, run: str = "") -> None:
        self._lock = threading.Lock()
        self._more = {"run": run} if run else {}
        self._items: dict[str, Node] = {}  # by title
        self._next_progress: dict[str, float] = {}

    def __enter__(self) -> JsonLog:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def line(self, text: str, level: str = "info") -> None:
        """One line that belongs to no stage."""
        self._write(text, level)

    answer = line

    def _write(
        self, text: str, level: str = "info", event: str = "message", item: Node | None = None, **more: Any
    ) -> None:
        with self._lock:
            line(text, level, event, item, **self._more, **more)

    def planned(self, recipe: Recipe, count: int) -> None:
        """See RunObserver."""
        self._write(f"recipe {recipe.name}: {count} stages", event="planned", total=count)

    def started(self, item: Node) -> None:
        """See RunObserver."""
        self._items[item.title] = item
        self._write("started", event="started", item=item)

    def event(self, event: Event) -> None:
        """See RunObserver."""
        item, now = self._items.get(event.title), time.monotonic()
        if event.kind == "message":
            self._write(event.text, item=item)
        elif event.kind == "progress" and (event.done >= event.total or now >= self._next_progress.get(event.title, 0)):
            self._next_progress[event.title] = now + LINE_EVERY_S
            values = {name: value for name, value in event.values.items() if math.isfinite(value)}  # JSON has no NaN
            progress: dict[str, Any] = {"done": event.done, "total": event.total, "unit": event.unit, "values": values}
            self._write(f"{event.done:g} of {event.total:g} {event.unit}", event="progress", item=item, **progress)

    def finished(self, item: Node, artifact: Artifact) -> None:
        """See RunObserver."""
        self._write(artifact.state, event=artifact.state, item=item, seconds=round(artifact.seconds, 3))

    def ended(self, text: str, why: str) -> None:
        """A run of a worker is over; `why` where it did not complete."""
        self._write(f"{text}: {why}" if why else text, "error" if why else "info", "ended")
