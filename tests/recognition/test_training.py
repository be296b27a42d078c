"""train_recognizer: it learns, val people choose the weights, and a stopped run ends with the same bytes."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from drawn import BACKBONE_ARGS, RUNTIME, Lab, draw_folder, merged, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.metrics.verification import eer, pair_scores
from facegan.pipeline import graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.recognition import batches, loader, training
from facegan.recognition.augment import Augmenter
from facegan.recognition.augment_options import Augment
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.runtime.context import Context, Event
from facegan.stages import train_recognizer
from facegan.store.local import WORK, Artifact
from facegan.training.checkpoints import Checkpoints
from facegan.training.loop import Sampler, update_ema
from facegan.training.tensors import to_input


def recognizer(recipe: Recipe, **changes: Any) -> Node:
    changed = tiny(recipe.prepare.source.root, train_recognizer=changes)  # type: ignore[attr-defined]
    return pick(graph.build(changed), "train_recognizer", "real", 0)


def summary(artifact: Artifact) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((artifact.path / "summary.json").read_text())
    return data


def curve(artifact: Artifact) -> list[dict[str, float]]:
    return [json.loads(line) for line in (artifact.path / "curve.jsonl").read_text().splitlines()]


def said(lab: Lab) -> list[str]:
    return [event.text for event in lab.events if event.kind == "message"]


def error_rate(net: torch.nn.Module, images: ManifestImages) -> float:
    pairs = pair_scores(embed(net, images.pixels, 64), images.codes()[1])
    return eer(pairs.score, pairs.genuine)


def inputs_of(node: Node, lab: Lab) -> dict[str, Path]:
    return {name: lab.make(needed).path for name, needed in node.needs.items()}


class Stop(Exception):
    """Raised in the middle of a training, as a crash would come."""


def stop_at(step: int) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.done == step:
            raise Stop

    return on_event


# It learns.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Node, Artifact]:
    """A recognizer of 12 of 24 people."""
    root = draw_folder(tmp_path_factory.mktemp("more") / "root", people=24, shots=6)
    options = {"steps": 40, "batch_size": 24, "evaluations": 8, "lr": 2e-2}
    node = recognizer(tiny(root), **options)
    lab = Lab(tmp_path_factory.mktemp("trained") / "store")
    return lab, node, lab.make(node)


def test_the_drawn_faces_are_learned(trained: tuple[Lab, Node, Artifact]) -> None:
    lab, node, artifact = trained
    losses = [line["loss"] for line in curve(artifact)]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    inputs = inputs_of(node, lab)
    net, spec = load_embedder(artifact.path)
    torch.manual_seed(0)
    untrained = Embedder(TrainRecognizer.model_validate(spec["options"]), 1, 32)
    train, val = ManifestImages(inputs["train"]), ManifestImages(inputs["val"], split="val")
    assert error_rate(net, train) < 0.6 * error_rate(untrained, train)
    assert summary(artifact)["val_eer"] < 0.25 < error_rate(untrained, val)  # people never seen; chance is 0.5


def test_the_best_step_on_val_people_is_kept(trained: tuple[Lab, Node, Artifact]) -> None:
    lab, node, artifact = trained
    scored = {line["nimg"] // 24: line["val_eer"] for line in curve(artifact) if "val_eer" in line}
    assert sorted(scored) == [5, 10, 15, 20, 25, 30, 35, 40]
    best = min(scored, key=lambda step: (scored[step], step))
    found = summary(artifact)
    assert (found["steps"], found["best_step"], found["images_seen"]) == (40, best, 960)
    assert found["val_eer"] == pytest.approx(scored[best], abs=1e-6)
    net, _ = load_embedder(artifact.path)
    val = ManifestImages(inputs_of(node, lab)["val"], split="val")
    assert error_rate(net, val) == summary(artifact)["val_eer"]  # those very weights


def test_weights_of_the_best_and_not_of_the_last_step(
    recipe: Recipe, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, seen = iter([0.4, 0.1, 0.1, 0.2, 0.3, 0.1]), []

    def scripted(net: torch.nn.Module, *_: Any) -> float:
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return next(script)

    monkeypatch.setattr(training, "val_eer", scripted)
    artifact = lab.make(recognizer(recipe, evaluations=6))
    kept = load_file(artifact.path / "embedder.safetensors")
    assert summary(artifact)["best_step"] == 2 and len(seen) == 6  # the first of the best
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not torch.equal(seen[1]["project.weight"], seen[5]["project.weight"])


def test_each_step_has_rows_and_chance_of_its_own(recipe: Recipe, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    places, chances = [], []

    class Watched(Augmenter):
        def __call__(self, pixels: np.ndarray, seed: int, before: int = 0) -> np.ndarray:
            chances.append(seed)
            return super().__call__(pixels, seed, before)

    class Placed(Sampler):
        def batch(self, nimg: int, size: int) -> np.ndarray:
            places.append((nimg, size))
            return super().batch(nimg, size)

    monkeypatch.setattr(loader, "Augmenter", Watched)
    monkeypatch.setattr(batches, "Sampler", Placed)
    lab.make(recognizer(recipe))
    assert places == [(nimg, 8) for nimg in range(0, 48, 8)]
    assert len(set(chances)) == len(chances) == 6


def test_test_people_choose_nothing(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    node = recognizer(recipe)
    inputs = inputs_of(node, shared)
    rows = manifest.read(inputs["val"]).to_pylist()
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    only = [row for row in rows if row["split"] == "val"]
    confused = [{**row, "identity": f"x/{number % 2}"} for number, row in enumerate(only)]
    outputs = {}
    for name, kept in {"all": rows, "val": only, "confused": confused}.items():
        manifest.write(tmp_path / name / "in", kept, "prepare", {})
        folders = {"train": inputs["train"], "val": tmp_path / name / "in"}
        train_recognizer.run(node.options, {"seed": 0}, folders, tmp_path / name, Context(RUNTIME))  # type: ignore[arg-type]
        outputs[name] = (
            (tmp_path / name / "embedder.safetensors").read_bytes(),
            (tmp_path / name / "curve.jsonl").read_text(),
        )
    assert outputs["all"] == outputs["val"]
    assert outputs["confused"][1] != outputs["val"][1]


def test_seed_and_only_seed_makes_another(recipe: Recipe, lab: Lab) -> None:
    nodes = graph.build(tiny(recipe.prepare.source.root, seeds=[0, 1]))  # type: ignore[attr-defined]
    first, second = (lab.make(pick(nodes, "train_recognizer", "real", seed)) for seed in (0, 1))
    assert first.record["outputs"]["embedder.safetensors"] != second.record["outputs"]["embedder.safetensors"]
    shutil.rmtree(first.path)
    again = lab.make(pick(nodes, "train_recognizer", "real", 0))
    assert again.state == "ran" and again.record["outputs"] == first.record["outputs"]


# Averaged weights.


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_by_hand_is_what_is_kept(
    recipe: Recipe, lab: Lab, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Weights and running statistics, in double precision: 2^(-every / half-life), less while it is young."""
    monkeypatch.setattr(training, "EMA_UPDATES", 2 / every)
    nets: list[dict[str, torch.Tensor]] = []

    def watched(ema: torch.nn.Module, net: torch.nn.Module, beta: float, **how: Any) -> None:
        if not nets:
            nets.append({name: value.double().clone() for name, value in ema.state_dict().items()})
        nets.append({name: value.double().clone() for name, value in net.state_dict().items()})
        update_ema(ema, net, beta, **how)

    monkeypatch.setattr(training, "update_ema", watched)
    artifact = lab.make(recognizer(recipe, steps=8, evaluations=1, ema=0.25, lr=2e-2))
    kept = load_file(artifact.path / "embedder.safetensors")
    assert len(nets) == 1 + 8 // every
    average = dict(nets[0])
    for step, net in enumerate(nets[1:]):
        keeps = min(0.5 ** (every / (0.25 * 8)), (1 + step) / (10 + step))
        average = {name: keeps * average[name] + (1 - keeps) * net[name] for name in net}
    for name, value in kept.items():
        if name.endswith("num_batches_tracked"):
            assert value == 8 - every + 1  # of the last update
        else:
            assert torch.allclose(value.double(), average[name], atol=1e-6), name
    assert not torch.allclose(kept["project.weight"].double(), nets[-1]["project.weight"], atol=1e-4)
    net, _ = load_embedder(artifact.path)
    assert summary(artifact)["val_eer"] == error_rate(
        net, ManifestImages(inputs_of(recognizer(recipe), lab)["val"], split="val")
    )


