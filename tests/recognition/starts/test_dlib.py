"""dlib's network as a start: as the judge sees faces, trainable, and whole in the model that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drawn import Lab, draw_face, pick, tiny
from facegan.core.errors import UserError
from facegan.evaluation.judges import dlib as judge
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import training, tuning
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.starts import dlib
from facegan.recognition.starts.networks.dlib_resnet import BLOCKS
from onnx_networks import INSTALLED, number, tensor


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the form of dlib's, its weights drawn; stands for the installed one."""
    rng = np.random.default_rng(0)

    def text(name: str) -> bytes:
        return number(len(name)) + name.encode()

    def convolution(inputs: int, outputs: int, side: int) -> bytes:
        scale = 1 / np.sqrt(inputs * side**2)
        filters, biases = rng.normal(0, scale, outputs * inputs * side**2), rng.normal(0, 0.1, outputs)
        gamma_beta = np.concatenate([rng.uniform(0.5, 1, outputs), rng.normal(0, 0.1, outputs)])
        values = np.concatenate([filters, biases])[:, None, None, None]
        return text("con_4") + tensor(values) + text("affine_") + tensor(gamma_beta[:, None, None, None])

    data, inputs = convolution(3, 32, 7), 32
    for channels, count, _ in BLOCKS:
        for _ in range(count):
            data += convolution(inputs, channels, 3) + convolution(channels, channels, 3)
            inputs = channels
    data += text("fc_2") + number(128) + number(256) + tensor(rng.normal(0, 0.1, (256, 128))[:, :, None, None])
    path = tmp_path / "dlib.dat"
    path.write_bytes(data)
    for module in (dlib, judge):
        monkeypatch.setattr(module, "weights_file", lambda asker: path)
    return path


def recognizer(recipe: Recipe, **changes: Any) -> Node:
    options = {"start": "dlib", "embedding_dim": 128, "batch_size": 4, "steps": 1, "evaluations": 1, **changes}
    changed = tiny(recipe.prepare.source.root, train_recognizer=options, guide={"steps": 6})  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


@pytest.mark.parametrize("aligned", [False, True])
def test_it_sees_faces_as_the_judge_does(weights: Path, aligned: bool) -> None:
    options = TrainRecognizer.model_validate({"start": {"kind": "dlib", "aligned": aligned}})
    net = Embedder(options, 1, 64)
    assert training.begin(net, options, 1, 64).whole
    faces = np.stack([draw_face(person, 0, 64, 64) for person in range(3)])[..., None]
    expected = judge.Dlib(aligned=aligned).load(None, "cpu")(faces)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    assert np.allclose(embed(net, faces, 3), expected, atol=1e-5)


def test_all_of_it_is_trained(weights: Path) -> None:
    net = Embedder(TrainRecognizer(start={"kind": "dlib"}), 1, 64)  # type: ignore[arg-type]
    net(torch.rand(1, 1, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    found = tuning.stages(net)
    assert found[-1] == ["backbone.net.fc.weight"]
    assert sorted(name for stage in found for name in stage) == sorted(name for name, _ in net.named_parameters())
    assert [len(stage) // 8 for stage in found[1:-1]] == [3, 4, 3, 3, 1]  # blocks of two convolutions and affines


def test_a_run_keeps_it_whole(weights: Path, recipe: Recipe, lab: Lab) -> None:
    """As it is where nothing is trained, and loaded again without dlib's file."""
    node = recognizer(recipe, steps=0)
    assert node.config["start"] == {"kind": "dlib", "zoom": 0.9, "aligned": False} and len(node.raw["weights"]) == 64
    artifact = lab.make(node)
    faces = np.stack([draw_face(person, 0, 32, 32) for person in range(2)])[..., None]
    expected = judge.Dlib().load(None, "cpu")(faces)
    weights.unlink()
    net, spec = load_embedder(artifact.path)
    assert np.allclose(embed(net, faces, 2), expected, atol=1e-5)
    assert "CC0-1.0 (dlib's weights, whose photos have terms of their own)" in spec["licenses"]
    assert json.loads((artifact.path / "summary.json").read_text())["best_step"] == 0


def test_another_embedding_is_refused(weights: Path, recipe: Recipe, lab: Lab) -> None:
    with pytest.raises(UserError, match=r"dlib's embeddings have 128 numbers, but .* 16") as error:
        lab.make(recognizer(recipe, embedding_dim=16))
    assert "embedding_dim=128" in error.value.fix


@pytest.mark.skipif(INSTALLED, reason="face-recognition-models is installed")
def test_without_the_package_it_says_what_to_install(recipe: Recipe) -> None:
    with pytest.raises(UserError, match="the start 'dlib' needs the package face-recognition-models") as error:
        recognizer(recipe)
    assert "facegan[dlib-judge]" in error.value.fix


def test_a_run_that_tuned_it_is_a_start_again(weights: Path, recipe: Recipe, lab: Lab) -> None:
    """By the kind `file`, and as `champion` reads it: the chip of its own options, whole, without dlib's file."""
    first = lab.make(recognizer(recipe, start={"kind": "dlib", "zoom": 0.8}, steps=0))
    path = first.path / "embedder.safetensors"
    node = recognizer(recipe, start={"kind": "file", "path": str(path)}, steps=0)
    weights.unlink()
    assert node.config["start"] == {"kind": "file", "of": {"kind": "dlib", "zoom": 0.8, "aligned": False}}
    again = lab.make(node)
    assert (again.path / path.name).read_bytes() == path.read_bytes()
    images = np.stack([draw_face(person, 0, 32, 32) for person in range(3)])[..., None]
    nets = [load_embedder(artifact.path)[0] for artifact in (first, again)]
    assert np.array_equal(embed(nets[0], images, 3), embed(nets[1], images, 3))
    with pytest.raises(UserError, match="embeddings have 128 numbers"):
        lab.make(recognizer(recipe, start={"kind": "file", "path": str(path)}, embedding_dim=16))
