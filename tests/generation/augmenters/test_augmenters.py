"""Augmenters: as a family, what each promises; and each member against an independent computation."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter, map_coordinates

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.data.degradation import Round
from facegan.generation.augmenters import AUGMENTERS, AugmentedImage, AugmenterConfig
from facegan.generation.augmenters._bands import adain, bands_of, statistics
from facegan.generation.augmenters._lender import stranger
from facegan.generation.augmenters._trained import TrainedConfig
from facegan.generation.augmenters.adain import restyle
from facegan.generation.augmenters.degrade import Degrade
from facegan.generation.augmenters.methods import registered
from facegan.generation.augmenters.methods.registered import RegisteredPhotos
from facegan.generation.augmenters.moments import Moments
from facegan.generation.augmenters.rim import Rim
from facegan.generation.augmenters.swap import Swap
from facegan.generation.augmenters.tone import Tone
from facegan.generation.gans.networks.registration import GRID
from facegan.generation.train_photos import TrainPhotos
from facegan.generation.translation import TwoDomains

KINDS = sorted(k for k, member in AUGMENTERS.load().items() if not issubclass(member, TrainedConfig | TwoDomains))
"""Those that are trained: tests/generation/restoration and translation."""
LENDING = [kind for kind in KINDS if AUGMENTERS.get(kind).lends]
SIDE = 32


def augmenter(kind: str, **options: Any) -> AugmenterConfig:
    member: AugmenterConfig = AUGMENTERS.get(kind)(**options)
    return member


def photos(people: int = 3, shots: int = 4, channels: int = 1) -> TrainPhotos:
    """Drawn faces, so many of each person."""
    grey = np.stack([draw_face(person, shot, SIDE, SIDE) for person in range(people) for shot in range(shots)])
    tint = np.asarray([1, 0.8, 0.6])[:channels]
    person = np.repeat(np.arange(people), shots)
    return TrainPhotos((grey[..., None] * tint).astype(np.uint8), person, [f"d/p{n}" for n in range(people)])


def picture(seed: int, side: int = SIDE, channels: int = 3) -> np.ndarray:
    """Smooth random colours (side, side, channels) uint8."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(0, 1, (side, side, channels)), (2, 2, 0))
    return (128 + 40 * noise / noise.std()).clip(0, 255).astype(np.uint8)


def pixels_of(images: list[AugmentedImage]) -> list[np.ndarray]:
    return [image.change.pixels for image in images if image.change is not None]


# The family.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_photo_gives_rows_of_its_own_person(kind: str, channels: int) -> None:
    given = photos(channels=channels)
    images = list(augmenter(kind, per_photo=2).images(given, range(12)))
    assert Counter(image.photo for image in images) == dict.fromkeys(range(12), 2)
    for image in images:
        assert image.change is not None, "a drawn face can be used"
        pixels = image.change.pixels
        assert pixels.shape == (SIDE, SIDE, channels) and pixels.dtype == np.uint8 and pixels.std() > 3
        assert not np.array_equal(pixels, given.pixels[image.photo])
        lender = image.change.lender
        assert (lender is None) == (kind not in LENDING)
        assert lender is None or given.person[lender] != given.person[image.photo]
        assert 0 < image.change.share <= 1
    copies = {(image.photo, image.change.pixels.tobytes()) for image in images if image.change is not None}
    lent = {(image.photo, image.change.lender) for image in images if image.change is not None}
    assert len(copies) == (len(lent) if kind in LENDING else len(images)), "copies differ where the lender does"


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_depends_on_seed_photo_and_copy_alone(kind: str) -> None:
    given = photos()
    everything = pixels_of(list(augmenter(kind, per_photo=2).images(given, range(12))))
    some = pixels_of(list(augmenter(kind, per_photo=2).images(given, [7, 3])))
    for one, other in zip(some, [*everything[14:16], *everything[6:8]], strict=True):
        assert np.array_equal(one, other)
    other_seed = pixels_of(list(augmenter(kind, per_photo=2, seed=1).images(given, [7, 3])))
    assert not all(np.array_equal(one, other) for one, other in zip(some, other_seed, strict=True))


