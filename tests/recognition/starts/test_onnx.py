"""An ONNX file under an embedding layer: as it is at first, frozen, and stored with what is trained."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from drawn import Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.evaluation.judges.onnx import Onnx as Judge
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import training
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.starts.networks.onnx_session import OnnxSession
from onnx_networks import flatten_network

pytest.importorskip("onnxruntime")
SIDE, DIM = 16, 768
OPTIONS = {"start": {"kind": "onnx", "path": "x.onnx", "size_px": SIDE}, "tune": "frozen", "embedding_dim": DIM}


class Small(nn.Module):
    """A network with one convolution; `double`: with a second output."""

    def __init__(self, double: bool = False, last: bool = False) -> None:
        super().__init__()
        self.conv, self.double, self.last = nn.Conv2d(3, 12, 3, 2, 1), double, last

    def forward(self, img: torch.Tensor) -> Any:
        embedding = self.conv(img.permute(0, 3, 1, 2) if self.last else img).flatten(1)
        return (embedding, embedding * 2) if self.double else embedding


def exported(path: Path, net: nn.Module, batch: int | None = None, half: bool = False, last: bool = False) -> str:
    pytest.importorskip("onnx")
    example = torch.zeros((batch or 2, SIDE, SIDE, 3) if last else (batch or 2, 3, SIDE, SIDE))
    net, example = (net.half(), example.half()) if half else (net, example)
    axes = {} if batch else {"x": {0: "n"}}
    torch.onnx.export(
        net.eval(), (example,), path, dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=18
    )
    return str(path)


def recognizer(recipe: Recipe, path: Path, **changes: Any) -> Node:
    start = {"kind": "onnx", "path": str(path), "size_px": SIDE}
    options = {"start": start, "tune": "frozen", "embedding_dim": DIM, "batch_size": 8, **changes}
    changed = tiny(recipe.prepare.source.root, train_recognizer=options, guide={"steps": 6})  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    (tmp_path / "net.onnx").write_bytes(flatten_network(SIDE))
    return tmp_path / "net.onnx"


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)


def test_untrained_it_is_what_the_judge_sees(flat: Path, recipe: Recipe, lab: Lab) -> None:
    node = recognizer(recipe, flat, steps=0)
    artifact = lab.make(node)
    expected = Judge(path=str(flat), size_px=SIDE).load(None, "cpu")(pixels(5))
    size = flat.stat().st_size
    flat.unlink()
    net, spec = load_embedder(artifact.path)
    assert np.allclose(embed(net, pixels(5), 2), expected, atol=1e-5)
    assert spec["options"]["start"]["n_bytes"] == node.config["start"]["n_bytes"] == size
    assert json.loads((artifact.path / "summary.json").read_text())["best_step"] == 0


def test_the_layer_is_trained_and_the_file_stays(
    flat: Path, recipe: Recipe, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter([0.4, 0.1])
    monkeypatch.setattr(training, "val_eer", lambda *_: next(script))
    artifact = lab.make(recognizer(recipe, flat, steps=3, evaluations=1, ema=0.3))
    stored = load_file(artifact.path / "embedder.safetensors")
    assert stored["backbone.net.file"].numpy().tobytes() == flat.read_bytes()
    assert not torch.equal(stored["project.weight"], torch.eye(DIM))
    assert stored["project.weight"] == pytest.approx(torch.eye(DIM), abs=0.05)


def test_copies_embed_alike(flat: Path) -> None:
    options = TrainRecognizer.model_validate(
        {"start": {"kind": "onnx", "path": str(flat), "size_px": SIDE}, "tune": "frozen", "embedding_dim": DIM}
    )
    net = Embedder(options, 1, 32).eval()
    training.begin(net, options, 1, 32)
    img = torch.rand(3, 1, 32, 32) * 2 - 1
    assert torch.equal(copy.deepcopy(net)(img), net(img)) and not net.has_gradient


def test_what_cannot_be_used(flat: Path, recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"net\.onnx have 768 numbers, but .* 16"):
        lab.make(recognizer(recipe, flat, embedding_dim=16))
    with pytest.raises(ValueError, match=r"the start 'onnx' cannot be trained: set tune: frozen"):
        TrainRecognizer.model_validate({"start": {"kind": "onnx"}})
    guided = {"train_gan": {"gan": {"kind": "cvae_gan", "identity": {}}}}
    with pytest.raises(ValueError, match=r"no gradient passes through the start 'onnx'"):
        tiny("x", **guided, train_recognizer=OPTIONS)
    tiny("x", **guided, train_recognizer=OPTIONS, guide={"start": "random", "tune": "all"})
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="no network that onnxruntime can run"):
        lab.make(recognizer(recipe, tmp_path / "broken.onnx"))
    with pytest.raises(UserError, match=r"does not take \(2, 3, 112, 112\) float32") as error:
        lab.make(recognizer(recipe, flat, start={"kind": "onnx", "path": str(flat)}))
    assert "train_recognizer.start.size_px" in error.value.fix


# Forms of files.


def test_a_fixed_batch_half_precision_and_several_outputs_are_run(tmp_path: Path) -> None:
    net = Small().eval()
    img = np.random.default_rng(0).normal(size=(5, 3, SIDE, SIDE)).astype(np.float32)
    expected = net(torch.from_numpy(img)).detach().numpy()
    for batch in (None, 1, 3):
        session = OnnxSession(exported(tmp_path / "a.onnx", net, batch), "a", "")
        assert session(img) == pytest.approx(expected, abs=1e-5) and session(img).dtype == np.float32
    double = Small(double=True)
    double.load_state_dict(net.state_dict())
    session = OnnxSession(exported(tmp_path / "b.onnx", double), "b", "")
    assert len(session.outputs) == 2 and session(img) == pytest.approx(expected, abs=1e-5)
    session = OnnxSession(exported(tmp_path / "c.onnx", copy.deepcopy(net), half=True), "c", "")
    assert session(img) == pytest.approx(expected, abs=2e-2) and session(img).dtype == np.float32


def test_channels_last_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes its channels last"):
        OnnxSession(exported(tmp_path / "d.onnx", Small(last=True), last=True), "d", "")


def test_the_judge_is_not_what_it_judges(flat: Path, faces: Path) -> None:
    start = {"start": {"kind": "onnx", "path": str(flat), "size_px": SIDE}, "tune": "frozen", "embedding_dim": DIM}
    judge = {"judge": {"kind": "onnx", "path": str(flat), "size_px": SIDE}}
    with pytest.raises(UserError, match="the judge is the network that the guide begins with"):
        graph.build(tiny(faces, train_recognizer=start, audit=judge))
    with pytest.raises(UserError, match="the judge is the network that the arms begin with"):
        graph.build(tiny(faces, train_recognizer=start, guide={"start": "random", "tune": "all"}, audit=judge))
    with pytest.raises(ValueError, match="the judge is the network that guide or arms begin with"):
        tiny(faces, train_recognizer={**start, "steps": 0})


def test_a_run_that_tuned_one_is_a_start_again(flat: Path, recipe: Recipe, lab: Lab) -> None:
    first = lab.make(recognizer(recipe, flat, steps=1, evaluations=1))
    flat.unlink()
    path = first.path / "embedder.safetensors"
    start = {"kind": "file", "path": str(path)}
    again = lab.make(recognizer(recipe, path, start=start, steps=0))
    assert (again.path / path.name).read_bytes() == path.read_bytes()
    net, _ = load_embedder(again.path)
    assert np.array_equal(embed(net, pixels(3), 3), embed(load_embedder(first.path)[0], pixels(3), 3))
    with pytest.raises(ValueError, match="the start 'file' cannot be trained: set tune: frozen"):
        recognizer(recipe, path, start=start, tune="all")
