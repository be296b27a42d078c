"""Events of a stage as Prefect artifacts: progress, pictures, tables. Nothing here can fail a run."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_logger, get_run_logger

from facegan.config import Recipe
from facegan.events import Event
from facegan.graph import Node
from facegan.store import Artifact
from flows.answer import arms_table, read_results, sentence

INTERVAL_S = 5.0
PICTURE_PX = 640


class StageArtifacts:
    """What one stage shows in Prefect while it runs."""

    def __init__(self, item: Node) -> None:
        self._key, self._title = slug(item.title), item.title
        self._progress: Any = None  # a UUID
        self._percent, self._next, self._text = 0.0, 0.0, ""
        self._show: dict[str, Callable[[Event], None]] = {
            "progress": self._on_progress,
            "image": self._on_image,
            "table": self._on_table,
            "message": self._on_message,
        }

    @contextmanager
    def shown(self) -> Iterator[Callable[[Event], None]]:
        """Yields what is to be called with each event; progress ends at 100 if the stage does not raise."""
        yield self._event
        if self._progress is not None and self._percent < 100:
            guarded(update_progress_artifact, self._progress, 100.0, self._text)

    def _event(self, event: Event) -> None:
        guarded(self._show[event.kind], event)

    def _on_progress(self, event: Event) -> None:
        values = "".join(f", {name} {value:.4g}" for name, value in event.values.items())
        self._text = f"{self._title}: {event.done:g} of {event.total:g} {event.unit}{values}"
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL_S
        self._percent = 100 * event.done / max(event.total, 1e-12)
        if self._progress is None:
            self._progress = create_progress_artifact(self._percent, f"{self._key}-progress", self._text)
        else:
            update_progress_artifact(self._progress, self._percent, self._text)

    def _on_image(self, event: Event) -> None:
        create_image_artifact(data_uri(Path(event.path)), f"{self._key}-samples", event.text)

    def _on_table(self, event: Event) -> None:
        rows = [{name: str(value) for name, value in row.items()} for row in event.rows]
        create_table_artifact(rows, slug(f"{self._key}-{event.text}")[:100], f"{self._title}: {event.text}")

    def _on_message(self, event: Event) -> None:
        get_run_logger().info(event.text)


def verdict(recipe: Recipe, report: Artifact) -> None:
    """The verdict, the arms' figures and their picture: the last artifact of a run that made a report."""
    if report.stage in ("report", "study"):
        guarded(_verdict, recipe, report.path)


def _verdict(recipe: Recipe, folder: Path) -> None:
    header, rows = arms_table(read_results(folder))
    lines = [f"**{sentence(folder)}**", "", _row(header), _row(["---"] * len(header)), *map(_row, rows)]
    for picture in (folder / "figures" / name for name in ("arms.png", "variants.png")):  # of a report, of a study
        if picture.is_file():
            lines += ["", f"![the arms side by side]({data_uri(picture)})"]
    create_markdown_artifact("\n".join(lines), slug(f"{recipe.name}-verdict"), sentence(folder))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def slug(text: str) -> str:
    """A key as Prefect wants it: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def data_uri(path: Path) -> str:
    """A picture as a data: URI, made small: Prefect keeps it in its database."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def guarded(function: Callable[..., Any], *arguments: Any) -> None:
    """Call it; an error is logged and goes no further: what is shown never decides how a stage ends."""
    try:
        function(*arguments)
    except Exception as error:
        get_logger("facegan").warning("could not show something in Prefect: %s", error)
