"""Adapters: nothing at first, nothing else is trained, and part of the weights at the end."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from drawn import BACKBONE_ARGS, Lab, pick, tiny
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import adapters, tuning
from facegan.recognition.embedder import Embedder, load_embedder
from facegan.recognition.options import Search, TrainRecognizer


def recognizer(recipe: Recipe, **changes: Any) -> Node:
    changed = tiny(recipe.prepare.source.root, train_recognizer=changes)  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


def options_of(**changes: Any) -> TrainRecognizer:
    base = {"backbone_args": BACKBONE_ARGS, "embedding_dim": 16, "start": {"kind": "file"}, "tune": "adapters"}
    return TrainRecognizer.model_validate({**base, **changes})


def moved(net: nn.Module) -> nn.Module:
    """The same with adapters that add something."""
    torch.manual_seed(5)
    for name, parameter in net.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 10, 3, stride=2, padding=1),
        nn.Conv2d(6, 10, (1, 5), bias=False),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Linear(6, 10),
    ],
)
def test_it_is_two_maps_beside_the_given_one(layer: Any) -> None:
    """Against Hu et al.'s form: the layer, and beside it a map to `rank` channels and one back."""
    given, net = copy.deepcopy(layer), nn.Sequential(layer)
    adapters.insert(net, 3)
    moved(net)
    adapter = net[0].parametrizations.weight[0]  # type: ignore[union-attr, index]
    img = torch.randn(2, 6, 9, 9) if isinstance(layer, nn.Conv2d) else torch.randn(2, 6)
    if isinstance(given, nn.Linear):
        beside = F.linear(F.linear(img, adapter.down), adapter.up)
    elif given.groups == 1:
        down = F.conv2d(img, adapter.down.view(-1, *given.weight.shape[1:]), None, given.stride, given.padding)
        beside = F.conv2d(down, adapter.up[:, :, None, None])
    else:
        kernels = torch.stack([sum(u * d for u, d in zip(row, adapter.down, strict=True)) for row in adapter.up])
        beside = F.conv2d(img, kernels.view(given.weight.shape), None, given.stride, given.padding, 1, given.groups)
    assert torch.allclose(net(img), given(img) + beside, atol=1e-5) and not torch.allclose(beside, 0 * beside)
    rank = torch.linalg.matrix_rank((net[0].weight - given.weight).flatten(1), tol=1e-5)  # type: ignore[operator, union-attr]
    assert int(rank) == 3 and adapter.down.numel() + adapter.up.numel() <= 3 * (given.weight[0].numel() + 10)


@pytest.mark.parametrize(
    "changes",
    [{}, {"backbone": "vit_tiny_patch16_224", "backbone_args": {"depth": 2}}, {"start": "dlib", "embedding_dim": 128}],
)
def test_at_first_the_network_is_the_start_and_only_adapters_get_gradients(changes: dict[str, Any]) -> None:
    options = options_of(**changes)
    net = Embedder(options, 1, 32)
    img, given = torch.rand(3, 1, 32, 32), copy.deepcopy(net).eval()
    tuning.freeze(net, options)
    tuning.train_mode(net)
    if net.has_layer:
        assert not net.norm.training, "frozen norms keep their statistics"
    net.eval()
    assert torch.equal(net(img), given(img))
    state = adapters.state_of(net)
    assert state.keys() == given.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in given.state_dict().items())
    moved(net)(img).square().sum().backward()
    trained = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert trained and all(".parametrizations.weight.0." in name for name in trained)
    assert trained == {name for name, parameter in net.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_merged_it_gives_what_it_gave(backbone: str) -> None:
    options = options_of(backbone=backbone, backbone_args=BACKBONE_ARGS if backbone == "resnet10t" else {})
    net, plain = Embedder(options, 3, 32), Embedder(options, 3, 32)
    tuning.freeze(net, options)
    net = copy.deepcopy(moved(net)).eval()  # as the average of the weights is made
    plain.load_state_dict(adapters.state_of(net))
    img = torch.rand(3, 3, 32, 32)
    assert torch.allclose(plain.eval()(img), net(img), atol=1e-6)


def test_an_embedding_layer_that_began_at_random_is_trained_as_it_is() -> None:
    options = options_of(start={"kind": "imagenet"})
    net = Embedder(options_of(), 1, 32)
    tuning.freeze(net, options, whole=False)
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert {"project.weight", "norm.weight", "norm.bias"} <= trained
    assert all(".parametrizations." in name for name in trained if name.startswith("backbone."))
    tuning.train_mode(net)
    assert net.norm.training


def test_each_stage_has_its_rate() -> None:
    options = options_of(layer_decay=0.5)
    net = Embedder(options, 1, 32)
    tuning.freeze(net, options)
    groups = tuning.decay_groups(net, nn.Identity(), options)
    rate = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert len(rate) == len(trained)
    expected = {"project": 1, "layer4": 1 / 2, "layer3": 1 / 4, "layer2": 1 / 8, "layer1": 1 / 16, "conv1": 1 / 32}
    for name, parameter in trained.items():
        assert rate[id(parameter)] == expected[name.removeprefix("backbone.").split(".")[0]], name


def test_a_run_hands_over_a_recognizer_of_the_same_form(recipe: Recipe, shared: Lab, lab: Lab) -> None:
    """And a stopped one the same bytes; what is frozen keeps its own, running statistics too."""
    given = shared.make(recognizer(recipe)).path / "embedder.safetensors"
    node = recognizer(
        recipe,
        start={"kind": "file", "path": str(given)},
        tune="adapters",
        adapter_rank=2,
        lr=3e-2,
        ema=0.1,
        distil=0.1,
    )
    assert node.config["adapter_rank"] == 2 and "adapter_rank" not in recognizer(recipe).config
    undisturbed = shared.make(node)
    began, ended = load_file(given), load_file(undisturbed.path / "embedder.safetensors")
    assert began.keys() == ended.keys()
    net, _ = load_embedder(undisturbed.path)
    assert not any("parametrizations" in name for name, _ in net.named_parameters())
    for step in (1, 5):

        def stop(event: Any, step: int = step) -> None:
            if event.kind == "progress" and event.done == step:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]
    assert "curve.jsonl" in resumed.record["outputs"]  # the loss of every step


def test_what_was_trained_is_in_the_weights(
    recipe: Recipe, lab: Lab, shared: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facegan.recognition import training

    given = shared.make(recognizer(recipe)).path / "embedder.safetensors"
    script = iter([0.4, 0.3])
    monkeypatch.setattr(training, "val_eer", lambda *_: next(script))
    start = {"kind": "file", "path": str(given)}
    ended = load_file(
        lab.make(recognizer(recipe, start=start, tune="adapters", adapter_rank=2, lr=1e-2, evaluations=1)).path
        / "embedder.safetensors"
    )
    for name, value in load_file(given).items():
        change = (ended[name] - value).flatten(1) if value.ndim > 1 else ended[name] - value
        if value.ndim > 1:
            assert 1 <= int(torch.linalg.matrix_rank(change, rtol=1e-3)) <= 2, name
        else:
            assert not change.any(), name


def test_it_can_be_searched_and_needs_a_start() -> None:
    Search(space={"tune": ["all", "adapters"], "adapter_rank": [4, 16], "distil": [0.1, 1.0]})
    with pytest.raises(ValueError, match="nothing was learned that could be kept"):
        TrainRecognizer(tune="adapters")
