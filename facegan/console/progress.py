"""Progress of a command that is no flow: a bar on a terminal, elsewhere a line every LINE_EVERY_S seconds."""

from __future__ import annotations

import time
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from facegan.console.screen import LINE_EVERY_S, Meter, console
from facegan.runtime.context import Event

UPDATE_EVERY_S = 0.1


class _CommandProgress:
    """A context manager that takes its bar away; without `columns` there is no bar on a terminal either."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._console, self._started = console(), time.monotonic()
        self._next_line = self._started + LINE_EVERY_S
        self._bar: Progress | None = None
        if columns and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=None, text="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def _line_is_due(self, now: float) -> bool:
        """Whether a line is to be printed now, where there is no bar; the next is then due LINE_EVERY_S later."""
        if self._bar or now < self._next_line:
            return False
        self._next_line = now + LINE_EVERY_S
        return True


class ProgressBar(_CommandProgress):
    """Progress of a known total, with rate and time left."""

    def __init__(self, title: str, unit: str) -> None:
        super().__init__(TextColumn(title, markup=False), BarColumn(20), TextColumn("{task.fields[text]}"))
        self._title, self._unit = title, unit
        self._meter = Meter(time.monotonic())

    def at(self, done: int, total: int) -> None:
        """So many of so many are done."""
        now = time.monotonic()
        if self._meter.first is not None and done < total and now < self._meter.last[0] + UPDATE_EVERY_S:
            return
        self._meter.add(Event("progress", done=done, total=total, unit=self._unit), now)
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, text=self._meter.text())
        elif done < total and self._line_is_due(now):
            self._console.print(f"{self._title}: {self._meter.text()}", markup=False, soft_wrap=True)


class ImageCounter(_CommandProgress):
    """Progress of images whose number is not known: how many are `verb` (read, written). A bar where it has a title."""

    def __init__(self, verb: str, bar_title: str | None = None) -> None:
        if bar_title is None:
            super().__init__()
        else:
            columns = TextColumn(bar_title), BarColumn(20), MofNCompleteColumn(), TextColumn("images")
            super().__init__(*columns, TimeRemainingColumn())
        self._verb = verb

    def at(self, count: int) -> None:
        """So many images are done."""
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=count)
        elif self._line_is_due(now):
            rate = count / (now - self._started)
            self._console.print(f"{count:,} images {self._verb} ({rate:,.0f} images/s)")
