"""MixStyle: against its formula, in the first stages and in training alone, the same after a stop and over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drawn import BACKBONE_ARGS, RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import training, tuning
from facegan.recognition.embedder import Embedder
from facegan.recognition.mixstyle import StyleMixing, ends_of_stages, mixed
from facegan.recognition.options import MixStyle, Search, TrainRecognizer
from facegan.runtime.context import Event
from ranked import distance, options, rows_of, trained

SMALL: dict[str, Any] = {"backbone_args": BACKBONE_ARGS, "embedding_dim": 16}
ORDER, WEIGHT = torch.tensor([2, 0, 3, 1]), torch.tensor([0.0, 1.0, 0.25, 0.9])


def by_the_formula(x: np.ndarray) -> np.ndarray:
    """MixStyle of four maps, number by number."""
    out = np.empty_like(x)
    for image, (other, share) in enumerate(zip(ORDER.tolist(), WEIGHT.tolist(), strict=True)):
        for channel in range(x.shape[1]):
            one, two = x[image, channel], x[other, channel]
            mean = share * one.mean() + (1 - share) * two.mean()
            deviation = share * np.sqrt(one.var() + 1e-6) + (1 - share) * np.sqrt(two.var() + 1e-6)
            out[image, channel] = deviation * (one - one.mean()) / np.sqrt(one.var() + 1e-6) + mean
    return out


@pytest.fixture
def maps() -> np.ndarray:
    """Four maps of three channels, each with a mean and a deviation of its own."""
    rng = np.random.default_rng(0)
    return rng.normal(rng.normal(0, 3, (4, 3, 1, 1)), rng.uniform(0.2, 2, (4, 3, 1, 1)), (4, 3, 5, 6))


def test_four_images_by_the_formula(maps: np.ndarray) -> None:
    found, expected = mixed(torch.from_numpy(maps), ORDER, WEIGHT), by_the_formula(maps)
    assert np.allclose(found, expected, atol=1e-6) and np.abs(expected - maps)[[0, 2, 3]].max() > 1
    assert np.allclose(found[1], maps[1], atol=1e-6)  # its own statistics weigh 1
    assert torch.allclose(found[0].mean((1, 2)), torch.from_numpy(maps[2].mean((1, 2))), atol=1e-6)
    part = mixed(torch.from_numpy(maps).bfloat16(), ORDER, WEIGHT)
    assert part.dtype == torch.bfloat16 and np.allclose(part.float(), expected, atol=0.1)


def test_maps_of_one_number_take_on_the_mean(maps: np.ndarray) -> None:
    one = torch.from_numpy(maps[:, :, :1, :1])
    share = WEIGHT.double()[:, None, None, None]
    assert torch.allclose(mixed(one, ORDER, WEIGHT), share * one + (1 - share) * one[ORDER], atol=1e-6)


def test_channels_may_stand_last(maps: np.ndarray) -> None:
    x, expected = torch.from_numpy(maps), torch.from_numpy(by_the_formula(maps))
    last = mixed(x.permute(0, 2, 3, 1), ORDER, WEIGHT, channels_last=True)
    assert torch.allclose(last.permute(0, 3, 1, 2), expected, atol=1e-6)
    tokens = mixed(x.flatten(2).transpose(1, 2), ORDER, WEIGHT)
    assert torch.allclose(tokens.transpose(1, 2).view_as(x), expected, atol=1e-6)


def test_no_gradient_passes_through_the_statistics(maps: np.ndarray) -> None:
    """Each number's gradient is the factor that it is multiplied by; else those of a map would add up to 0."""
    x = torch.from_numpy(maps).requires_grad_(True)
    mixed(x, ORDER, WEIGHT).sum().backward()
    deviation = np.sqrt(maps.var((2, 3)) + 1e-6)
    share = WEIGHT.numpy()[:, None]
    factor = share + (1 - share) * deviation[ORDER.numpy()] / deviation
    assert x.grad is not None
    assert np.allclose(x.grad, np.broadcast_to(factor[:, :, None, None], maps.shape), atol=1e-6)


def mixing_net(**changes: Any) -> tuple[Embedder, StyleMixing]:
    torch.manual_seed(0)
    net = Embedder(TrainRecognizer(**SMALL), 1, 32)
    return net, StyleMixing(net, MixStyle(**changes), 1, 32)


def test_it_is_the_identity_in_eval_mode_and_with_probability_0() -> None:
    img = torch.rand(4, 1, 32, 32) * 2 - 1
    plain = Embedder(TrainRecognizer(**SMALL), 1, 32)
    for probability, train, same in ((1, True, False), (1, False, True), (0, True, True)):
        net, mixing = mixing_net(probability=probability)
        plain.load_state_dict(net.state_dict())
        mixing.draw(0, 0, 4, slice(0, 4))
        assert torch.equal(net.train(train)(img), plain.train(train)(img)) == same


