"""Conditions: as a family, what each promises; and each member against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from drawn import draw_face
from facegan.data.conditions import CONDITIONS, ConditionConfig
from facegan.data.conditions.side_light import GAMMA, SideLight
from facegan.data.conditions.small import Small
from facegan.data.pixels import resized

KINDS = sorted(CONDITIONS.load())


def condition(kind: str) -> ConditionConfig:
    member: ConditionConfig = CONDITIONS.get(kind)()
    return member


def photo(side: int, channels: int) -> np.ndarray:
    tint = np.asarray([1, 0.8, 0.6])[:channels]
    return (draw_face(1, 2, side, side)[..., None] * tint).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_keeps_its_form_and_is_changed_alike_again(kind: str, channels: int) -> None:
    before = photo(48, channels)
    kept = before.copy()
    first, second = (condition(kind).changed(before, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == before.shape and first.dtype == np.uint8
    assert np.array_equal(first, second) and np.array_equal(before, kept), "nothing is written into the photo"
    assert (first != before).any() == ((kind, channels) != ("grey", 1))


def test_grey_is_pillows_luma() -> None:
    before = photo(32, 3)
    grey = condition("grey").changed(before, np.random.default_rng(0))
    luma = np.asarray(Image.fromarray(before).convert("L"), np.int16)
    assert np.abs(grey.astype(np.int16) - luma[..., None]).max() <= 1  # of rounding
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_small_means_areas() -> None:
    before = photo(64, 1)
    means = before[:, :, 0].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(resized(before, 16)[:, :, 0] - means).max() <= 0.5
    changed = Small(side_px=16).changed(before, np.random.default_rng(0))
    assert np.abs(resized(changed, 16).astype(int) - resized(before, 16)).max() < 40
    assert np.array_equal(Small(side_px=64).changed(before, np.random.default_rng(0)), before)


def test_light_comes_from_one_side_at_the_lamps_angle() -> None:
    lamp = SideLight(azimuth=60, ambient=0.2)
    gain = lamp.gain(65)
    middle = 34  # row and column whose surface looks at the camera: (0, MIDDLE)
    assert gain[middle, 32] == pytest.approx((0.2 + 0.8 * 0.5) ** (1 / GAMMA), abs=0.01)  # cos 60 degrees
    assert gain.max() == pytest.approx(1, abs=0.01) and gain.min() == pytest.approx(0.2 ** (1 / GAMMA))
    assert gain[middle].argmax() > 32 and gain[:, 0].max() < gain[:, -1].min()
    grey = np.full((33, 33, 1), 200, np.uint8)
    sides = {bool(lamp.changed(grey, np.random.default_rng(n))[16, 2, 0] > 150) for n in range(20)}
    assert sides == {True, False}, "left and right are both drawn"


def test_degraded_is_what_the_augmenter_does() -> None:
    from facegan.generation.augmenters.degrade import Degrade
    from facegan.generation.train_photos import TrainPhotos

    before = photo(48, 3)
    changed = condition("degraded").changed(before, np.random.default_rng(5))
    change = Degrade().change(TrainPhotos(before[None], np.zeros(1, np.int64), ["d/p"]))(0, np.random.default_rng(5))
    assert change is not None and np.array_equal(changed, change.pixels)


@pytest.mark.parametrize(("kind", "options"), [("small", {"side_px": 2}), ("side_light", {"azimuth": 0})])
def test_options_out_of_range_are_refused(kind: str, options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CONDITIONS.get(kind)(**options)
