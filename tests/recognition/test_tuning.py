"""What of a network is trained: by stage, with what is frozen left as it is, and each stage at its rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from drawn import BACKBONE_ARGS, RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import training, tuning
from facegan.recognition.embedder import Embedder
from facegan.recognition.options import Search, TrainRecognizer

SMALL: dict[str, Any] = {"backbone_args": BACKBONE_ARGS, "embedding_dim": 16}


def recognizer(recipe: Recipe, **changes: Any) -> Node:
    changed = tiny(recipe.prepare.source.root, train_recognizer=changes)  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_stages_hold_each_parameter_once_from_the_input_on(backbone: str) -> None:
    args = BACKBONE_ARGS if backbone == "resnet10t" else {"depth": 2} if backbone.startswith("vit") else {}
    net = Embedder(TrainRecognizer(backbone=backbone, backbone_args=args, embedding_dim=16), 3, 32)
    found = tuning.stages(net)
    assert sorted(name for stage in found for name in stage) == sorted(name for name, _ in net.named_parameters())
    assert found[-1] == ["project.weight", "norm.weight", "norm.bias"] and len(found) >= 4
    first = next(name for name, parameter in net.named_parameters() if parameter.ndim == 4)
    assert first in found[0]
    assert sum(net.get_parameter(name).numel() for name in found[-2]) > 1000  # a stage, and no norm alone


def test_stages_of_a_resnet_are_its_own() -> None:
    found = tuning.stages(Embedder(TrainRecognizer(**SMALL), 1, 32))
    assert [{".".join(name.split(".")[:2]) for name in stage} for stage in found[1:-1]] == [
        {f"backbone.layer{number}"} for number in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("tune", "moving"), [("frozen", {"project", "norm"}), ("last-stage", {"backbone.layer4", "project", "norm"})]
)
def test_what_is_frozen_keeps_its_bytes(recipe: Recipe, lab: Lab, tune: str, moving: set[str]) -> None:
    """Running statistics too; the rest moves."""
    given = lab.make(recognizer(recipe)).path / "embedder.safetensors"
    node = recognizer(recipe, weights=str(given), tune=tune, steps=2, evaluations=1, lr=1e-2, ema=0.5)
    assert node.config["tune"] == tune and "tune" not in recognizer(recipe).config
    began, ended = load_file(given), load_file(lab.make(node).path / "embedder.safetensors")
    changed = {name for name in began if not torch.equal(began[name], ended[name])}
    parts = {".".join(name.split(".")[:2]) if name.startswith("backbone") else name.split(".")[0] for name in changed}
    assert parts == moving


def test_a_frozen_part_gives_the_same_in_training_as_after_it() -> None:
    """Neither batch statistics nor dropout."""
    options = TrainRecognizer.model_validate(
        {"backbone_args": {**BACKBONE_ARGS, "drop_path_rate": 0.9}, "start": {"kind": "file"}, "tune": "last-stage"}
    )
    net = Embedder(options, 1, 32)
    tuning.freeze(net, options)
    img = torch.rand(4, 1, 32, 32)
    seen: list[torch.Tensor] = []
    layer3: Any = net.backbone.layer3
    layer3.register_forward_hook(lambda module, args, output: seen.append(output))
    for prepare in (lambda: tuning.train_mode(net), net.eval):
        prepare()
        net(img)
    assert torch.equal(seen[0], seen[1]) and not seen[0].requires_grad
    tuning.train_mode(net)
    layer4: Any = net.backbone.layer4
    assert layer4.training and net.norm.training and not layer3.training


def test_the_rate_falls_by_stage_towards_the_input() -> None:
    options = TrainRecognizer(layer_decay=0.5, weight_decay=0.1, **SMALL)
    net, head = Embedder(options, 1, 32), nn.Linear(16, 3)
    groups = tuning.decay_groups(net, head, options)
    rate = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    everything = [*net.named_parameters(), *head.named_parameters()]
    assert len(rate) == len(everything) == sum(len(group["params"]) for group in groups)
    expected = {"conv1": 1 / 32, "bn1": 1 / 32, "layer1": 1 / 16, "layer2": 1 / 8, "layer3": 1 / 4, "layer4": 1 / 2}
    for name, parameter in everything:
        assert rate[id(parameter)] == expected.get(name.removeprefix("backbone.").split(".")[0], 1)
        assert decay[id(parameter)] == (0.1 if parameter.ndim > 1 else 0)


def test_a_rate_by_stage_moves_the_weights_by_it(recipe: Recipe, lab: Lab) -> None:
    """AdamW's first step moves each weight by about the rate."""
    still = {"weight_decay": 0.0, "evaluations": 1, "warmup": 0.0, "lr": 1e-3}
    given = lab.make(recognizer(recipe, steps=1, **{**still, "lr": 1e-30})).path / "embedder.safetensors"
    began = load_file(given)
    node = recognizer(recipe, weights=str(given), steps=1, layer_decay=0.1, **still)
    ended = load_file(lab.make(node).path / "embedder.safetensors")
    moved = {
        part: max(
            (ended[name] - began[name]).abs().max().item()
            for name in began
            if f"{part}." in f".{name}" and name.endswith(("weight", "bias"))
        )
        for part in (".project", ".layer4", ".layer2")
    }
    assert moved == pytest.approx({".project": 1e-3, ".layer4": 1e-4, ".layer2": 1e-6}, rel=0.02)


