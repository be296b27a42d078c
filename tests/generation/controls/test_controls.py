"""Controls: as a family, what each promises; and each member against an independent computation."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import decode_pixels, encode_png
from facegan.data.pixels import to_uint8
from facegan.generation.controls import CONTROLS, ControlConfig, ControlImage, NewPeople
from facegan.generation.controls._mixtures import shares_of
from facegan.generation.controls.pixel_mix import mix
from facegan.generation.controls.texture import texture
from facegan.generation.controls.warp import Warp
from facegan.generation.identities.gaussian import Gaussian
from facegan.generation.identities.mixture import Mixture
from facegan.generation.train_photos import TrainPhotos

KINDS = sorted(CONTROLS.load())
SIZES = np.asarray([3, 7, 1, 5, 5])
NAMES = ["d/p0", "d/p1", "d/p2"]
SIDE = 24


def control(kind: str, **options: float) -> ControlConfig:
    member: ControlConfig = CONTROLS.get(kind)(**options)
    return member


def photos(channels: int = 1) -> TrainPhotos:
    """Four photos of each of three people."""
    grey = np.stack([draw_face(person, shot, SIDE, SIDE) for person in range(3) for shot in range(4)])
    tint = np.asarray([1, 0.8, 0.6])[:channels]
    return TrainPhotos((grey[..., None] * tint).astype(np.uint8), np.repeat(np.arange(3), 4), NAMES)


def people(folder: Path, channels: int = 1) -> NewPeople:
    """Five new people of `SIZES` images, mixed from two of the three."""
    numbers = np.repeat(np.arange(len(SIZES)), SIZES)
    tint = np.asarray([1, 0.8, 0.6])[:channels]
    rows = [
        manifest.row(
            encode_png((draw_face(50 + number, shot, SIDE, SIDE)[..., None] * tint).astype(np.uint8)),
            identity=f"{manifest.NEW}new-{number:06d}",
            source="synthetic",
            dataset="synthetic",
            split="train",
            height=SIDE,
            width=SIDE,
            generator="g",
            latent="{}",
            parents=[NAMES[number % 3]],
        )
        for shot, number in enumerate(numbers.tolist())
    ]
    folder.mkdir(exist_ok=True)
    manifest.write(folder, rows, "synthesize", {})
    return NewPeople(SIZES, folder, lambda number: (np.asarray([number % 3, (number + 1) % 3]), np.asarray([0.6, 0.4])))


def made(member: ControlConfig, folder: Path, channels: int = 1) -> list[ControlImage]:
    return list(member.images(photos(channels), people(folder, channels)))


# The family.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_classes_and_images_as_the_new_people_have(kind: str, channels: int, tmp_path: Path) -> None:
    images = made(control(kind), tmp_path, channels)
    counts = Counter(image.number for image in images)
    assert [counts[number] for number in range(len(SIZES))] == SIZES.tolist()
    for image in images:
        pixels = decode_pixels(image.png)
        assert pixels.shape == (SIDE, SIDE, channels) and pixels.dtype == np.uint8 and pixels.std() > 3
        assert set(image.parents) <= set(NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_all(kind: str, tmp_path: Path) -> None:
    first, again = made(control(kind), tmp_path), made(control(kind), tmp_path)
    assert first == again
    assert made(control(kind, seed=1), tmp_path) != first


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_it_is(kind: str) -> None:
    assert control(kind).words and control(kind).__doc__


def test_grey_values_are_rounded_to_the_nearest_and_halves_to_even() -> None:
    assert to_uint8(np.asarray([-3, 0.5, 1.5, 2.5, 254.6, 300], np.float32)).tolist() == [0, 0, 2, 2, 255, 255]


# pixel_mix.


def test_two_photos_of_two_by_two_pixels_mixed_by_hand() -> None:
    mean = np.full((2, 2, 1), 100, np.float32)
    first, second = mean.copy(), mean.copy()
    first[0, 0], second[0, 1] = 140, 130
    lent = np.stack([first, second])[:, None].astype(np.uint8)
    # Deviations 40 and 30; half of each: (20, 15), of length 25; wanted (40 + 30) / 2 = 35, so 1.4 times: (28, 21).
    assert mix(lent, np.asarray([0.5, 0.5]), mean)[0, :, :, 0].tolist() == [[128, 121], [100, 100]]
    assert np.array_equal(mix(lent, np.asarray([1.0, 0.0]), mean)[0], lent[0, 0])


def test_shares_are_those_that_the_sampler_drew() -> None:
    rng = np.random.default_rng(0)
    for people, code_dim in ((9, 16), (60, 16)):  # fewer and more people than a code has dimensions
        codes = rng.normal(2, 1, (people, code_dim))
        sampler = Mixture(parents=4, concentration=3).proposals(codes, np.random.default_rng(1))
        for _, proposal in zip(range(5), sampler, strict=False):
            parents, weights = list(proposal.parents), proposal.code_weights
            assert weights is not None
            np.testing.assert_allclose(codes.T @ weights, proposal.code, atol=1e-4)
            shares = shares_of(weights.tolist(), everybody=True)
            np.testing.assert_allclose(shares[parents], proposal.weights, atol=1e-6)
            assert shares.sum() == pytest.approx(1) and np.count_nonzero(shares) == 4
            alone = shares_of(weights[parents].tolist(), everybody=False)  # the others' weights were too small to name
            np.testing.assert_allclose(alone, weights[parents] / weights[parents].sum(), atol=1e-6)


def test_a_gaussian_draw_has_shares_that_are_not_negative() -> None:
    codes = np.random.default_rng(0).normal(2, 1, (9, 6))
    proposal = next(Gaussian().proposals(codes, np.random.default_rng(1)))
    assert proposal.code_weights is not None
    shares, mean = shares_of(proposal.code_weights.tolist(), everybody=True), codes.mean(axis=0)
    assert shares.min() >= 0 and shares.sum() == pytest.approx(1)
    mixed, drawn = shares @ codes - mean, proposal.code - mean
    assert mixed @ drawn == pytest.approx(np.linalg.norm(mixed) * np.linalg.norm(drawn), rel=1e-4), "the same direction"


# warp.


def test_all_photos_of_a_class_are_moved_by_the_same_map() -> None:
    """Two ramps, warped, tell where each pixel was read; SciPy reads the third photo there."""
    side = 64
    y, x = (grid.astype(np.float64) for grid in np.mgrid[0:side, 0:side])
    face = draw_face(0, 0, side, side)
    pictures = np.stack([4 * x, 4 * y, face]).astype(np.uint8)[..., None]
    member = Warp(shape_px=1.4, tone=0, light=0, mirror=0)
    one = TrainPhotos(pictures, np.zeros(3, np.int64), ["d/p0"])
    wanted = NewPeople(np.asarray([3, 3]), Path(), lambda number: (np.empty(0), np.empty(0)))
    images = list(member.images(one, wanted))
    maps = []
    for number in range(2):
        warped = np.stack([decode_pixels(image.png)[..., 0] for image in images if image.number == number])
        nearest = [int(np.abs(warped.astype(float) - p[..., 0]).mean(axis=(1, 2)).argmin()) for p in pictures]
        at_x, at_y, moved = (warped[index].astype(np.float64) for index in nearest)
        maps.append(np.stack([at_x, at_y]) / 4)
        expected = map_coordinates(face.astype(np.float64), [at_y / 4, at_x / 4], order=1, mode="nearest")
        inner = (slice(6, -6), slice(6, -6))
        assert np.abs(moved - expected)[inner].mean() < 3, "read at other places than the ramps"
        assert np.abs(moved - face)[inner].mean() > 6, "not moved at all"
        shift = np.hypot(maps[-1][0] - x, maps[-1][1] - y)[inner]
        assert 0.3 < shift.mean() < 5
    assert np.abs(maps[0] - maps[1]).max() > 0.5, "each class has a map of its own"


def test_tone_light_and_mirror_are_those_of_the_class() -> None:
    flat = np.full((4, 32, 32, 1), 100, np.uint8)
    one = TrainPhotos(flat, np.zeros(4, np.int64), ["d/p0"])
    wanted = NewPeople(np.full(40, 2), Path(), lambda number: (np.empty(0), np.empty(0)))
    levels = []
    images = list(Warp(light=0, tone=0.3).images(one, wanted))
    for number in range(40):
        values = {int(decode_pixels(i.png).min()) for i in images if i.number == number}
        values |= {int(decode_pixels(i.png).max()) for i in images if i.number == number}
        assert len(values) == 1
        levels.append(values.pop())
    gamma = np.log(np.asarray(levels) / 255) / np.log(100 / 255)
    assert np.log(gamma).std() == pytest.approx(0.3, rel=0.35) and abs(np.log(gamma).mean()) < 0.15
    lit = list(Warp(light=12, tone=0).images(one, wanted))
    slopes = [np.ptp(decode_pixels(image.png)[16, :, 0].astype(float)) / 2 for image in lit[::2]]
    assert np.sqrt(np.mean(np.square(slopes))) == pytest.approx(12, rel=0.35)
    ramp = np.tile(np.arange(0, 160, 5, dtype=np.uint8), (4, 32, 1))[..., None]
    turned = list(Warp(light=0, tone=0, shape_px=0).images(TrainPhotos(ramp, one.person, one.names), wanted))
    mirrored = [decode_pixels(image.png)[0, 0, 0] > 80 for image in turned[::2]]
    assert 8 < sum(mirrored) < 32


# texture.


@pytest.mark.parametrize("exponent", [0.8, 1.2])
def test_the_amplitude_of_a_texture_falls_as_stated(exponent: float) -> None:
    side = 64
    power = np.mean(
        [np.abs(np.fft.fft2(texture(side, exponent, np.random.default_rng(n)))) ** 2 for n in range(30)], axis=0
    )
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    band = (frequency > 2 / side) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]) / 2, 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)
    one = texture(side, exponent, np.random.default_rng(0))
    assert abs(one.mean()) < 1e-5 and one.std() == pytest.approx(1, abs=1e-5)


def test_images_of_a_texture_are_more_alike_than_textures(tmp_path: Path) -> None:
    images = made(control("texture"), tmp_path)
    flat = np.stack([decode_pixels(image.png).ravel().astype(float) for image in images])
    number = np.asarray([image.number for image in images])
    correlation = np.corrcoef(flat)
    same = (number[:, None] == number) & ~np.eye(len(number), dtype=bool)
    assert correlation[same].mean() > 0.5 > np.abs(correlation[number[:, None] != number]).mean() + 0.1


# shuffled, duplicates.


def test_shuffled_moves_most_images_to_another_class_and_changes_none(tmp_path: Path) -> None:
    images = made(control("shuffled"), tmp_path)
    stored = manifest.read(tmp_path).to_pylist()
    assert [image.png for image in images] == [row["image"]["bytes"] for row in stored]
    before = np.repeat(np.arange(len(SIZES)), SIZES)
    assert np.mean([image.number for image in images] != before) > 0.5
    assert [list(image.parents) for image in images] == [row["parents"] for row in stored]


def test_duplicates_are_the_photos(tmp_path: Path) -> None:
    images, source = made(control("duplicates"), tmp_path), photos()
    shown: dict[int, set[str]] = {}
    for image in images:
        rows = np.flatnonzero((source.pixels == decode_pixels(image.png)).all(axis=(1, 2, 3)))
        assert len(rows) == 1 and image.parents == (NAMES[source.person[rows[0]]],)
        shown.setdefault(image.number, set()).update(image.parents)
    assert all(len(names) == 1 for names in shown.values()) and set().union(*shown.values()) == set(NAMES)
    seven = [image.png for image in images if image.number == 1]
    assert Counter(Counter(seven).values()) == {2: 3, 1: 1}, "of four photos none comes again before all have come"


def test_png_bytes_are_pictures(tmp_path: Path) -> None:
    assert all(Image.open(io.BytesIO(i.png)).format == "PNG" for kind in KINDS for i in made(control(kind), tmp_path))


def test_who_was_made_elsewhere_has_no_mixture(tmp_path: Path) -> None:
    def unknown(number: int) -> tuple[np.ndarray, np.ndarray]:
        raise UserError("made elsewhere", fix="another control")

    with pytest.raises(UserError, match="made elsewhere"):
        list(control("pixel_mix").images(photos(), NewPeople(SIZES, tmp_path, unknown)))
