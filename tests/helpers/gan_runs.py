"""Short trainings of generators, stopped where one likes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from drawn import pick, tiny
from facegan.generation.gans import GANS, AdversarialConfig
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event

ADVERSARIAL = [kind for kind, member in GANS.load().items() if issubclass(member, AdversarialConfig)]
CONDITIONAL = [kind for kind in ADVERSARIAL if GANS.get(kind).conditional]
SMALL: dict[str, Any] = {"channels": 8, "max_channels": 16, "code_dim": 8, "z_dim": 4, "ramp": None}
SMALLER: dict[str, dict[str, Any]] = {"refiner": {"channels": 4}}  # its U-net widens sixfold


def small(kind: str) -> dict[str, Any]:
    """The options of a small network and a short training, of those that the family has."""
    options = {**SMALL, **SMALLER.get(kind, {})}
    return {name: value for name, value in options.items() if name in GANS.get(kind).model_fields}


def gan_node(root: Path, kind: str = "cvae_gan", **changes: Any) -> Node:
    data = tiny(root).model_dump(mode="json")
    gan = {"kind": kind, **small(kind), **changes.pop("gan", {})}
    data["train_gan"] = {**data["train_gan"], **changes, "gan": gan}
    return pick(graph.build(Recipe.model_validate(data)), "train_gan")


class Stop(Exception):
    """Raised in the middle of a training, as a crash would come."""


def stop_at(nimg: int, kind: str = "progress") -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        seen = {"progress": event.done, "image": float(Path(event.path).stem[5:] or 0)}.get(event.kind, 0.0)
        if event.kind == kind and round(seen * 1000) >= nimg:
            raise Stop

    return on_event
