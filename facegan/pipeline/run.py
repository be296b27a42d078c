"""A recipe planned and checked once, for the command and for the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from facegan.data.suppression import SuppressionList
from facegan.pipeline import graph, preflight
from facegan.pipeline.disk import check_room
from facegan.recipe.load import in_workdir
from facegan.recipe.recipe import Recipe
from facegan.store.local import Store
from facegan.store.workdir import open_store


@dataclass(frozen=True)
class PlannedRun:
    """A run that may start: its nodes in order, those of them that are not in the store, and the last stage asked for.

    `until` None: all stages. `warning` says what may go wrong later, such as a disk that may be too small; often empty.
    """

    recipe: Recipe
    workdir: Path
    until: str | None
    store: Store
    nodes: list[graph.Node]
    unmade: list[graph.Node]
    warning: str


def nodes_of(recipe: Recipe, workdir: Path, until: str | None) -> list[graph.Node]:
    """The nodes of a run in a working directory, without the people who were erased there; raises ConfigError."""
    return graph.planned(in_workdir(recipe, workdir), SuppressionList.read(workdir), until)


@contextmanager
def planned_run(recipe: Recipe, workdir: Path, until: str | None, say: Callable[[str], None]) -> Iterator[PlannedRun]:
    """A run whose packages and disk space are checked. Nobody is erased until the context is left.

    `say` is called with what it waits for. Raises ConfigError for what cannot work, UserError for
    what is missing here, before anything is computed.
    """
    asked, workdir = recipe, workdir.expanduser().absolute()
    recipe = in_workdir(asked, workdir, say)
    suppressed = SuppressionList.read(workdir)
    nodes = graph.planned(recipe, suppressed, until)
    store = open_store(workdir, recipe.runtime)
    with store.in_use(say):
        if SuppressionList.read(workdir) != suppressed:  # somebody was erased while this waited
            recipe = in_workdir(asked, workdir, say)
            nodes = nodes_of(recipe, workdir, until)
        unmade = graph.unmade(nodes, store)
        preflight.check(unmade, recipe.runtime)
        warning = check_room(unmade, store, recipe.runtime)
        yield PlannedRun(recipe, workdir, until, store, nodes, unmade, warning)
