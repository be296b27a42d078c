"""Events of a stage as Prefect artifacts: progress, pictures, tables. An error here never fails a run."""

from __future__ import annotations

import base64
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_logger, get_run_logger

from facegan.console import tables
from facegan.console.screen import Meter
from facegan.core.units import format_seconds
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.reporting.summary import arms_table, read_results, sentence
from facegan.runtime.context import Event
from facegan.store.local import Artifact

if TYPE_CHECKING:
    from facegan.promotion.promote import Decision

INTERVAL_S = 5.0
PATIENCE_S = 2.0  # shorter stages get no bar: a study has hundreds of stages
PICTURE_PX = 640
PICTURE_BYTES = 150_000
TABLE_ROWS = 50
CELL_CHARS = 200


class RunArtifact:
    """A RunObserver that shows the progress of the whole run: stages done, running stages, time left."""

    def __init__(self) -> None:
        self._name, self._total = "", 0
        self._lock = threading.Lock()
        self._started, self._next_update = time.monotonic(), 0.0
        self._running: list[str] = []
        self._ran, self._cached = 0, 0
        self._artifact: Any = None  # a UUID

    def planned(self, recipe: Recipe, count: int) -> None:
        """See RunObserver."""
        self._name, self._total = recipe.name, count
        guarded(self._create)

    def _create(self) -> None:
        self._artifact = create_progress_artifact(0.0, slug(f"{self._name}-stages"), self.text())

    def started(self, item: Node) -> None:
        """See RunObserver."""
        with self._lock:
            self._running.append(item.title)
            self._update()

    def event(self, event: Event) -> None:
        """See RunObserver: the events of a stage are shown by StageArtifacts."""

    def finished(self, item: Node, artifact: Artifact) -> None:
        """See RunObserver."""
        with self._lock:
            self._running = [title for title in self._running if title != item.title]
            self._ran += artifact.state != "cached"
            self._cached += artifact.state == "cached"
            self._update()

    def _update(self) -> None:
        now, done = time.monotonic(), self._ran + self._cached
        if self._artifact is not None and (now >= self._next_update or done == self._total):
            self._next_update = now + INTERVAL_S / 5
            guarded(update_progress_artifact, self._artifact, round(100 * done / self._total, 1), self.text())

    def text(self) -> str:
        """`7 of 23 stages done (3 cached), 4.2 stages/min, 3 min 50 s left; now train_gan`."""
        done, seconds = self._ran + self._cached, time.monotonic() - self._started
        parts = [f"{done} of {self._total} stages done" + (f" ({self._cached} cached)" if self._cached else "")]
        if self._ran and done < self._total:
            rate = self._ran / seconds
            parts += [f"{60 * rate:.2g} stages/min", f"{format_seconds((self._total - done) / rate)} left"]
        text = ", ".join(parts)
        return f"{text}; now {', '.join(self._running)}" if self._running else text


class StageArtifacts:
    """What one stage shows in Prefect while it runs."""

    def __init__(self, item: Node) -> None:
        self._key, self._title = slug(item.title), item.title
        self._progress: Any = None  # a UUID
        self._meter = Meter(time.monotonic())
        self._next_update = self._meter.started + PATIENCE_S
        self._samples: Any = None  # a UUID
        self._handlers: dict[str, Callable[[Event], None]] = {
            "progress": self._on_progress,
            "image": self._on_image,
            "table": self._on_table,
            "message": self._on_message,
        }

    @contextmanager
    def shown(self) -> Iterator[Callable[[Event], None]]:
        """Yield the function to call with each event; progress ends at 100 % if the stage does not raise."""
        yield self._event
        if self._progress is not None:
            took = format_seconds(time.monotonic() - self._meter.started)
            text = f"{self._title}: {self._meter.total:.4g} {self._meter.unit}, done in {took}"
            guarded(update_progress_artifact, self._progress, 100.0, text)

    def _event(self, event: Event) -> None:
        guarded(self._handlers[event.kind], event)

    def _on_progress(self, event: Event) -> None:
        now = time.monotonic()
        self._meter.add(event, now)
        if now < self._next_update:
            return
        self._next_update = now + INTERVAL_S
        percent, text = round(100 * event.done / max(event.total, 1e-12), 1), f"{self._title}: {self._meter.text()}"
        if self._progress is None:
            self._progress = create_progress_artifact(percent, f"{self._key}-progress", text)
        else:
            update_progress_artifact(self._progress, percent, text)

    def _on_image(self, event: Event) -> None:
        """The newest grid replaces the one before; all of them are in the stage's folder.

        As markdown: Prefect's page of an image artifact shows the whole data: URI as text.
        """
        text = f"![samples]({data_uri(Path(event.path))})\n\n{event.text}"
        if self._samples is None:
            self._samples = create_markdown_artifact(text, f"{self._key}-samples", event.text)
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._samples, ArtifactUpdate(data=text, description=event.text))

    def _on_table(self, event: Event) -> None:
        create_table_artifact(
            small(event.rows), slug(f"{self._key}-{event.text}")[:100], f"{self._title}: {event.text}"
        )

    def _on_message(self, event: Event) -> None:
        get_run_logger().info(event.text)


