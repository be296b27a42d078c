"""What would stop a run late, told before its first stage: packages, a cluster, GPUs, networks that do not fit.

Options say it of themselves (`Options.check`, `Options.try_out`), and a stage where it takes more than its options (its
module's `try_out`); here they are asked.
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

    Only what can be told at once, without torch and without the network.
    """
    for part in _asked(_different(nodes), runtime):
        part.check()


def try_out(nodes: Iterable[Node], runtime: Runtime) -> None:
    """Raise UserError where something that `nodes` ask for does not work: what takes a few seconds, and torch."""
    different = _different(nodes)
    for part in _asked(different, runtime):
        part.try_out()
    for item in different:
        stage = importlib.import_module(f"facegan.stages.{item.stage}")
        if hasattr(stage, "try_out"):
            stage.try_out(item.options, *_images(item), runtime)


def _different(nodes: Iterable[Node]) -> list[Node]:
    """One node of each stage with the same options and form of images: a study has many."""
    return list({(item.stage, canonical(item.hashed), _images(item)): item for item in nodes}.values())


def _images(item: Node) -> tuple[int, int]:
    """Channels and side, in px, of the images that a stage gets from `prepare`; (0, 0) where it gets none."""
    for needed in item.needs.values():
        if needed.stage == "prepare":
            return 3 if needed.hashed["color"] == "rgb" else 1, int(needed.hashed["size_px"])
    return 0, 0


def _asked(nodes: list[Node], runtime: Runtime) -> Iterator[Options]:
    for item in nodes:
        yield from _parts(item.options)
    if any(item.stage == "synthesize" for item in nodes):
        yield runtime.engine


def _parts(value: Any) -> Iterator[Options]:
    """A config and all configs that it is made of."""
    if isinstance(value, Options):
        yield value
        value = [getattr(value, name) for name in type(value).model_fields]
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _parts(one)