class OnAccess:
    """Photos that are too many to keep decoded: they are read by slices and arrays of indices alone."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.kept = pixels

    def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
        assert isinstance(indices, slice | np.ndarray)
        return self.kept[indices]


@pytest.mark.parametrize("kind", KINDS)
def test_photos_may_be_decoded_on_access(kind: str) -> None:
    given = photos(channels=3)
    lazy = TrainPhotos(OnAccess(given.pixels), given.person, given.names)  # type: ignore[arg-type]
    for one, other in zip(*(pixels_of(list(augmenter(kind).images(p, range(12)))) for p in (given, lazy)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", LENDING)
def test_one_person_alone_is_refused_in_words(kind: str) -> None:
    with pytest.raises(UserError, match="one train person: d/p0"):
        list(augmenter(kind).images(photos(people=1), range(4)))


def test_the_stranger_is_any_other_person_and_photo() -> None:
    given, rng = photos(people=3, shots=2), np.random.default_rng(0)
    usable = np.asarray([True, True, True, False, True, True])
    drawn = Counter(stranger(given, 0, rng, usable) for _ in range(400))
    assert drawn.keys() == {2, 4, 5} and drawn[2] > 150, "people are drawn first, then one of their photos"


# Bands and AdaIN.


@pytest.mark.parametrize("side", [32, 64])
def test_bands_are_differences_of_gaussians_that_add_up(side: int) -> None:
    content = picture(0, side).astype(np.float32)
    bands = bands_of(content, 3)
    np.testing.assert_allclose(sum(bands), content, atol=1e-3)
    lows = [content, *(gaussian_filter(content, (s, s, 0), mode="nearest") for s in np.asarray([1, 2, 4]) * side / 64)]
    wanted = [*(fine - coarse for fine, coarse in pairwise(lows)), lows[-1]]
    for band, other in zip(bands, wanted, strict=True):
        np.testing.assert_allclose(band, other, atol=0.3)


def test_each_band_gets_the_statistics_of_the_style_photo() -> None:
    content, style = (picture(seed).astype(np.float32) for seed in (0, 1))
    style = style * np.asarray([0.5, 1, 1.2], np.float32) + np.asarray([20, 0, -30], np.float32)
    for band, other in zip(bands_of(content, 3), bands_of(style, 3), strict=True):
        made = adain(band, other)
        np.testing.assert_allclose(made.mean(axis=(0, 1)), other.mean(axis=(0, 1)), atol=1e-3)
        np.testing.assert_allclose(made.std(axis=(0, 1)), other.std(axis=(0, 1)), rtol=1e-3)
        flat, again = ((x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1)) for x in (band, made))
        np.testing.assert_allclose(flat, again, atol=1e-3)  # what is where stays


def test_without_bands_it_is_the_formula_on_the_image() -> None:
    content, style = picture(0), picture(1)
    x, y = content.astype(float), style.astype(float)
    whole = y.std((0, 1)) * (x - x.mean((0, 1))) / x.std((0, 1)) + y.mean((0, 1))
    np.testing.assert_allclose(restyle(content, style, 0, 1.0), whole, atol=1e-2)
    np.testing.assert_allclose(restyle(content, style, 0, 0.25), 0.75 * x + 0.25 * whole, atol=1e-2)
    np.testing.assert_allclose(restyle(content, content, 3, 1.0), content, atol=1e-2)


def test_a_flat_band_stays_flat() -> None:
    made = adain(np.full((8, 8, 1), 7, np.float32), picture(0, 8, 1).astype(np.float32))
    assert np.isfinite(made).all() and np.ptp(made) == 0


def test_weights_count_pixels_as_often_as_they_say() -> None:
    band, weight = np.asarray([1.0, 4.0, 10.0], np.float32), np.asarray([1, 2, 0], np.float32)
    mean, deviation = statistics(band.reshape(1, 3, 1), weight.reshape(1, 3, 1))
    assert (mean[0], deviation[0]) == pytest.approx((np.mean([1, 4, 4]), np.std([1, 4, 4])))


# degrade.


@pytest.mark.parametrize(
    ("side", "first", "second"),
    [
        (64, Round(1.0, 16, 10, 80), Round(0.5, 26, 5, 80)),  # 64 / 4; the second 64 / 2.5
        (112, Round(1.75, 28, 10, 80), Round(0.875, 45, 5, 80)),  # blur times 112 / 64
    ],
)
def test_the_rounds_scale_with_the_side(side: int, first: Round, second: Round) -> None:
    fixed = Degrade(blur_px=(1, 1), shrink=(4, 4), noise=(10, 10), quality=(80, 80), second=1)
    assert fixed.rounds(side, np.random.default_rng(0)) == [first, second]


def test_what_is_drawn_keeps_to_the_ranges() -> None:
    drawn = [Degrade().rounds(64, np.random.default_rng(seed)) for seed in range(500)]
    firsts = [rounds[0] for rounds in drawn]
    assert np.mean([len(rounds) == 2 for rounds in drawn]) == pytest.approx(0.8, abs=0.06)
    for values, low, high in (
        ([r.blur_px for r in firsts], 0.1, 1.25),
        ([r.small_px for r in firsts], 16, 64),
        ([r.noise for r in firsts], 0, 20),
        ([r.quality for r in firsts], 30, 95),
    ):
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high


def test_each_part_of_a_round_alone() -> None:
    rng, content = np.random.default_rng(0), picture(0, 64, 1)
    same = Round(0, 64, 0, 100).applied(content, rng)
    assert np.abs(same.astype(int) - content).max() <= 2, "nothing but the JPEG's rounding"
    blurred = Round(1.5, 64, 0, 100).applied(content, rng)
    assert np.abs(blurred - gaussian_filter(content.astype(float), (1.5, 1.5, 0), mode="nearest")).max() < 3
    flat = np.full((64, 64, 1), 128, np.uint8)
    assert Round(0, 64, 12, 100).applied(flat, rng).std() == pytest.approx(12, rel=0.05)
    coarse = Round(0, 64, 0, 5).applied(content, rng)
    assert 2 < np.abs(coarse.astype(int) - content).mean() < 40
    small = content[:, :, 0].reshape(32, 2, 32, 2).mean(axis=(1, 3))
    at = (np.arange(64) + 0.5) / 2 - 0.5  # centres of pixels, half as many
    large = map_coordinates(small, np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest")
    assert np.abs(Round(0, 32, 0, 100).applied(content, rng)[:, :, 0] - large).max() < 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blur_px": (2, 1)}, "smaller end first"),
        ({"noise": (-1, 3)}, "not negative"),
        ({"shrink": (0.5, 2)}, "below 1"),
        ({"quality": (0, 90)}, "from 1 to 100"),
    ],
)
def test_ranges_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Degrade(**options)


# tone and moments.


def test_tone_is_one_curve_of_the_grey_values_for_all_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    given = TrainPhotos(np.repeat(grey, 3, axis=2)[None], np.zeros(1, np.int64), ["d/p0"])
    curves = [image.change.pixels for image in Tone(per_photo=400).images(given, [0]) if image.change is not None]
    assert all(
        np.array_equal(curve[..., 0], curve[..., 2]) and (np.diff(curve[..., 0].ravel()) >= 0).all() for curve in curves
    )
    black = np.asarray([curve[0, 0, 0] for curve in curves], int)
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.08) and 90 < black.max() <= 102, "brighter by 0.4 of 255"
    alone = Tone(brightness=0, contrast=0, gamma=0.5).curve(np.random.default_rng(3))
    assert alone[[0, 255]].tolist() == [0, 255], "gamma moves neither end"
    exponent = np.log(alone[128] / 255) / np.log(128 / 255)
    np.testing.assert_allclose(alone, 255 * (np.arange(256) / 255) ** exponent, atol=1.5)


def test_moments_gives_photos_the_light_and_contrast_of_the_other_domain() -> None:
    pixels = np.stack([picture(seed) // 4 + (100 if seed % 2 else 30) for seed in range(6)])
    pixels[1::2] = pixels[1::2] // 2 + 60  # the bright ones have half the contrast
    given = TrainPhotos(pixels, np.repeat(np.arange(3), 2), ["a", "b", "c"])
    made = np.stack(pixels_of(list(Moments().images(given, range(6)))))
    for own, other in ((slice(0, 6, 2), slice(1, 6, 2)), (slice(1, 6, 2), slice(0, 6, 2))):
        wanted = pixels[other].mean(axis=(1, 2)).mean(axis=0), pixels[other].std(axis=(1, 2)).mean(axis=0)
        for one, before in zip(made[own], pixels[own], strict=True):
            np.testing.assert_allclose(one.mean(axis=(0, 1)), wanted[0], atol=0.6)
            np.testing.assert_allclose(one.std(axis=(0, 1)), wanted[1], atol=0.6)
            assert np.corrcoef(one.ravel(), before.ravel())[0, 1] > 0.9
    of_thirds = list(Moments(part=0.34).images(given, range(6)))
    assert sum(image.change is None for image in of_thirds) == 2, "photos of neither end are left out"
    with pytest.raises(UserError, match="one light"):
        list(Moments().images(TrainPhotos(pixels[:1].repeat(6, axis=0), given.person, given.names), range(6)))


# swap and rim.


def unregistered(
    given: TrainPhotos, monkeypatch: pytest.MonkeyPatch, shift: tuple[float, ...] = ()
) -> RegisteredPhotos:
    """Photos whose displacement is what `shift` says, in halves of the side to the right, by photo."""

    def register(grey: torch.Tensor) -> torch.Tensor:
        controls = torch.zeros(len(grey), 2, GRID, GRID)
        for photo, value in enumerate(shift):
            controls[photo, 0] = value
        return controls

    monkeypatch.setattr(registered, "register", register)
    return RegisteredPhotos(given, 0)


def test_the_mask_is_an_ellipse_with_a_soft_rim() -> None:
    y, x = ((np.mgrid[:200, :200] + 0.5) / 100) - 1
    member = Swap(center=0.5, width=0.6, height=0.4, seam=0.2)
    mask = member.mask(np.stack([x, y], axis=-1))[..., 0]
    assert mask.mean() == pytest.approx(np.pi / 4 * 0.6 * 0.4, rel=0.02)
    assert mask[100, 100] == 1 and mask[0, 0] == 0
    edge = np.asarray([[[0.6, 0.0], [0.0, -0.4]]])  # 0.3 of the side to the right of the middle, and 0.2 above it
    assert member.mask(edge).ravel().tolist() == pytest.approx([0.5, 0.5])


def test_a_swap_has_the_frame_outside_and_the_matched_face_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    given = TrainPhotos(np.stack([picture(0), picture(1)]), np.arange(2), ["a", "b"])
    faces, member = unregistered(given, monkeypatch), Swap(bands=0)
    made = member.join(faces, 0, 1)
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE * 2 - 1
    mask = member.mask(np.stack([x, y], axis=-1))
    outside, inside = mask[..., 0] == 0, mask[..., 0] == 1
    assert outside.sum() > 300 and inside.sum() > 60
    assert np.array_equal(made.pixels[outside], given.pixels[1][outside]), "exactly the other's pixels"
    own, frame = given.pixels.astype(float)

    def of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = (mask * values).sum((0, 1)) / mask.sum()
        return mean, np.sqrt((mask * (values - mean) ** 2).sum((0, 1)) / mask.sum())

    (mean, deviation), (wanted_mean, wanted) = of(own), of(frame)
    matched = ((own - mean) / deviation * wanted + wanted_mean).clip(0, 255)
    assert np.abs(made.pixels[inside] - matched[inside]).max() <= 1, "the face with the frame's mean and deviation"
    seam = ~outside & ~inside
    both = np.minimum(matched, frame) - 1, np.maximum(matched, frame) + 1
    assert ((both[0] <= made.pixels) & (made.pixels <= both[1]))[seam].all(), "between both in the seam"
    assert made.lender == 1 and made.share == pytest.approx(mask.mean())


def test_a_rim_is_the_photo_inside_and_the_stranger_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    given = TrainPhotos(np.stack([picture(0), picture(1)]), np.arange(2), ["a", "b"])
    member, faces = Rim(), unregistered(given, monkeypatch)
    made = member.join(faces, 0, 1)
    mask = member.mask(faces.position(faces.place(0)))[..., 0]
    assert np.array_equal(made.pixels[mask == 1], given.pixels[0][mask == 1])
    assert np.array_equal(made.pixels[mask == 0], given.pixels[1][mask == 0])


def test_a_face_is_carried_to_where_the_other_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One photo lies 3 px to the right of the common frame, the other 2 px to the left: 5 px between them."""
    given = TrainPhotos(np.stack([picture(0), picture(1)]), np.arange(2), ["a", "b"])
    faces = unregistered(given, monkeypatch, (3 * 2 / SIDE, -2 * 2 / SIDE))
    carried = faces.carried(0, faces.place(1))
    inner = slice(8, 24)
    moved = given.pixels[0][:, np.arange(SIDE)[inner] + 5]  # its pixel x + 5 is laid on the other's x
    np.testing.assert_allclose(carried[:, inner], moved, atol=0.1)
    middle = faces.position(faces.place(1))[SIDE // 2, SIDE // 2, 0]
    assert middle == pytest.approx(1 / SIDE + 2 * 2 / SIDE, abs=1e-4)  # centre of that pixel, 2 px on


def test_the_nearest_in_shape_lends(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = unregistered(photos(people=4, shots=1), monkeypatch, (0.1, -0.1, 0.12, 0.4))
    assert faces.nearest(0, [1, 2, 3]) == 2 and faces.nearest(0, [3, 1]) == 1


def test_what_shows_no_face_is_left_out_and_lends_nothing() -> None:
    given = photos(people=4, shots=6)
    pixels = given.pixels.copy()
    pixels[5] = 255 - pixels[5]
    given = TrainPhotos(pixels, given.person, given.names)
    images = list(augmenter("swap", per_photo=3).images(given, range(24)))
    assert {image.photo for image in images if image.change is None} == {5}
    assert 5 not in {image.change.lender for image in images if image.change is not None}


def test_photos_that_cannot_be_laid_on_each_other_are_refused_in_words() -> None:
    given = photos(people=2, shots=5)
    pixels = given.pixels.copy()
    pixels[5:8], pixels[8:] = 255 - pixels[5:8], np.random.default_rng(0).integers(0, 256, pixels[8:].shape)
    with pytest.raises(UserError, match=r"of 10 train photos only \d, of 1 people, have a face"):
        list(augmenter("swap").images(TrainPhotos(pixels, given.person, given.names), range(10)))


def test_registration_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    RegisteredPhotos(photos(people=2), 0)
    assert torch.equal(torch.rand(1), wanted)
