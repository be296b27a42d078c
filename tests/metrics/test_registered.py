"""Photos laid on each other: what a leak may have gone through is undone, and another photo stays another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter, rotate

from drawn import draw_face
from facegan.metrics import planted
from facegan.metrics.leakage import grey
from facegan.metrics.registered import Changes, Comparison

PEOPLE, SHOTS = 5, 3
PERSON = np.repeat(np.arange(PEOPLE), SHOTS)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.stack([draw_face(person, shot, 64, 64) for person in range(PEOPLE) for shot in range(SHOTS)])[..., None]


@pytest.fixture(scope="module")
def bound(photos: np.ndarray) -> float:
    """The highest similarity of different photos of one person."""
    first, second = (np.asarray(side) for side in zip(*(
        (i, j) for i in range(len(PERSON)) for j in range(i) if PERSON[i] == PERSON[j]), strict=True))  # fmt: skip
    return float(Comparison(grey(photos)).between(grey(photos), first, second)[:, 0].max())


@pytest.mark.parametrize("kind", planted.KINDS)
def test_each_kind_of_leak_is_found_and_its_photo_named(photos: np.ndarray, bound: float, kind: str) -> None:
    leaks = planted.KINDS[kind](photos)
    assert leaks.shape == photos.shape and leaks.dtype == np.uint8
    similarity, index = Comparison(grey(photos)).nearest(grey(leaks))
    assert (similarity[:, 0] > bound).mean() >= 0.95 and (index[:, 0] == np.arange(len(photos))).mean() >= 0.95


def test_what_is_planted_is_what_its_name_says(photos: np.ndarray) -> None:
    """Against scipy: the last photo is changed most."""
    last = photos[-1, :, :, 0].astype(float)
    inside = slice(14, 50)
    turned = rotate(last, 10 if planted._signs(len(photos))[-1] > 0 else -10, reshape=False, mode="nearest", order=3)
    mine = planted.KINDS["turned 2 to 10 degrees"](photos)[-1, :, :, 0].astype(float)
    assert np.abs(mine - turned)[inside, inside].mean() < np.abs(mine - last)[inside, inside].mean() / 4
    size = 1 + 0.15 * planted._signs(len(photos))[-1]
    scaled = affine_transform(last, np.eye(2) / size, 31.5 * (1 - 1 / size), mode="nearest")
    mine = planted.KINDS["scaled to 15 %"](photos)[-1, :, :, 0].astype(float)
    assert np.abs(mine - scaled)[inside, inside].mean() < 2
    blurred = gaussian_filter(last, 1.5)
    assert np.abs(planted.KINDS["blurred to 1.5 px"](photos)[-1, :, :, 0] - blurred).max() <= 0.5
    toned = 255 * (last / 255) ** 1.4
    assert np.abs(planted.KINDS["gamma 0.7 to 1.4"](photos)[-1, :, :, 0] - toned).max() <= 0.51


def test_both_directions_agree_and_blocks_change_nothing(photos: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    leaks = grey(planted.KINDS["shifted to 6 px"](photos))
    forth = Comparison(grey(photos)).nearest(leaks)
    back = Comparison(grey(photos)).nearest(leaks, by_photo=True)
    assert back[1][:, 0].tolist() == forth[1][:, 0].tolist() == list(range(len(photos)))
    assert back[0][:, 0] == pytest.approx(forth[0][:, 0], abs=1e-3)
    monkeypatch.setattr("facegan.metrics.registered.BLOCK", 4)
    monkeypatch.setattr("facegan.metrics.registered.CHUNK", 7)
    monkeypatch.setattr("facegan.metrics.registration.AT_ONCE", 3000)
    pieces = Comparison(grey(photos)).nearest(leaks)
    assert pieces[0] == pytest.approx(forth[0], abs=1e-3) and np.array_equal(pieces[1], forth[1])


def test_what_the_generator_changes_is_no_difference(photos: np.ndarray) -> None:
    """A made-up generator that adds its own three patterns to a photo, in any mixture: the copy is found again."""
    rng = np.random.default_rng(0)
    patterns = gaussian_filter(rng.normal(size=(3, 64, 64)), (0, 1, 1)) * 60
    images = grey(photos)

    def drawn(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
        mixtures = np.random.default_rng(seed).normal(size=(len(rows), count, 3))
        return (images[rows][:, None] + np.einsum("rck,kyx->rcyx", mixtures, patterns)).clip(0, 255).astype(np.float32)

    every = np.arange(len(images))
    copies = drawn(every, 1, 1)[:, 0]
    similarity, index = Comparison(images, Changes(images, lambda rows: drawn(rows, 12, 2))).nearest(copies)
    blind = Comparison(images).nearest(copies)[0]
    assert (similarity[:, 1] > blind[:, 0]).mean() > 0.9 and np.median(similarity[:, 1] - blind[:, 0]) > 0.1
    assert (index[:, 1] == every).mean() > 0.9


def test_an_image_has_the_highest_of_few_photos(photos: np.ndarray) -> None:
    similarity, index = Comparison(grey(photos[1:2])).nearest(grey(photos[:2]))
    assert index.tolist() == [[0, 0], [0, 0]] and similarity[1] == pytest.approx([1, 1], abs=1e-3)
    assert similarity[0, 0] < similarity[1, 0]
