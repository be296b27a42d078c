"""The graph of a recipe: its order, and what is in no fingerprint."""

from __future__ import annotations

from facegan.pipeline.graph import build
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe


def test_graph_names_every_stage_once_per_arm_and_seed() -> None:
    recipe = load("orl-tiny")
    nodes = build(recipe)
    runs = [(item.stage, item.arm, item.seed) for item in nodes]
    assert len(runs) == len(set(runs))
    position = {item.key: index for index, item in reversed(list(enumerate(nodes)))}
    for index, item in enumerate(nodes):
        assert all(position[needed.key] < index for needed in item.needs.values())


def test_runtime_is_in_no_fingerprint() -> None:
    recipe = load("orl-tiny")
    other = Recipe.model_validate({**recipe.model_dump(), "runtime": {"jobs": 7, "threads": 3, "log_interval_s": 9}})
    assert [item.key for item in build(recipe)] == [item.key for item in build(other)]
