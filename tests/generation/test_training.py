"""train_gan: what it hands over, whom it sees, and that a stopped run ends with the same bytes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import RUNTIME, Lab, draw_folder
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.generation import training
from facegan.generation.gans import GANS
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.training import STANDING_BATCHES, crossed
from facegan.runtime.context import Context
from facegan.stages import train_gan
from facegan.store.local import WORK, Artifact
from facegan.training.checkpoints import Checkpoints
from facegan.training.tensors import to_input
from gan_runs import ADVERSARIAL, Stop, gan_node, stop_at
from ranked_gan import leaves


def test_what_is_handed_over(faces: Path, shared: Lab) -> None:
    artifact = shared.make(gan_node(faces))
    assert set(artifact.record["outputs"]) == {
        "generator.safetensors", "generator.json", "curve.jsonl",
        "snapshots/kimg-00000.024.png", "snapshots/kimg-00000.048.png",
    }  # fmt: skip
    spec = json.loads((artifact.path / "generator.json").read_text())
    prepare = shared.done[gan_node(faces).needs["manifest"].key]
    rows = manifest.read(prepare.path, ["identity", "split"]).to_pylist()
    assert spec["identities"] == sorted({r["identity"] for r in rows if r["split"] == "train"})  # and no other
    assert (spec["channels"], spec["size_px"], spec["nimg"]) == (1, 32, 48)
    lines = [json.loads(line) for line in (artifact.path / "curve.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == [8, 16, 24, 32, 40, 48]
    assert {"d", "g", "reconstruction", "kl", "real_logits", "gen_logits"} <= set(lines[0])
    grid = np.asarray(Image.open(artifact.path / "snapshots" / "kimg-00000.024.png"))
    assert grid.shape == ((4 + 8) * 32, 7 * 32)  # a real photo and six variations of each of four people, then new ones
    assert (grid[4 * 32 :, :32] == 127).all()  # who have no photo
    assert len({row.tobytes() for row in grid.reshape(12, 32, -1)}) == 12
    images = ManifestImages(prepare.path, split="train")
    assert np.array_equal(grid[:32, :32], images.pixels[np.flatnonzero(images.codes()[1] == 0)[0]].squeeze())


def test_people_of_val_and_test_teach_nothing(faces: Path, shared: Lab, tmp_path: Path) -> None:
    node = gan_node(faces)
    artifact = shared.make(node)
    rows = manifest.read(shared.done[node.needs["manifest"].key].path).to_pylist()
    manifest.write(tmp_path / "in", [row for row in rows if row["split"] == "train"], "prepare", {})
    (tmp_path / "out").mkdir()
    inputs = {"manifest": tmp_path / "in"}
    train_gan.run(node.options, {}, inputs, tmp_path / "out", Context(RUNTIME))  # type: ignore[arg-type]
    theirs, ours = ((path / "generator.safetensors").read_bytes() for path in (artifact.path, tmp_path / "out"))
    assert theirs == ours


def test_it_learns_to_rebuild_faces(faces: Path, shared: Lab, lab: Lab) -> None:
    """The default family: images rebuilt from their own codes come closer to the real ones."""

    def distance(artifact: Artifact, images: ManifestImages) -> float:
        G, _ = load_generator(artifact.path)
        img, codes = to_input(images.pixels).contiguous(), torch.from_numpy(images.codes()[1])
        w = G.codes()[codes]
        z = G.encode(img, w)
        assert z is not None
        return float((G(w, z) - img).abs().mean())

    short = shared.make(gan_node(faces))
    images = ManifestImages(shared.done[gan_node(faces).needs["manifest"].key].path, split="train")
    long = lab.make(gan_node(faces, kimg=0.4, checkpoint_kimg=9, snapshot_kimg=9, flip=False, gan={"ema_kimg": 0.1}))
    assert distance(long, images) < 0.9 * distance(short, images)
    assert distance(long, images) < 0.5 * float(np.abs(images.pixels / 127.5 - np.mean(images.pixels / 127.5)).mean())


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_stopped_run_ends_with_the_same_bytes(faces: Path, shared: Lab, lab: Lab, kind: str) -> None:
    node = gan_node(faces, kind, gan={"r1_gamma": 0.5, "r2_gamma": 0.5, "r1_interval": 2})
    undisturbed = shared.make(node)
    for nimg in (24, 40):  # checkpoints are written at 16 and 32
        with pytest.raises(Stop):
            lab.make(node, stop_at(nimg))
    resumed = lab.make(node)
    messages = [event.text for event in lab.events if event.kind == "message"]
    assert resumed.state == "resumed" and "goes on from 0.032 of 0.048 kimg" in messages
    assert resumed.record["outputs"] == undisturbed.record["outputs"]


@pytest.mark.parametrize("kind", ["cvae_gan", "dcgan"])
def test_stopped_between_two_steps_of_g(faces: Path, shared: Lab, lab: Lab, kind: str) -> None:
    """G steps with batches 3 and 6 of six; the checkpoint that is gone on from was written after the fourth."""
    node = gan_node(faces, kind, gan={"loss": "wasserstein", "critic_steps": 3})
    undisturbed = shared.make(node)
    lines = [json.loads(line) for line in (undisturbed.path / "curve.jsonl").read_text().splitlines()]
    assert ["g" in line for line in lines] == [False, False, True] * 2
    with pytest.raises(Stop):
        lab.make(node, stop_at(40))
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]


def test_batch_norms_of_the_averaged_g_are_of_its_own_outputs(faces: Path, shared: Lab) -> None:
    """With them, drawing a batch as in training and drawing it from the stored moments nearly agree."""
    artifact = shared.make(gan_node(faces, "dcgan"))
    G, _ = load_generator(artifact.path)
    images = ManifestImages(shared.done[gan_node(faces, "dcgan").needs["manifest"].key].path, split="train")
    norms = [layer for layer in G.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms and all(norm.num_batches_tracked == STANDING_BATCHES for norm in norms)
    w = G.codes()[torch.from_numpy(np.resize(images.codes()[1], 4000))]
    z = torch.randn(4000, G.z_dim, generator=torch.Generator().manual_seed(5))
    stored = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the moments of one large batch
        norm.train()
    G(w, z)
    for norm, (mean, var) in zip(norms, stored, strict=True):
        assert (norm.running_mean - mean).abs().max() < 0.2 * norm.running_var.sqrt().mean()
        torch.testing.assert_close(var.mean(), norm.running_var.mean(), rtol=0.15, atol=0)


@pytest.mark.parametrize(("kind", "loss"), [("cvae_gan", "hinge"), ("style", "nonsaturating")])
def test_stopped_while_p_adapts_and_the_person_comes_in(
    faces: Path, shared: Lab, lab: Lab, kind: str, loss: str
) -> None:
    """p moves after 24 and 48 images; both checkpoints that are gone on from lie between."""
    ada = {"interval": 3, "kimg": 0.1, "target": -0.9}
    helped = {"loss": loss, "ada": ada, "ramp": {"start_kimg": 0.008, "end_kimg": 0.04}}
    node = gan_node(faces, kind, gan=helped)
    undisturbed = shared.make(node)
    lines = [json.loads(line) for line in (undisturbed.path / "curve.jsonl").read_text().splitlines()]
    assert [line["ada_p"] for line in lines] == [0, 0, 0, 0.24, 0.24, 0.24]
    assert all(-1 <= line["ada_r"] <= 1 for line in lines)
    for nimg in (24, 40):
        with pytest.raises(Stop):
            lab.make(node, stop_at(nimg))
    work = lab.store.folder(node.stage, node.key).with_suffix(".incomplete") / WORK
    latest = Checkpoints(work).load_latest()
    assert latest is not None and latest[0] == 32
    assert latest[1]["ada"] == {"p": 0.24, "signs": 8 * lines[3]["ada_r"], "steps": 1}
    resumed = lab.make(node)
    assert resumed.state == "resumed" and resumed.record["outputs"] == undisturbed.record["outputs"]
    for left_out in ("ada", "ramp"):
        other = lab.make(gan_node(faces, kind, gan={**helped, left_out: None}))
        assert other.record["outputs"]["generator.safetensors"] != resumed.record["outputs"]["generator.safetensors"]


def test_a_family_that_is_solved_has_no_curve(faces: Path, shared: Lab, lab: Lab) -> None:
    node = gan_node(faces, "morphable")
    artifact = shared.make(node)
    images = ManifestImages(shared.done[node.needs["manifest"].key].path, split="train")
    grid = "snapshots/kimg-00000.020.png"
    assert set(artifact.record["outputs"]) == {"generator.safetensors", "generator.json", grid}
    spec = json.loads((artifact.path / "generator.json").read_text())
    assert spec["nimg"] == len(images) == 20 and spec["identities"] == images.codes()[0]
    assert Image.open(artifact.path / grid).size == (7 * 32, (4 + 8) * 32)
    assert lab.make(node).record["outputs"] == artifact.record["outputs"]  # solved again: the same bytes
    few, _ = load_generator(lab.make(gan_node(faces, "morphable", gan={"max_photos": 7})).path)
    assert few.z_dim == 3 * 7 and few.num_identities == 4


@pytest.mark.parametrize("nimg", [8, 16, 24, 32, 48])
def test_wherever_it_stops(faces: Path, shared: Lab, lab: Lab, nimg: int) -> None:
    node = gan_node(faces)
    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop_at(nimg))
    again = lab.make(node)
    assert again.state == ("resumed" if nimg > 16 else "ran")
    assert again.record["outputs"] == undisturbed.record["outputs"]


def test_stopped_while_drawing_and_torn_files(faces: Path, shared: Lab, lab: Lab) -> None:
    node = gan_node(faces)
    undisturbed = shared.make(node)
    with pytest.raises(Stop):
        lab.make(node, stop_at(48, "image"))
    out = lab.store.folder(node.stage, node.key).with_suffix(".incomplete")
    newest = sorted((out / WORK).glob("checkpoint-*.pt"))[-1]
    os.truncate(newest, 1000)
    os.truncate(out / "curve.jsonl", (out / "curve.jsonl").stat().st_size - 9)
    os.truncate(out / "snapshots" / "kimg-00000.048.png", 50)
    os.truncate(out / "snapshots" / "kimg-00000.024.png", 50)
    (out / "generator.safetensors").write_bytes(b"half")
    (out / ".generator.safetensors.tmp").write_bytes(b"half")
    (out / WORK / ".checkpoint-000000000048.pt.tmp").write_bytes(b"half")
    assert lab.make(node).record["outputs"] == undisturbed.record["outputs"]


def test_checkpoints_hold_no_pickle(faces: Path, lab: Lab) -> None:
    node = gan_node(faces)
    with pytest.raises(Stop):
        lab.make(node, stop_at(48))
    work = lab.store.folder(node.stage, node.key).with_suffix(".incomplete") / WORK
    latest = Checkpoints(work).load_latest()  # weights_only
    assert latest is not None and latest[0] == 32 and len(list(work.iterdir())) == 2
    assert set(latest[1]) == {"G", "D", "G_ema", "opt_g", "opt_d"}


def test_what_is_not_finite_stops_the_run(faces: Path, lab: Lab) -> None:
    with pytest.raises(UserError, match="training diverged after") as error:
        lab.make(gan_node(faces, gan={"lr_g": 1e30}))
    assert "learning rate" in error.value.fix


def test_what_was_saved_before_it_diverged_is_kept(faces: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    step = training.train_step

    def diverges(*arguments: Any, **rest: Any) -> dict[str, float]:
        values = step(*arguments, **rest)
        return {**values, "g": math.nan} if arguments[7] == 3 else values

    monkeypatch.setattr(training, "train_step", diverges)
    node = gan_node(faces)
    with pytest.raises(UserError, match="training diverged after 32 images: g = nan") as error:
        lab.make(node)
    assert "checkpoints before this are kept" in error.value.fix
    latest = Checkpoints(lab.store.folder(node.stage, node.key).with_suffix(".incomplete") / WORK).load_latest()
    assert latest is not None and latest[0] == 16
    assert all(value.isfinite().all() for _, value in leaves("", latest[1]))


def test_more_images_in_a_batch_than_there_are_photos(faces: Path, lab: Lab) -> None:
    lab.make(gan_node(faces, batch_size=24, kimg=0.024))
    said = [event.text for event in lab.events if event.kind == "message"]
    assert "a batch is 24 images, but there are 20 photos: each has some more than once" in said


@pytest.mark.parametrize("kind", GANS.load())
def test_a_length_that_is_null_is_the_familys_own(faces: Path, kind: str) -> None:
    node, own = gan_node(faces, kind, kimg=None), GANS.get(kind).default_kimg
    assert node.options.kimg == node.hashed["kimg"] == own and node.key == gan_node(faces, kind, kimg=own).key
    assert node.key != gan_node(faces, kind, kimg=own + 1).key


def test_seeds_and_options_make_others(faces: Path, shared: Lab, lab: Lab) -> None:
    first = shared.make(gan_node(faces)).record["outputs"]["generator.safetensors"]
    nodes = [
        gan_node(faces, seed=1),
        gan_node(faces, flip=False),
        gan_node(faces, gan={"loss": "wasserstein"}),
    ]
    others = [lab.make(node).record["outputs"]["generator.safetensors"]["sha256"] for node in nodes]
    assert len({first["sha256"], *others}) == 4


def test_more_people_than_a_grid_shows(tmp_path: Path, lab: Lab) -> None:
    root = draw_folder(tmp_path / "root", people=20, shots=2)
    artifact = lab.make(gan_node(root, kimg=0.008))
    grid = Image.open(artifact.path / "snapshots" / "kimg-00000.008.png")
    assert grid.size == (7 * 32, (8 + 8) * 32)


def test_schedules() -> None:
    ends = range(8, 81, 8)
    assert [n for n in ends if crossed(n, 8, 0.016)] == [16, 32, 48, 64, 80]
    assert [n for n in ends if crossed(n, 8, 0.020)] == [24, 40, 64, 80]
    assert [n for n in ends if crossed(n, 8, 0.004)] == list(ends)
    assert [n for n in ends if crossed(n, 8, 1.0)] == []
