"""The events of a run, for a screen or a log."""

from __future__ import annotations

from typing import Protocol

from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.store.local import Artifact


class RunObserver(Protocol):
    """Receives what happens while a flow runs in this process: the command's screen, a log."""

    def planned(self, recipe: Recipe, count: int) -> None:
        """A run begins: so many stages, cached ones too."""

    def started(self, item: graph.Node) -> None:
        """A stage begins to work."""

    def event(self, event: Event) -> None:
        """A stage has emitted an event."""

    def finished(self, item: graph.Node, artifact: Artifact) -> None:
        """A stage is done, or was found in the store."""
