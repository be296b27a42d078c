"""Distillation from the start: embeddings are held to those of the network that the training began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from drawn import BACKBONE_ARGS, RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import training
from facegan.recognition.classifier import Classifier, Heads
from facegan.recognition.distillation import Teacher, distance
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.store.local import Artifact

SMALL: dict[str, Any] = {"backbone_args": BACKBONE_ARGS, "embedding_dim": 16}


def recognizer(recipe: Recipe, **changes: Any) -> Node:
    changed = tiny(recipe.prepare.source.root, train_recognizer=changes)  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


@pytest.fixture(scope="module")
def given(recipe: Recipe, shared: Lab) -> Artifact:
    return shared.make(recognizer(recipe, lr=2e-2))


def test_the_distance_is_that_of_directions() -> None:
    """By hand: the same direction 0, a right angle 1, the opposite 2; added up."""
    one = torch.tensor([[3.0, 0], [0, 2], [1, 1]])
    held_to = torch.tensor([[1.0, 0], [5, 0], [-1, -1]])
    assert distance(one, held_to).item() == pytest.approx(0 + 1 + 2)
    assert distance(one, one * 7).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_has_it_with_its_weight_and_parts_add_up() -> None:
    options = TrainRecognizer.model_validate({**SMALL, "start": {"kind": "file"}, "distil": 3.0})
    torch.manual_seed(0)
    net, label = Embedder(options, 1, 32), np.array([0, 1, 0, 1])
    model = Classifier(options, net, Heads(options, label, np.zeros(4, np.int64))).eval()
    img, rows, held_to = torch.rand(4, 1, 32, 32), np.arange(4), torch.randn(4, 16)
    plain, held = model(img, rows, slice(0, 4), 0), model(img, rows, slice(0, 4), 0, held_to)
    cosine = torch.nn.functional.cosine_similarity(net(img), held_to)
    assert (held - plain).item() == pytest.approx(3 * (1 - cosine).mean().item(), rel=1e-4)
    halves = [model(img[part], rows, part, 0, held_to[part]) for part in (slice(0, 2), slice(2, 4))]
    assert sum(halves).item() == pytest.approx(held.item(), rel=1e-5)  # type: ignore[union-attr]


def test_the_teacher_stays_what_the_training_began_with() -> None:
    options = TrainRecognizer.model_validate({**SMALL, "start": {"kind": "file"}, "distil": 1.0})
    net, img = Embedder(options, 1, 32), torch.rand(3, 1, 32, 32)
    began, teacher = net.eval()(img).detach(), Teacher(net, whole=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1
    assert torch.equal(teacher.embed(img), began) and not torch.equal(net(img), began)


def test_a_strong_hold_keeps_embeddings_where_they_were(
    recipe: Recipe, lab: Lab, given: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "val_eer", lambda *_: next(script))
    start = {"kind": "file", "path": str(given.path / "embedder.safetensors")}
    likeness = {}
    for weight in (None, 1.0, 100.0):
        script = iter([0.4, 0.3])
        node = recognizer(recipe, start=start, distil=weight, evaluations=1, lr=1e-2, tune="frozen", steps=12)
        assert ("distil" in node.config) == (weight is not None)
        artifact = lab.make(node)
        pixels = ManifestImages(lab.make(node.needs["val"]).path, split="val").pixels
        before, after = (embed(load_embedder(folder)[0], pixels, 64) for folder in (given.path, artifact.path))
        likeness[weight] = float((before * after).sum(axis=1).mean())
    assert likeness[None] < likeness[1.0] < likeness[100.0]
    assert 1 - likeness[100.0] < 0.5 * (1 - likeness[None])


def test_a_stopped_one_ends_with_the_same_bytes(recipe: Recipe, shared: Lab, lab: Lab, given: Artifact) -> None:
    """Held to the start and not to the checkpoint."""
    start = {"kind": "file", "path": str(given.path / "embedder.safetensors")}
    node = recognizer(recipe, start=start, distil=2.0, lr=1e-2, weight_decay=0.0)
    undisturbed = shared.make(node)

    def stop(event: Any) -> None:
        if event.kind == "progress" and event.done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]
    assert "curve.jsonl" in resumed.record["outputs"]  # the loss of every step


def test_a_start_without_embeddings_holds_nothing(recipe: Recipe, lab: Lab, given: Artifact, tmp_path: Path) -> None:
    for start in (None, "random", "imagenet", "timm"):
        with pytest.raises(ValueError, match=r"distil holds embeddings to those of the start, but .* has no"):
            TrainRecognizer.model_validate({"start": start, "distil": 1.0})
    bare = load_embedder(given.path)[0].backbone.state_dict()
    save_file({name: value.contiguous() for name, value in bare.items()}, tmp_path / "bare.safetensors")
    start = {"kind": "file", "path": str(tmp_path / "bare.safetensors")}
    with pytest.raises(UserError, match="whose embedding layer is random"):
        training.try_out(recognizer(recipe, start=start, distil=1.0).options, 1, 32, RUNTIME)  # type: ignore[arg-type]