def test_a_stage_mixes_as_often_as_it_should_each_for_itself() -> None:
    _, mixing = mixing_net(probability=0.3)
    mixes = np.empty((400, 2), bool)
    for step in range(400):
        mixing.draw(0, step * 8, 8, slice(0, 8))
        mixes[step] = [place.drawn is not None for place in mixing.places]
    assert np.allclose(mixes.mean(0), 0.3, atol=0.08)
    assert abs(np.corrcoef(mixes.T.astype(float))[0, 1]) < 0.15


def test_it_stands_behind_the_first_residual_stages() -> None:
    net, mixing = mixing_net(probability=1.0, stages=3)
    backbone: Any = net.backbone
    assert ends_of_stages(net, 3, 1, 32) == [backbone.layer1, backbone.layer2, backbone.layer3]
    seen: list[torch.Tensor] = []
    backbone.layer2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    img = torch.rand(4, 1, 32, 32)
    mixing.places[0].drawn = None
    net.train()(img)
    mixing.places[0].drawn = ORDER, WEIGHT, slice(0, 4)
    net.train()(img)
    assert np.allclose(seen[1].detach(), by_the_formula(seen[0].detach().double().numpy()), atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "ends"),
    [
        ("vit_tiny_patch16_224", ["blocks.0", "blocks.1"]),
        ("densenet121", ["features.transition1", "features.transition2"]),
        ("swin_tiny_patch4_window7_224", ["layers.0", "layers.1"]),
    ],
)
def test_stages_of_other_networks(backbone: str, ends: list[str]) -> None:
    net = Embedder(TrainRecognizer(backbone=backbone, embedding_dim=16), 3, 32)
    found = ends_of_stages(net, 2, 3, 32)
    assert found == [net.get_submodule(f"backbone.{name}") for name in ends]
    last = StyleMixing(net, MixStyle(), 3, 32).places[0].channels_last
    assert last == backbone.startswith("swin")


def test_adapters_are_mixed_behind_and_networks_of_one_s_own() -> None:
    start = {"kind": "iresnet", "depth": 18}
    chosen = TrainRecognizer.model_validate({"start": start, "tune": "adapters", "mixstyle": {}, "embedding_dim": 16})
    net = Embedder(chosen, 1, 32)
    tuning.freeze(net, chosen)
    found = ends_of_stages(net, 2, 1, 32)
    assert found == [net.get_submodule(f"backbone.net.layer{number}") for number in (1, 2)]
    tuning.train_mode(net)
    assert all(module.training for module in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "poolformerv2_s12"}, "MetaFormer does not tell its stages apart"),
        ({"backbone": "crossvit_tiny_240"}, "stage 1 of the network CrossVit gives no maps"),
        ({**SMALL, "mixstyle": {"stages": 4}}, "the network has 4 stages .* the last is never mixed"),
    ],
)
def test_networks_that_cannot_are_refused_before_the_run(changes: dict[str, Any], message: str) -> None:
    chosen = TrainRecognizer(**{"mixstyle": {}, **changes})
    with pytest.raises(UserError, match=message):
        training.try_out(chosen, 3, 240 if "cross" in changes.get("backbone", "") else 32, RUNTIME)


def test_what_is_frozen_is_not_mixed_and_earlier_keys_stay() -> None:
    for tune in ("last-stage", "frozen"):
        with pytest.raises(ValueError, match=f"which tune: {tune} keeps as it is"):
            TrainRecognizer.model_validate({"tune": tune, "start": {"kind": "file"}, "mixstyle": {}})
    assert "mixstyle" not in TrainRecognizer().model_dump()
    Search(space={"mixstyle": [None, {"probability": 0.5}], "mixstyle.alpha": [0.1, 0.3]})


def recognizer(root: Path | str, **changes: Any) -> Node:
    return pick(graph.build(tiny(root, train_recognizer=changes)), "train_recognizer", "real", 0)


class Stop(Exception):
    """Raised in the middle of a training."""


def test_a_stopped_run_ends_with_the_same_bytes(recipe: Recipe, shared: Lab, lab: Lab) -> None:
    root = recipe.prepare.source.root  # type: ignore[attr-defined]
    node = recognizer(root, mixstyle={"probability": 0.7}, ema=0.3)

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            raise Stop

    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]
    plain = shared.make(recognizer(root, ema=0.3))
    assert plain.record["outputs"]["curve.jsonl"] != undisturbed.record["outputs"]["curve.jsonl"]


def test_two_ranks_mix_as_one_process_does(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    """Also with images of the other rank."""
    chosen = options(steps=6, mixstyle={"probability": 0.8, "alpha": 1.0})
    rows = rows_of(recipe, shared)
    by_one, by_two = (trained(chosen, rows, tmp_path / str(ranks), ranks) for ranks in (1, 2))
    assert distance(by_one, by_two) < 1e-5
    without = trained(options(steps=6), rows, tmp_path / "without", 1)
    assert distance(by_one, without) > 1e-3
