"""Progress of a run: a bar for each running stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from facegan.core.units import format_seconds
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.store.local import Artifact

LINE_EVERY_S = 10.0


def console(to_stderr: bool = True) -> Console:
    """A console; without a terminal its lines are long enough not to be broken."""
    result = Console(stderr=to_stderr, highlight=False, soft_wrap=False)
    if not result.is_terminal:
        result.width = 160
    return result


@dataclass
class Meter:
    """How far a stage is: `done` of `total`, its rate since it (re)started, its last values."""

    started: float
    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)
    total: float = 0.0
    unit: str = ""
    values: dict[str, float] = field(default_factory=dict)
    next_line: float = 0.0

    def add(self, event: Event, now: float) -> None:
        """Take a progress event in."""
        if self.first is None or event.done < self.last[1]:
            self.first = (now, event.done)
        self.last, self.total, self.unit = (now, event.done), event.total, event.unit
        self.values.update(event.values)

    def text(self) -> str:
        """`3.2 of 18 kimg, 0.05 kimg/s, 4 min 12 s left, loss 1.2`."""
        if self.first is None:
            return ""
        parts = [f"{self.last[1]:.4g} of {self.total:.4g} {self.unit}"]
        seconds, done = self.last[0] - self.first[0], self.last[1] - self.first[1]
        if seconds > 0 and done > 0:
            rate = done / seconds
            parts += [f"{rate:.3g} {self.unit}/s", f"{format_seconds((self.total - self.last[1]) / rate)} left"]
        order = sorted(self.values, key=lambda name: name not in ("loss", "val_eer", "d", "g"))
        return ", ".join([*parts, *(f"{name} {self.values[name]:.3g}" for name in order[:2])])


class Screen:
    """A RunObserver of the flow; a context manager that takes its bars away."""

    def __init__(self, run: str = "") -> None:
        self.console = console()
        self._run = f"{run} | " if run else ""  # where several runs share a screen
        self._lock = threading.Lock()
        self._meters: dict[str, Meter] = {}  # by title
        self._bars: dict[str, Any] = {}
        self._total, self._finished = 0, 0
        self._progress: Progress | None = None
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(20),
                TextColumn("{task.fields[text]}"),
            )
            self._progress = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> Screen:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def line(self, text: str, level: str = "info") -> None:
        """Print a line, above the bars where there are any; its `level` is for JsonLog."""
        self.console.print(text, markup=False, soft_wrap=True)
        if not self._progress:
            sys.stderr.flush()

    def answer(self, text: str) -> None:
        """Print the command's answer on standard output."""
        print(text, flush=True)

    def planned(self, recipe: Recipe, count: int) -> None:
        """See RunObserver."""
        self._total = count

    def _timed_line(self, text: str) -> None:
        self.line(f"{_clock()} {self._run}{text}")

    def started(self, item: Node) -> None:
        """See RunObserver."""
        with self._lock:
            self._meters[item.title] = Meter(time.monotonic())
            if self._progress:
                self._bars[item.title] = self._progress.add_task(item.title, total=None, text="")
            else:
                self._timed_line(f"{item.title}: started")

    def event(self, event: Event) -> None:
        """See RunObserver."""
        with self._lock:
            if event.kind == "message":
                self._timed_line(f"{event.title}: {event.text}")
            elif event.kind == "progress" and event.title in self._meters:
                self._on_progress(event)

    def _on_progress(self, event: Event) -> None:
        meter, now = self._meters[event.title], time.monotonic()
        meter.add(event, now)
        if self._progress:
            self._progress.update(self._bars[event.title], completed=event.done, total=event.total, text=meter.text())
        elif now >= meter.next_line and event.done < event.total:
            first, meter.next_line = meter.next_line == 0, now + LINE_EVERY_S
            if not first:
                self._timed_line(f"{event.title}: {meter.text()}")

    def finished(self, item: Node, artifact: Artifact) -> None:
        """See RunObserver."""
        with self._lock:
            self._finished += 1
            self._meters.pop(item.title, None)
            if self._progress and item.title in self._bars:
                self._progress.remove_task(self._bars.pop(item.title))
            how = {"cached": "cached, verified", "ran": "done", "resumed": "done, resumed"}[artifact.state]
            took = f" in {format_seconds(artifact.seconds)}" if artifact.state != "cached" else ""
            self._timed_line(f"{item.title}: {how}{took} ({self._finished} of {self._total})")

    def ended(self, text: str, why: str) -> None:
        """A run of a worker is over; `why` where it did not complete."""
        self._timed_line(f"{text}: {' '.join(why.split())}" if why else text)


def _clock() -> str:
    return time.strftime("%H:%M:%S")