def test_weights_are_pulled_to_where_they_began(recipe: Recipe, lab: Lab) -> None:
    """Half the way back after one step at rate x strength of a half; the layer that began at random is left alone."""
    given = lab.make(recognizer(recipe)).path / "embedder.safetensors"
    began = {name: value for name, value in load_file(given).items() if name.startswith("backbone.")}
    bare = lab.store.root / "bare.safetensors"
    save_file({name.removeprefix("backbone."): value for name, value in began.items()}, bare)
    once: dict[str, Any] = {"steps": 1, "evaluations": 1, "warmup": 0.0, "lr": 1e-2, "weight_decay": 0.0}
    moved = {}
    for strength in (None, 50.0, 1e9):
        ended = load_file(lab.make(recognizer(recipe, weights=str(bare), l2_sp=strength, **once)).path / given.name)
        moved[strength] = {
            name: ended[name] - began.get(name, 0) for name in ended if name.endswith(("weight", "bias"))
        }
    free, half, none = moved.values()
    for name, way in free.items():
        if name.startswith("backbone."):
            assert torch.allclose(half[name], way / 2, atol=1e-6) and not none[name].abs().max() > 1e-7
        else:
            assert torch.equal(half[name], way)
    assert max(way.abs().max().item() for way in free.values()) > 5e-3


def test_a_stopped_pull_ends_with_the_same_bytes(recipe: Recipe, shared: Lab, lab: Lab) -> None:
    given = shared.make(recognizer(recipe)).path / "embedder.safetensors"
    node = recognizer(recipe, start={"kind": "file", "path": str(given)}, l2_sp=3.0, layer_decay=0.5)
    undisturbed = shared.make(node)

    def stop(event: Any) -> None:
        if event.kind == "progress" and event.done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]


def test_a_network_that_has_learned_nothing_is_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was learned that could be kept"):
        TrainRecognizer(tune="frozen")
    with pytest.raises(ValueError, match="l2_sp pulls to what one begins with"):
        TrainRecognizer(l2_sp=0.1)
    TrainRecognizer(tune="frozen", weights="w", l2_sp=0.1)
    Search(space={"tune": ["all", "frozen"], "layer_decay": [0.5, 0.8]})


def test_a_network_without_stages_is_refused_before_the_run() -> None:
    options = TrainRecognizer(backbone="poolformerv2_s12", layer_decay=0.5)
    with pytest.raises(UserError, match="MetaFormer does not tell its stages apart"):
        training.try_out(options, 1, 32, RUNTIME)
    training.try_out(options.model_copy(update={"layer_decay": None}), 1, 32, RUNTIME)
