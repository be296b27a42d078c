"""What a stage reports while it works: plain events to a plain callback. `flows/` displays them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from facegan.runtime.options import Runtime


@dataclass(frozen=True)
class Event:
    """`progress` (done of total units, with current `values`), `image` (a file), `table` (rows) or `message`.

    `title` is that of the node which sends it.
    """

    kind: Literal["progress", "image", "table", "message"]
    title: str = ""
    text: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""
    values: dict[str, float] = field(default_factory=dict)
    path: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)


OnEvent = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore an event."""


class Context:
    """What a stage is given beside config and inputs: where to run, where events go, and a cache.

    `cache` is a folder for what later runs may use and what may be deleted at any time; None: nothing is kept. `raw`
    are the fingerprints of inputs that are no stage, as they were when the run was planned.
    """

    def __init__(
        self,
        runtime: Runtime,
        on_event: OnEvent = silent,
        title: str = "",
        cache: Path | None = None,
        raw: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.runtime, self.cache, self.raw = runtime, cache, raw
        self.title, self._send, self._blank = title, on_event, Event("message", title)
        self._last_progress = 0.0

    def progress(self, done: float, total: float, unit: str, **values: float) -> None:
        """Send at most one event in `runtime.log_interval_s`, and always the last one."""
        now = time.monotonic()
        if done >= total or now - self._last_progress >= self.runtime.log_interval_s:
            self._last_progress = now
            self._emit(kind="progress", done=done, total=total, unit=unit, values=values)

    def image(self, path: Path, text: str) -> None:
        """Send a picture worth looking at now."""
        self._emit(kind="image", path=str(path), text=text)

    def table(self, rows: list[dict[str, Any]], text: str) -> None:
        """Send a small table: counts of a filter, of a quarantine."""
        self._emit(kind="table", rows=rows, text=text)

    def say(self, text: str) -> None:
        """Send one line that a person should read."""
        self._emit(kind="message", text=text)

    def relay(self, event: Event) -> None:
        """Send on an event of another process of this node."""
        self._send(replace(event, title=self.title))

    def _emit(self, **changes: Any) -> None:
        self._send(replace(self._blank, **changes))
