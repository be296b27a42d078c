"""Restoration: what it learns, its terms against written-out ones, kill -9, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from drawn import RUNTIME, draw_face
from facegan.core.errors import UserError
from facegan.generation.augmenters.restore import Restore
from facegan.generation.restoration import Restoration, training
from facegan.generation.restoration.features import GuideFeatures, distances
from facegan.generation.restoration.network import Restorer, load_restorer
from facegan.generation.train_photos import TrainPhotos
from facegan.recognition.embedder import Embedder
from facegan.recognition.options import TrainRecognizer
from facegan.runtime.context import Context
from facegan.training.checkpoints import Checkpoints
from kills import kill, kills_itself

SIDE = 32
SMALL: dict[str, Any] = {"channels": 4, "kimg": 0.032, "batch_size": 4, "checkpoint_kimg": 0.008}
ALONE: dict[str, Any] = {**SMALL, "perceptual": 0, "identity": 0}


def photos(people: int = 4, shots: int = 4, channels: int = 1, side: int = SIDE) -> TrainPhotos:
    grey = np.stack([draw_face(person, shot, side, side) for person in range(people) for shot in range(shots)])
    tint = np.asarray([1, 0.8, 0.6])[:channels]
    person = np.repeat(np.arange(people), shots)
    return TrainPhotos((grey[..., None] * tint).astype(np.uint8), person, [f"d/p{n}" for n in range(people)])


def guide(channels: int = 1) -> Embedder:
    torch.manual_seed(0)
    options = {"backbone": "resnet10t", "backbone_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
    return Embedder(TrainRecognizer(**options, embedding_dim=16), channels, SIDE).eval()


def trained(out: Path, options: Restoration, which: TrainPhotos | None = None) -> Restorer:
    (out / "work").mkdir(parents=True, exist_ok=True)
    return training.train(options, 0, which or photos(), None, out, Context(RUNTIME))


def test_nothing_is_changed_at_first() -> None:
    pixels = photos(channels=3).pixels
    net = Restorer(3, SIDE, channels=4).eval()
    assert np.array_equal(net.changed(pixels[0]), pixels[0])


def test_it_learns_to_undo_what_was_done(tmp_path: Path) -> None:
    """Photos without a blur are nearer to the clean ones after some hundred steps than before, new people's too."""
    blur = {"blur_px": (1.5, 1.5), "shrink": (1, 1), "noise": (0, 0), "quality": (95, 95), "second": 0}
    options = Restoration(**{**ALONE, "channels": 8, "kimg": 0.8, "batch_size": 8, "degradation": blur})
    net = trained(tmp_path, options, photos(12, 4)).eval()
    others = np.stack([draw_face(person, 0, SIDE, SIDE) for person in range(50, 60)])[..., None]
    poor = np.stack([options.degradation.degraded(photo, np.random.default_rng(0)) for photo in others])
    better = np.stack([net.changed(photo) for photo in poor])
    before, after = (np.abs(some.astype(float) - others).mean() for some in (poor, better))
    assert after < 0.9 * before
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert len(curve) == 100 and {"l1", "adversarial", "d", "r1", "r2"} <= curve[0].keys()
    assert np.mean([line["l1"] for line in curve[-20:]]) < np.mean([line["l1"] for line in curve[:20]])


def test_terms_are_those_written_out() -> None:
    net = guide(3)
    rng = torch.Generator().manual_seed(1)
    img, clean = (torch.rand(3, 3, SIDE, SIDE, generator=rng) * 2 - 1 for _ in range(2))
    features = GuideFeatures(net)
    img.requires_grad_(True)
    perceptual, identity = distances(features, img, clean)
    with torch.no_grad():
        a, b = net(img), net(clean)
        cosine = (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)
        backbone = net.backbone
        wanted, sides = [], []
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
            found: list[torch.Tensor] = []
            handle = stage.register_forward_hook(lambda m, i, o, found=found: found.append(o))
            for photo in (img, clean):
                net(photo)
            handle.remove()
            one, other = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in found)
            sides.append(one.shape[-1])
            wanted.append(float((one - other).square().sum(dim=1).mean()))
    assert float(identity) == pytest.approx(float((1 - cosine).mean()), abs=1e-5)
    maps, _ = features(img.detach())
    stages = {side: value for side, value in zip(sides, wanted, strict=True) if side > 1}
    assert {m.shape[-1] for m in maps} >= set(stages)
    mine = {m.shape[-1]: float((m - n).square().sum(1).mean()) for m, n in zip(maps, features(clean)[0], strict=True)}
    assert all(mine[side] == pytest.approx(value, abs=1e-5) for side, value in stages.items())
    assert float(perceptual) == pytest.approx(np.mean(list(mine.values())), abs=1e-5)
    perceptual.backward()
    assert img.grad is not None and img.grad.abs().sum() > 0 and next(net.parameters()).grad is None
    same = distances(features, clean, clean)
    assert [float(value) for value in same] == pytest.approx([0, 0], abs=1e-5)


def test_a_guide_without_a_gradient_is_refused() -> None:
    net = guide()
    net.has_gradient = False
    with pytest.raises(UserError, match="the guide has no gradient"):
        GuideFeatures(net)


def test_killed_in_a_step_it_ends_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = Restore(**ALONE)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        (folder / "work").mkdir(parents=True)
    options.train(photos(), None, ["x"], whole, Context(RUNTIME))
    done = 0
    step = training.update_ema

    def at_the_fifth(*args: Any, **kwargs: Any) -> None:
        nonlocal done
        done += 1
        if done == 5:
            kill()
        step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "update_ema", at_the_fifth)
        kills_itself(lambda: options.train(photos(), None, ["x"], cut, Context(RUNTIME)))
    assert not (cut / "restorer.safetensors").exists() and Checkpoints(cut / "work").load_latest()[0] == 16  # type: ignore[index]
    options.train(photos(), None, ["x"], cut, Context(RUNTIME))
    for name in ("restorer.safetensors", "restorer.json", "curve.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_rows_are_restored_photos_and_depend_on_nothing_else(tmp_path: Path) -> None:
    options = Restore(**ALONE, per_photo=2)
    (tmp_path / "work").mkdir()
    options.train(photos(), None, [], tmp_path, Context(RUNTIME))
    made = list(options.reading_from(tmp_path).images(photos(), range(4)))
    again = list(options.reading_from(tmp_path).images(photos(), [2]))
    assert all(np.array_equal(a.change.pixels, b.change.pixels) for a, b in zip(made[4:6], again, strict=True))  # type: ignore[union-attr]
    assert not np.array_equal(made[4].change.pixels, made[5].change.pixels), "two copies are degraded apart"  # type: ignore[union-attr]
    as_it_is = next(iter(options.model_copy(update={"degrade": False}).reading_from(tmp_path).images(photos(), [0])))
    assert np.array_equal(as_it_is.change.pixels, load_restorer(tmp_path).changed(photos().pixels[0]))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="has not been trained"):
        next(iter(options.images(photos(), [0])))


def test_options_that_learn_nothing_and_sides_that_do_not_halve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="nothing ties a restored photo to the clean one"):
        Restore(l1=0, perceptual=0)
    assert not Restore(perceptual=0, identity=0).needs_guide and Restore(perceptual=0).needs_guide
    with pytest.raises(UserError, match="photos of 36 px cannot be halved"):
        trained(tmp_path, Restoration(**ALONE), photos(side=36))
    with pytest.raises(UserError, match="no restorer in"):
        load_restorer(tmp_path / "nothing")
