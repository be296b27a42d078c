"""Checks before the first stage for what would stop a run late: packages, a cluster, GPUs, networks that do not fit.

The checks are methods of the options (`Options.check`, `Options.try_out`) and, where a stage needs more than its
options, a function of its module (`try_out`); here they are called.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from facegan.core.digests import canonical
from facegan.core.options import Options
from facegan.pipeline.graph import Node
from facegan.runtime.options import Runtime


def check(nodes: Iterable[Node], runtime: Runtime) -> None:
    """Raise UserError where one of `nodes` (those that have to work) lacks something on this machine.

    Only what can be checked at once, without torch and without the network.
    """
    for options in _options_used(_distinct(nodes), runtime):
        options.check()


def try_out(nodes: Iterable[Node], runtime: Runtime) -> None:
    """Raise UserError where something that `nodes` need does not work: checks that take a few seconds, and torch."""
    distinct = _distinct(nodes)
    for options in _options_used(distinct, runtime):
        options.try_out()
    for item in distinct:
        stage = importlib.import_module(f"facegan.stages.{item.stage}")
        if hasattr(stage, "try_out"):
            stage.try_out(item.options, *_images(item), runtime)


def _distinct(nodes: Iterable[Node]) -> list[Node]:
    """One node of each stage with the same options and form of images: a study has many."""
    return list({(item.stage, canonical(item.hashed), _images(item)): item for item in nodes}.values())


def _images(item: Node) -> tuple[int, int]:
    """Channels and side, in px, of the images that a stage gets from `prepare`; (0, 0) where it gets none."""
    for needed in item.needs.values():
        if needed.stage == "prepare":
            return 3 if needed.hashed["color"] == "rgb" else 1, int(needed.hashed["size_px"])
    return 0, 0


def _options_used(nodes: list[Node], runtime: Runtime) -> Iterator[Options]:
    for item in nodes:
        yield from _parts(item.options)
    if any(item.stage == "synthesize" for item in nodes):
        yield runtime.engine


def _parts(value: Any) -> Iterator[Options]:
    """Options and all options inside them."""
    if isinstance(value, Options):
        yield value
        value = [getattr(value, name) for name in type(value).model_fields]
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _parts(part)
