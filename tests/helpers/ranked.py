"""Trainings by several ranks, in double precision so that only the maths can differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from drawn import BACKBONE_ARGS, RUNTIME, Lab, pick
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.recognition import training
from facegan.recognition.options import TrainRecognizer
from facegan.runtime.context import Context, OnEvent, silent
from facegan.store.local import WORK
from facegan.training import launch

VIT = {"backbone": "test_vit", "backbone_args": {"patch_size": 8}}  # layer norm but for the embedding layer


def in_float64(*arguments: Any) -> None:
    """train_recognizer with all its numbers in double precision."""
    in_double(training.train, *arguments)


def in_double(work: Callable[..., None], *arguments: Any) -> None:
    """`work(*arguments)` with all its numbers in double precision."""
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        work(*arguments)
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)


def options(**changes: Any) -> TrainRecognizer:
    """A small recognizer whose batches (of 7) have no even halves; the weights of the last step are kept."""
    base = {"backbone_args": BACKBONE_ARGS, "embedding_dim": 16, "steps": 50, "batch_size": 7, "evaluations": 1}
    return TrainRecognizer(**{**base, **changes})


def trained(
    chosen: TrainRecognizer, inputs: dict[str, Path], out: Path, ranks: int, on_event: OnEvent = silent,
    device: str = "cpu", double: bool = True,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """The tensors of the embedder that so many ranks make in `out`, gone on with where it was begun."""
    work, runtime = in_float64 if double else training.train, RUNTIME.model_copy(update={"device": device})
    arguments = (chosen, {"seed": 0}, inputs, out)
    (out / WORK).mkdir(parents=True, exist_ok=True)
    if ranks == 1:
        work(*arguments, Context(runtime, on_event))
    else:
        several = runtime.model_copy(update={"nproc_per_node": ranks})
        launch.launch(work, arguments, Context(several, on_event, "training"))
    return load_file(out / "embedder.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of any number in two embedders, which are in double precision."""
    assert one.keys() == other.keys() and one["project.weight"].dtype == torch.float64
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def rows_of(recipe: Recipe, lab: Lab) -> dict[str, Path]:
    """What a recognizer is trained on: real and synthetic rows, and the val people."""
    node = pick(graph.build(recipe), "train_recognizer", "real+synthetic", 0)
    return {name: lab.make(needed).path for name, needed in node.needs.items()}
