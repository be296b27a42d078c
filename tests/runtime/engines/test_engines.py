"""The family of engines: none is part of a fingerprint, and none imports a cluster unasked."""

from __future__ import annotations

import pytest

from command_imports import modules_with
from drawn import RUNTIME
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import silent
from facegan.runtime.engines import ENGINES
from facegan.runtime.processes import ChildProcesses


@pytest.mark.parametrize("kind", sorted(ENGINES.load()))
def test_each_engine_is_in_no_fingerprint(recipe: Recipe, kind: str) -> None:
    other = recipe.model_copy(update={"runtime": RUNTIME.model_copy(update={"engine": ENGINES.get(kind)()})})
    assert [item.key for item in graph.build(other)] == [item.key for item in graph.build(recipe)]
    assert Recipe.model_validate(other.model_dump(mode="json")) == other


def test_no_cluster_is_imported_unasked() -> None:
    """Neither by the process that stages are forked from nor by a flow."""
    with ChildProcesses(RUNTIME) as processes:
        modules = processes.call("imports", modules_with, ("flows.pipeline",), silent)
    assert "distributed" not in modules and {"facegan.stages.synthesize", "prefect"} <= modules
    assert {"pandas", "PIL.TiffImagePlugin"} <= modules, "what every stage would import anew"
