"""The morphable model: it gives photos back, moves features instead of fading them, and is read from its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter

from drawn import Lab, draw_face, tiny
from facegan.core.errors import UserError
from facegan.generation.gans.morphable import Morphable
from facegan.generation.gans.networks.morphable import MOST_GAIN, MorphableGenerator
from facegan.generation.gans.networks.registration import GRID, dense, inverse, warp
from facegan.generation.gans.networks.saved import load_generator

PEOPLE, SHOTS, SIDE = 4, 3, 32


def solved(img: torch.Tensor, label: torch.Tensor, **options: Any) -> MorphableGenerator:
    torch.manual_seed(0)
    G = Morphable.model_validate(options).build_generator(int(label.max()) + 1, *img.shape[1:3])
    G.start(img, label)
    return G


@pytest.fixture(scope="module")
def photos() -> tuple[torch.Tensor, torch.Tensor]:
    faces = [draw_face(person, shot, SIDE, SIDE) for person in range(PEOPLE) for shot in range(SHOTS)]
    label = torch.arange(PEOPLE).repeat_interleave(SHOTS)
    return torch.from_numpy(np.stack(faces)).float().div(127.5).sub(1)[:, None], label


@pytest.fixture(scope="module")
def G(photos: tuple[torch.Tensor, torch.Tensor]) -> MorphableGenerator:
    return solved(*photos, light_dim=5)


def unit(count: int, *places: int) -> torch.Tensor:
    """The codes of photos in shape and texture."""
    z = torch.zeros(len(places), 3, count)
    z[torch.arange(len(places)), :2, list(places)] = 1
    return z.flatten(1)


def test_unit_codes_give_the_photos_back(G: MorphableGenerator, photos: tuple[torch.Tensor, torch.Tensor]) -> None:
    img, label = photos
    images = G(G.codes()[label], unit(len(img), *range(len(img))))
    error = (images - img)[..., 2:-2, 2:-2].abs()
    assert float(error.mean()) < 0.08  # warped out and home again: a little softer
    others = (images[:, None] - img)[..., 2:-2, 2:-2].abs().mean(dim=(2, 3, 4))
    assert (others.argmin(dim=1) == torch.arange(len(img))).all()


def test_sharpened_photos_are_as_detailed_as_photos(photos: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The mean square of each band, against bands from scipy; and an image has the same bits in any batch."""
    label = photos[1]
    img = torch.from_numpy(gaussian_filter(photos[0].numpy(), (0, 0, 0.6, 0.6)))  # drawn lines are harder than photos

    def strength(images: torch.Tensor) -> np.ndarray:
        bands, above = [], images.detach().numpy().astype(np.float64)
        for sigma in (0.5, 1.0, 2.0):  # px of this side
            below = gaussian_filter(above, (0, 0, sigma, sigma), mode="nearest", truncate=3.0)
            bands.append(np.square(above - below).mean())
            above = below
        return np.asarray(bands)

    plain, sharp = (solved(img, label, light_dim=5, sharpen=sharpen) for sharpen in (False, True))
    codes = plain.codes()[label], unit(len(img), *range(len(img)))
    before, after = (strength(G(*codes)) / strength(img) for G in (plain, sharp))
    assert before[0] < 0.6 and 1.3 < sharp.gains[0] < MOST_GAIN
    assert after[0] == pytest.approx(1, abs=0.15) and np.abs(after - 1).max() < np.abs(before - 1).max() / 2
    assert "gains" not in plain.state_dict() and sharp.state_dict()["gains"].shape == (3,)
    alone = torch.cat([sharp.leading(*codes, count)[-1:] for count in range(1, len(img) + 1)])
    assert torch.equal(sharp(*codes), alone)


def test_the_first_of_a_batch_have_the_bits_of_the_whole(G: MorphableGenerator) -> None:
    rng = torch.Generator().manual_seed(0)
    w, z = (torch.randn(24, size, generator=rng) * 0.3 for size in (G.code_dim, G.z_dim))
    mean_texture, texture, mean_controls, controls, light = G._parts()
    shape, own, borrowed = z.chunk(3, dim=1)
    flat = w @ mean_texture + own @ texture + (borrowed @ light) @ G.light
    field = dense((w @ mean_controls + shape @ controls).view(-1, 2, GRID, GRID), SIDE)
    whole = warp(flat.view(-1, 1, SIDE, SIDE).clamp(-1, 1), inverse(field))
    assert torch.equal(G(w, z), whole)
    for count in (1, 5, 23):
        assert torch.equal(G.leading(w, z, count), whole[:count])