def test_averaged_statistics_agree_with_those_estimated_anew(trained: tuple[Lab, Node, Artifact]) -> None:
    """Batch norm's mean and variance under the averaged weights, over augmented train rows, at the schedule's end."""
    lab, node, _ = trained
    folders = inputs_of(node, lab)
    out = lab.store.root / "ema"
    (out / WORK).mkdir(parents=True)
    options = node.options.model_copy(update={"ema": 0.05, "steps": 80, "evaluations": 1})
    train_recognizer.run(options, {"seed": 0}, folders, out, Context(RUNTIME))  # type: ignore[arg-type]
    train, val = ManifestImages(folders["train"]), ManifestImages(folders["val"], split="val")
    net, _ = load_embedder(out)
    again, augment = copy.deepcopy(net).train(), Augmenter(Augment())
    for norm in again.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
    with torch.no_grad():
        for seed in range(40):
            rows = np.random.default_rng(seed).choice(len(train), 24, replace=False)
            again(to_input(augment(train.pixels[rows], seed)))
    one, other = (embed(each, val.pixels, 64) for each in (net, again))
    assert (one * other).sum(axis=1).mean() > 0.97
    assert error_rate(net, val) == pytest.approx(error_rate(again, val), abs=0.02)


def test_the_average_is_no_part_of_earlier_keys(recipe: Recipe) -> None:
    assert "ema" not in recognizer(recipe).config and recognizer(recipe, ema=0.1).config["ema"] == 0.1
    with pytest.raises(ValueError, match=r"less than or equal to 0\.5"):
        TrainRecognizer(ema=0.6)


