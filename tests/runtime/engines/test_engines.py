"""The family of engines: none is part of a fingerprint, and none imports a cluster unasked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drawn import RUNTIME
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.runtime.engines import ENGINES


@pytest.mark.parametrize("kind", sorted(ENGINES.load()))
def test_each_engine_is_in_no_fingerprint(recipe: Recipe, kind: str) -> None:
    other = recipe.model_copy(update={"runtime": RUNTIME.model_copy(update={"engine": ENGINES.get(kind)()})})
    assert [item.key for item in graph.build(other)] == [item.key for item in graph.build(recipe)]
    assert Recipe.model_validate(other.model_dump(mode="json")) == other


def test_no_cluster_is_imported_unasked() -> None:
    code = (
        "import sys, facegan.stages.synthesize, facegan.pipeline.preload, flows.pipeline; "
        "print('distributed' in sys.modules, flush=True)"  # who preloads ends without tidying up
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert process.stdout.split() == ["False"]
