"""Generators trained in parts: by several ranks, or by one that holds but a few images at once; in double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from drawn import RUNTIME, Lab
from facegan.generation.options import TrainGan
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Context, OnEvent, silent
from facegan.stages import train_gan
from facegan.store.local import WORK
from facegan.training import launch
from facegan.training.checkpoints import Checkpoints
from gan_runs import small
from ranked import in_double

PENALISED = {"r1_gamma": 0.5, "r2_gamma": 0.2, "r1_interval": 3}
ADAPTIVE = {"interval": 2, "kimg": 0.1, "target": -0.9}  # p moves by 0.14 with batches of 7


def gan_options(kind: str, steps: int = 24, batch_size: int = 7, every: int = 0, **gan: Any) -> TrainGan:
    """A small generator; checkpoints at each `every` steps, or one before the last step."""
    kimg = {
        "kimg": steps * batch_size / 1000,
        "checkpoint_kimg": (every or steps - 1) * batch_size / 1000,
        "snapshot_kimg": steps * batch_size / 1000,
    }
    return TrainGan.model_validate({"gan": {"kind": kind, **small(kind), **gan}, "batch_size": batch_size, **kimg})


def gan_trained(
    chosen: TrainGan, people: Path, out: Path, ranks: int = 1, batch_gpu: int = 0, on_event: OnEvent = silent,
    device: str = "cpu", guide: Path | None = None,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """All tensors of the last checkpoint, by name: G, D, G_ema and both optimizers' moments. `out` is gone on with."""
    (out / WORK).mkdir(parents=True, exist_ok=True)
    runtime = RUNTIME.model_copy(update={"nproc_per_node": ranks, "batch_gpu": batch_gpu, "device": device})
    inputs = {"manifest": people, **({"guide": guide} if guide else {})}
    arguments, context = (chosen, inputs, out), Context(runtime, on_event, "training")
    if ranks == 1:
        in_double(train_gan.make, *arguments, context)
    else:
        launch.launch(in_double, (train_gan.make, *arguments), context)
    latest = Checkpoints(out / WORK).load_latest()
    assert latest is not None
    return dict(leaves("", latest[1]))


def leaves(name: str, state: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors in nested dicts, each with its path."""
    if isinstance(state, torch.Tensor):
        return [(name, state)]
    inner = state.items() if isinstance(state, dict) else ()
    return [leaf for key, value in inner for leaf in leaves(f"{name}/{key}", value)]


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of any number in two checkpoints, which are in double precision."""
    trained = [value.dtype for name, value in one.items() if name.startswith("/opt_g/")]
    assert one.keys() == other.keys() and torch.float64 in trained
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def people_of(recipe: Recipe, lab: Lab) -> Path:
    """What a generator is trained on."""
    return lab.stage(recipe, "prepare").path