# A stopped run.


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6])
def test_a_stopped_run_ends_with_the_same_bytes(recipe: Recipe, shared: Lab, lab: Lab, step: int) -> None:
    node = recognizer(recipe, backbone_args={**BACKBONE_ARGS, "drop_rate": 0.3})  # draws random numbers
    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop_at(step))
    work = lab.store.folder(node.stage, node.key).with_suffix(".incomplete") / WORK
    assert len(list(work.glob("checkpoint-*.pt"))) == (step - 1) // 2  # at steps 2 and 4
    resumed = lab.make(node)
    said = [event.text for event in lab.events if event.kind == "message" and event.title == node.title]
    assert resumed.state == ("resumed" if step > 2 else "ran")
    assert (f"goes on from step {(step - 1) // 2 * 2} of 6" in said) == (step > 2)
    assert resumed.record["outputs"] == undisturbed.record["outputs"]
    assert set(resumed.record["outputs"]) == {
        "embedder.safetensors",
        "embedder.json",
        "curve.jsonl",
        "summary.json",
    }


@pytest.mark.parametrize("step", [3, 5])
def test_a_stopped_average_ends_with_the_same_bytes(recipe: Recipe, shared: Lab, lab: Lab, step: int) -> None:
    node = recognizer(recipe, ema=0.2)
    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop_at(step))
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]
    assert undisturbed.output_digest() != shared.make(recognizer(recipe)).output_digest()