def test_a_photo_is_found_among_its_persons(G: MorphableGenerator, photos: tuple[torch.Tensor, torch.Tensor]) -> None:
    img, label = photos
    w = G.codes()[label]
    noise = 0.05 * torch.randn(img.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(G.encode(img + noise, w), unit(len(img), *range(len(img))))
    stranger = G.encode(img, w.roll(SHOTS, dims=0))  # whatever the face, a photo of the person who is asked for
    assert torch.equal(label[stranger[:, : len(img)].argmax(dim=1)], label.roll(SHOTS))


def blob(x: float, value: float, side: int = 48) -> torch.Tensor:
    down, across = np.mgrid[0:side, 0:side]
    shape = np.exp(-((across - x) ** 2 + (down - side / 2) ** 2) / (2 * 3**2))
    return torch.from_numpy(value * shape).float()[None]


def profile(G: MorphableGenerator, z: torch.Tensor, person: int = 0) -> np.ndarray:
    return np.asarray(G(G.codes()[[person]], z)[0, 0, G.img_shape[-1] // 2])


def test_a_feature_moves_and_does_not_fade() -> None:
    """A faint blob at 20 and a strong one at 28 make one at 24, of the strength between and as narrow."""
    G = Morphable().build_generator(1, 1, 48)
    controls = torch.zeros(2, 2, GRID, GRID)
    controls[0, 0], controls[1, 0] = -4 / 24, 4 / 24  # four pixels to the left, and to the right
    texture = torch.stack([blob(24, 0.6), blob(24, 0.9)]).add(1).mul(127.5).round().to(torch.uint8)
    state = {"texture": texture, "controls": controls, "light": torch.zeros(0, 48**2)}
    G.load_state_dict({**state, "person": torch.tensor([0, 0])})
    z = unit(2, 0, 1)
    for code, x, strength in ((z[:1], 20, 0.6), (z[1:], 28, 0.9), (z.mean(dim=0, keepdim=True), 24, 0.75)):
        np.testing.assert_allclose(profile(G, code), blob(x, strength)[0, 24].numpy(), atol=0.02)


def test_registered_features_move() -> None:
    """Found by registration, not given: midway the mean of the two photos has a valley, the mixture its peak."""
    places = [20, 28, 22, 26, 23, 25, 21, 27]
    img, label = torch.stack([blob(x, 0.8) for x in places]), torch.arange(4).repeat_interleave(2)
    G = solved(img, label)
    for place, x in enumerate(places):
        assert abs(int(profile(G, unit(8, place), int(label[place])).argmax()) - x) <= 1
    mixed, mean = profile(G, unit(8, 0, 1).mean(dim=0, keepdim=True)), img[:2, 0, 24].mean(dim=0)
    assert abs(int(mixed.argmax()) - 24) <= 1
    assert mixed.max() > 1.5 * float(mean[24])


def test_equation_by_hand() -> None:
    """Two people of two photos, no displacement: the sum of means and deviations that the docstring gives."""
    rng = torch.Generator().manual_seed(0)
    G = Morphable(light_dim=1).build_generator(2, 1, 4)
    texture = torch.randint(90, 166, (4, 1, 4, 4), generator=rng, dtype=torch.uint8)
    light = torch.nn.functional.normalize(torch.randn(1, 16, generator=rng))
    state = {"texture": texture, "controls": torch.zeros(4, 2, GRID, GRID), "light": light}
    G.load_state_dict({**state, "person": torch.tensor([0, 1, 1, 0])})
    t = (texture.double() / 127.5 - 1).flatten(1)
    mean = torch.stack([(t[0] + t[3]) / 2, (t[1] + t[2]) / 2])
    w, z = torch.rand(3, 2, generator=rng), torch.rand(3, 12, generator=rng)
    for row, img in zip(range(3), G(w, z), strict=True):
        expected = w[row].double() @ mean
        for i, p in enumerate([0, 1, 1, 0]):
            deviation = t[i] - mean[p]
            onto = (deviation @ light[0].double()) * light[0].double()
            expected = expected + z[row, 4 + i] * deviation + z[row, 8 + i] * onto
        torch.testing.assert_close(img.flatten().double(), expected.clamp(-1, 1), rtol=0, atol=1e-5)


def test_codes_are_blended_and_varied(G: MorphableGenerator) -> None:
    count, rng = PEOPLE * SHOTS, np.random.default_rng(0)
    one, two = unit(count, 0, 5).numpy()
    np.testing.assert_allclose(G.blend(np.stack([one, two])[:, None], np.asarray([0.6, 0.8])), [0.6 * one + 0.8 * two])
    varied = G.vary(one[None], two[None], 0.4, 0.0, rng)[0].reshape(3, count)
    expected = np.zeros((3, count))
    expected[:2, 0], expected[0, 5], expected[2, 5] = 1, 0.4, G.borrowed_light
    np.testing.assert_allclose(varied, expected, rtol=1e-6)
    noisy = G.vary(np.tile(one, (4000, 1)), np.tile(two, (4000, 1)), 0.4, 0.25, rng).reshape(4000, 3, count)
    assert noisy[:, 0, 5].std() == pytest.approx(0.4 * 0.25, rel=0.05)
    np.testing.assert_allclose(
        noisy[:, 2, 5] / G.borrowed_light, noisy[:, 0, 5] / 0.4, rtol=1e-5
    )  # one amount for both
    assert (noisy[:, :2, 0] == 1).all() and (noisy[:, 1, 5] == 0).all()


def test_light_is_orthonormal_and_as_wide_as_asked(G: MorphableGenerator) -> None:
    torch.testing.assert_close(G.light @ G.light.T, torch.eye(5), rtol=0, atol=1e-4)
    other = unit(PEOPLE * SHOTS, 1).numpy()
    dark = Morphable(light=0.0).build_generator(PEOPLE, 1, SIDE)
    dark.load_state_dict(G.state_dict())
    assert not dark.vary(0 * other, other, 0.0, 0.0, np.random.default_rng(0)).any()


def test_it_is_read_from_its_file(faces: Path, shared: Lab) -> None:
    """The number of photos is known from the file alone."""
    recipe = tiny(faces).model_dump(mode="json")
    recipe["train_gan"]["gan"] = {"kind": "morphable", "light_dim": 3}
    folder = shared.stage(type(tiny(faces)).model_validate(recipe), "train_gan").path
    G, _ = load_generator(folder)
    assert isinstance(G, MorphableGenerator)
    stored = load_file(folder / "generator.safetensors")
    shapes = {"texture": (20, 1, 32, 32), "controls": (20, 2, GRID, GRID), "person": (20,), "light": (3, 1024)}
    assert {name: tuple(value.shape) for name, value in stored.items()} == shapes
    assert stored["texture"].dtype == torch.uint8
    assert all(torch.equal(value, stored[name]) for name, value in G.state_dict().items())
    assert G.z_dim == 60 and G.codes().shape == (4, 4) and not list(G.parameters())
    w, z = G.codes()[G.person[[3, 9]]], unit(20, 3, 9)
    again = Morphable().build_generator(4, 1, 32)
    again.load_state_dict(G.state_dict())
    assert torch.equal(again(w, z), G(w, z))
    again.load_state_dict(G.state_dict())  # over what was derived before
    assert torch.equal(again(w, z), G(w, z))


def test_a_generator_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    """Such as one of part_based from before there were gains."""
    spec = {"gan": {"kind": "part_based"}, "identities": ["a", "b"], "channels": 1, "size_px": 16}
    (tmp_path / "generator.json").write_text(json.dumps(spec))
    soft = Morphable().build_generator(2, 1, 16)
    soft.start(torch.rand(4, 1, 16, 16) * 2 - 1, torch.tensor([0, 0, 1, 1]))
    save_file(soft.state_dict(), tmp_path / "generator.safetensors")
    with pytest.raises(UserError, match="of another version of facegan") as error:
        load_generator(tmp_path)
    assert "run the recipe again" in error.value.fix
