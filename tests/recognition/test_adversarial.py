"""Adversarial training: how far images are changed, what it leaves untouched, and what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from drawn import BACKBONE_ARGS, Lab, pick, tiny
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition.adversarial import UNIT, perturbed
from facegan.recognition.classifier import Classifier, Heads
from facegan.recognition.embedder import Embedder
from facegan.recognition.options import Adversarial, TrainRecognizer
from facegan.runtime.context import Event


def classifier(**options: Any) -> Classifier:
    config = TrainRecognizer(backbone_args=BACKBONE_ARGS, embedding_dim=16, **options)
    torch.manual_seed(0)
    label = np.arange(8)
    return Classifier(config, Embedder(config, 1, 32), Heads(config, label, np.zeros(8, np.int64)))


@pytest.mark.parametrize("head", ["cosface", "adaface", "softmax"])
@pytest.mark.parametrize("steps", [1, 5])
def test_images_stay_near_and_the_loss_rises(steps: int, head: str) -> None:
    model = classifier(head={"kind": head})
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    img, rows, options = torch.rand(8, 1, 32, 32) * 2 - 1, np.arange(8), Adversarial(epsilon=4, steps=steps)
    changed = perturbed(model, img, rows, slice(0, 8), options)
    assert (changed - img).abs().max() <= 4 * UNIT + 1e-6 and changed.abs().max() <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and model.training and model.net.training
    model.eval()
    noise = (img + torch.empty_like(img).uniform_(-4 * UNIT, 4 * UNIT)).clamp(-1, 1)
    losses = [model(x, rows, slice(0, 8), 0).item() for x in (img, noise, changed)]
    assert losses[2] > max(losses[:2])


def recognizer(root: Path | str, **changes: Any) -> Node:
    return pick(graph.build(tiny(root, train_recognizer=changes)), "train_recognizer", "real", 0)


class Stop(Exception):
    """Raised in the middle of a training."""


def test_a_stopped_run_ends_with_the_same_bytes(recipe: Recipe, shared: Lab, lab: Lab) -> None:
    node = recognizer(recipe.prepare.source.root, adversarial={"epsilon": 4})  # type: ignore[attr-defined]

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            raise Stop

    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]


def test_it_is_no_part_of_earlier_keys() -> None:
    assert "adversarial" not in TrainRecognizer().model_dump()
    with pytest.raises(ValueError, match="leave out sharded or adversarial"):
        TrainRecognizer(adversarial={"epsilon": 2}, sharded={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no gradient to attack it by"):
        TrainRecognizer(adversarial={}, start={"kind": "onnx", "path": "x.onnx"}, tune="frozen")  # type: ignore[arg-type]


def faint_and_plain(rng: np.random.Generator, label: np.ndarray) -> torch.Tensor:
    """(N, 1, 8, 8): four pixels say plainly, and often wrongly, who it is; sixty faintly, and together surely."""
    plain = 1.2 * np.eye(4)[label] - 0.6 + rng.normal(0, 0.4, (len(label), 4))
    code = np.random.default_rng(0).choice([-1, 1], (4, 60))
    faint = 0.04 * code[label] + rng.normal(0, 0.04, (len(label), 60))
    return torch.from_numpy(np.concatenate([plain, faint], axis=1)).float().view(-1, 1, 8, 8).clamp(-1, 1)


def test_what_was_trained_so_withstands_more() -> None:
    rng, options, right = np.random.default_rng(1), Adversarial(epsilon=10, steps=3), {}
    label = rng.integers(0, 4, 256)
    for name in ("plain", "adversarial"):
        config = TrainRecognizer(embedding_dim=8, head={"kind": "softmax"})  # type: ignore[arg-type]
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
        model = Classifier(config, net, Heads(config, label, np.zeros(len(label), np.int64)))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(200):
            rows = rng.integers(0, 256, 64)
            img = faint_and_plain(rng, label[rows])
            if name == "adversarial":
                img = perturbed(model, img, rows, slice(0, 64), options)
            optimizer.zero_grad()
            model(img, rows, slice(0, 64), 0).backward()
            optimizer.step()
        img, rows = faint_and_plain(rng, label), np.arange(256)
        attacked = perturbed(model, img, rows, slice(0, 256), options)
        logits = [model.head.heads[0](net(x), torch.from_numpy(label)).argmax(1).numpy() for x in (img, attacked)]
        right[name] = [float((found == label).mean()) for found in logits]
    assert right["plain"][0] > 0.95 and right["adversarial"][1] > right["plain"][1] + 0.2
    assert right["adversarial"][0] < right["plain"][0]  # what it costs on images as they are