def test_batches_made_ahead_are_the_same(
    recipe: Recipe, shared: Lab, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with the next batch in a thread: the same bytes."""
    node = recognizer(recipe, steps=7, evaluations=3)
    inline = shared.make(node)
    monkeypatch.setattr(training, "Loader", lambda *images, **how: loader.Loader(*images, **how | {"threads": 1}))
    assert lab.make(node).output_digest() == inline.output_digest()


@pytest.mark.parametrize("keep_bytes", [0, 1e9])
def test_batches_made_by_processes_are_the_same(
    recipe: Recipe, shared: Lab, lab: Lab, monkeypatch: pytest.MonkeyPatch, keep_bytes: float
) -> None:
    """Also where images are not kept decoded, and the training goes on after a stop."""
    node = recognizer(recipe, steps=7, evaluations=3)
    inline = shared.make(node)
    monkeypatch.setattr(training, "KEEP_BYTES", keep_bytes)
    lab.runtime = lab.runtime.model_copy(update={"readers": 2})
    with pytest.raises(Stop):
        lab.make(node, stop_at(5))
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.output_digest() == inline.output_digest()


def test_stopped_twice_and_a_torn_checkpoint(recipe: Recipe, shared: Lab, lab: Lab) -> None:
    node = recognizer(recipe)
    undisturbed = shared.make(node)
    for step in (3, 5):
        with pytest.raises(Stop):
            lab.make(node, stop_at(step))
    work = lab.store.folder(node.stage, node.key).with_suffix(".incomplete") / WORK
    newest = sorted(work.glob("checkpoint-*.pt"))[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    with open(work.parent / "curve.jsonl", "a") as file:
        file.write('{"nimg": 48, "lo')
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]


def test_checkpoints_hold_no_pickle(recipe: Recipe, lab: Lab) -> None:
    node = recognizer(recipe)
    with pytest.raises(Stop):
        lab.make(node, stop_at(5))
    work = lab.store.folder(node.stage, node.key).with_suffix(".incomplete") / WORK
    latest = Checkpoints(work).load_latest()  # weights_only
    assert latest is not None and latest[0] == 4 * 8
    assert set(latest[1]) == {"net", "head", "optimizer", "best", "best_net"}


# Where it starts.


def test_a_recognizer_of_an_option_that_is_gone_is_loaded(trained: tuple[Lab, Node, Artifact], tmp_path: Path) -> None:
    """What steered the training alone does not stand in the way of its weights."""
    path = trained[2].path
    spec = json.loads((path / "embedder.json").read_text())
    spec["options"]["use"] = {"new": 0.5, "own_norm": True}
    (tmp_path / "embedder.json").write_text(json.dumps(spec))
    shutil.copy(path / "embedder.safetensors", tmp_path)
    old, new = (load_embedder(folder)[0].state_dict() for folder in (path, tmp_path))
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_own_weights_are_the_start(recipe: Recipe, shared: Lab, lab: Lab, tmp_path: Path) -> None:
    given = shared.make(recognizer(recipe)).path / "embedder.safetensors"
    still = {"lr": 1e-30, "weight_decay": 0.0, "steps": 1, "evaluations": 1}
    whole = load_file(given)
    kept = [name for name in whole if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]

    started = load_file(lab.make(recognizer(recipe, weights=str(given), **still)).path / "embedder.safetensors")
    assert all(torch.equal(started[name], whole[name]) for name in kept)
    n_needed = sum(not name.endswith("num_batches_tracked") for name in whole)
    assert f"embedder.safetensors: {n_needed} of {n_needed} tensors of the recognizer fit" in said(lab)

    save_file({f"_orig_mod.module.{name}": value for name, value in whole.items()}, tmp_path / "wrapped.safetensors")
    path = str(tmp_path / "wrapped.safetensors")
    wrapped = load_file(lab.make(recognizer(recipe, weights=path, **still)).path / "embedder.safetensors")
    assert all(torch.equal(wrapped[name], started[name]) for name in whole)

    bare = {n.removeprefix("backbone."): v for n, v in whole.items() if n.startswith("backbone.")}
    save_file({**bare, "fc.weight": torch.ones(3, 3)}, tmp_path / "bare.safetensors")
    path = str(tmp_path / "bare.safetensors")
    started = load_file(lab.make(recognizer(recipe, weights=path, **still)).path / "embedder.safetensors")
    assert all(torch.equal(started[name], whole[name]) for name in kept if name.startswith("backbone."))
    assert not torch.equal(started["project.weight"], whole["project.weight"])
    line = next(text for text in said(lab) if text.startswith("bare.safetensors"))
    assert "tensors of the backbone fit" in line and line.endswith(
        "1 not used (fc.weight); the embedding layer begins at random"
    )


def test_of_a_recognizer_with_another_embedding_the_backbone_starts(tmp_path: Path) -> None:
    """Said, not silently: its own embedding layer fits nowhere."""
    options = TrainRecognizer(backbone_args=BACKBONE_ARGS, embedding_dim=16)
    given, net = Embedder(options, 1, 32), Embedder(options.model_copy(update={"embedding_dim": 8}), 1, 32)
    save_file({name: tensor.contiguous() for name, tensor in given.state_dict().items()}, tmp_path / "w.safetensors")
    before = net.project.weight.clone()
    path = str(tmp_path / "w.safetensors")
    line = training.begin(net, options.model_copy(update={"embedding_dim": 8, "weights": path}), 1, 32).text
    assert "of the backbone fit, without 'backbone.'" in line and "6 not used (norm.bias" in line
    assert line.endswith("the embedding layer begins at random")
    own, state = given.backbone.state_dict(), net.backbone.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in own) and torch.equal(net.project.weight, before)


def test_a_recognizer_whose_file_was_changed_is_refused(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    folder = shutil.copytree(shared.make(recognizer(recipe)).path, tmp_path / "copy")
    tensors = load_file(folder / "embedder.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, folder / "embedder.safetensors")
    with pytest.raises(UserError, match=r"embedder.safetensors: 0 of \d+ tensors of the recognizer fit"):
        load_embedder(folder)


def test_weights_are_hashed_by_what_they_hold(recipe: Recipe, shared: Lab, tmp_path: Path) -> None:
    given = shared.make(recognizer(recipe)).path / "embedder.safetensors"
    for name in ("a", "b"):
        shutil.copy(given, tmp_path / name)
    same = {recognizer(recipe, weights=str(tmp_path / name)).key for name in ("a", "b")}
    save_file(load_file(given), tmp_path / "a", {"x": "another header"})
    other = recognizer(recipe, weights=str(tmp_path / "a")).key
    assert len({*same, other, recognizer(recipe).key}) == 3


def test_weights_that_cannot_be_used(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights file '.*none' is not there"):
        recognizer(recipe, weights=str(tmp_path / "none"))
    save_file({"conv.weight": torch.ones(3)}, tmp_path / "other")
    with pytest.raises(UserError, match=r"0 of \d+ tensors of the recognizer fit") as error:
        lab.make(recognizer(recipe, weights=str(tmp_path / "other")))
    assert "backbone" in error.value.fix
    lacking = Embedder(TrainRecognizer(backbone_args=BACKBONE_ARGS), 3, 32).backbone.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in lacking.items()}, tmp_path / "rgb")
    with pytest.raises(UserError, match=r"tensors of the backbone fit; 1 of another shape \(conv1.* for ") as error:
        lab.make(recognizer(recipe, weights=str(tmp_path / "rgb")))
    assert "prepare.color" in error.value.fix
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(UserError, match="is not a safetensors file"):
        lab.make(recognizer(recipe, weights=str(tmp_path / "text")))


def test_a_backbone_that_widens_its_features_before_the_classifier_fits() -> None:
    embedder = Embedder(TrainRecognizer(backbone="mobilenetv3_small_050", embedding_dim=16), 1, 32).eval()
    assert embedder(torch.zeros(2, 1, 32, 32)).shape == (2, 16)


def test_an_unknown_backbone_names_similar_ones(recipe: Recipe, lab: Lab) -> None:
    with pytest.raises(UserError, match="timm has no backbone 'resnet10x'") as error:
        lab.make(recognizer(recipe, backbone="resnet10x", backbone_args={}))
    assert "resnet" in error.value.fix and "for example" in error.value.fix
    with pytest.raises(UserError, match="facegan list backbones"):
        lab.make(recognizer(recipe, backbone="zzzzzz", backbone_args={}))


def test_arguments_that_a_backbone_does_not_take(recipe: Recipe, lab: Lab) -> None:
    with pytest.raises(UserError, match="does not take") as error:
        lab.make(recognizer(recipe, backbone_args={"depth_of_thought": 3}))
    assert "backbone_args" in error.value.fix


@pytest.mark.parametrize("evaluations", [1, 8])
def test_what_is_not_finite_stops_the_run(recipe: Recipe, lab: Lab, evaluations: int) -> None:
    node = recognizer(recipe, lr=1e30, warmup=0.0, steps=8, evaluations=evaluations)
    with pytest.raises(UserError, match="training diverged after") as error:
        lab.make(node)
    assert "learning rate" in error.value.fix


def test_half_precision_and_color(tmp_path: Path, faces: Path, lab: Lab) -> None:
    changed = tiny(faces, prepare={"color": "rgb"}, train_recognizer={"precision": "bfloat16", "steps": 2})
    artifact = lab.stage(changed, "train_recognizer", "real", 0)
    net, spec = load_embedder(artifact.path)
    assert spec["channels"] == 3 and spec["size_px"] == 32
    assert {value.dtype for name, value in net.state_dict().items() if "num_batches" not in name} == {torch.float32}


# Embedder and augmentation.


def test_embeddings_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    net = Embedder(TrainRecognizer(backbone_args=BACKBONE_ARGS, embedding_dim=16), 1, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 1), dtype=np.uint8)
    whole = embed(net, pixels, 64)
    assert whole.shape == (11, 16) and whole.dtype == np.float32 and not net.training
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    for size in (1, 3, 11):
        assert np.allclose(embed(net, pixels, size), whole, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_a_function_of_the_seed(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, channels), dtype=np.uint8)
    augment, other = Augmenter(Augment()), Augmenter(Augment())
    first = augment(pixels, 5)
    assert first.shape == pixels.shape and first.dtype == np.uint8
    augment(pixels[:3], 6)
    assert np.array_equal(augment(pixels, 5), first) and np.array_equal(other(pixels, 5), first)
    assert not np.array_equal(augment(pixels, 6), first)
    assert sum(not np.array_equal(a, b) for a, b in zip(first, pixels, strict=True)) >= 4
    assert all(np.array_equal(augment(pixels[:k], 5), first[:k]) for k in (1, 4))  # images one after the other
    nothing = Augment(flip=0, shift=0, scale=0, rotate_deg=0, brightness=0, contrast=0, gamma=0, blur=0, erase=0)
    same = Augmenter(nothing)(pixels, 1)
    assert np.abs(same.astype(int) - pixels).max() <= 1  # rounding


OPTIONS = [Augment(), Augment(rotate_deg=30, shift=0.2, blur=0.5, erase=1), Augment(flip=1, gamma=0, scale=0, erase=0)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(33, 64, 64, 1), (12, 48, 32, 3), (1, 33, 40, 1)])
def test_augmentation_is_that_of_albumentations_bit_for_bit(shape: tuple[int, ...], options: Augment) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    augment, plain = Augmenter(options), Augmenter(options).transform
    assert {type(one).__module__.split(".")[0] for one in plain.transforms} == {"albumentations"}
    before = pixels.copy()
    for seed in range(6):
        plain.set_random_seed(seed)
        expected = np.stack([plain(image=image)["image"] for image in pixels])
        assert np.array_equal(augment(pixels, seed), expected)
    assert np.array_equal(pixels, before)


def test_options_of_a_recipe_are_merged() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}