def show_verdict(recipe: Recipe, page: Path) -> None:
    """The verdict, the arms' figures and their picture, and where the report is: the last artifact of a run."""
    guarded(_show_verdict, recipe, page)


def _show_verdict(recipe: Recipe, page: Path) -> None:
    folder = page.parent
    answer = read_results(folder)
    header, rows = arms_table(answer)
    lines = [
        f"**{sentence(folder)}**",
        "",
        answer["look"]["text"],
        "",
        _row(header),
        _row(["---"] * len(header)),
        *map(_row, rows),
    ]
    for picture in (folder / "figures" / name for name in ("arms.png", "variants.png")):  # of a report, of a study
        if picture.is_file():
            lines += ["", f"![the arms side by side]({data_uri(picture)})"]
    lines += ["", f"[The full report]({page.as_uri()}), on the machine that ran it:", "", "```", str(page), "```"]
    create_markdown_artifact("\n".join(lines), slug(f"{recipe.name}-verdict"), sentence(folder))


def show_decision(recipe: Recipe, decision: Decision, message: str) -> None:
    """What became of the challenger: figures of both models, the gates, and the decision as one line, `message`."""
    guarded(_show_decision, recipe, decision, message)


def _show_decision(recipe: Recipe, decision: Decision, message: str) -> None:
    lines = [f"**{message}**"]
    if decision.results is not None:
        for header, rows in tables.comparison_tables(decision.results, decision.version, decision.champion):
            lines += ["", _row(header), _row(["---"] * len(header)), *map(_row, rows)]
    lines += ["", *(f"- {remark}" for remark in decision.remarks)]
    create_markdown_artifact("\n".join(lines), slug(f"{recipe.name}-promotion"), message)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def small(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A table as text, cut to TABLE_ROWS rows and CELL_CHARS characters a cell."""
    return [{name: str(value)[:CELL_CHARS] for name, value in row.items()} for row in rows[:TABLE_ROWS]]


def slug(text: str) -> str:
    """An artifact key in Prefect's form: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def data_uri(path: Path) -> str:
    """A picture as a data: URI of at most PICTURE_BYTES: Prefect keeps it in its database."""
    from PIL import Image

    with Image.open(path) as picture:
        image = picture.convert("RGB")
    if (factor := PICTURE_PX // max(image.size)) > 1:  # pages show pictures as large as they are
        image = image.resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
    for side, quality in ((PICTURE_PX, 85), (PICTURE_PX, 60), (PICTURE_PX // 2, 60), (PICTURE_PX // 4, 60)):
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if len(uri) <= PICTURE_BYTES:
            break
    return uri


def guarded(function: Callable[..., Any], *arguments: Any) -> None:
    """Call the function; an error is logged and not raised, so that showing something never fails a stage."""
    try:
        function(*arguments)
    except Exception as error:
        get_logger("facegan").warning("could not show something in Prefect: %s", error)
