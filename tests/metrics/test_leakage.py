"""The leakage gate's statistics: leaks are told from other photos of a person, people from strangers."""

from __future__ import annotations

import numpy as np
import pytest

from drawn import draw_face
from facegan.metrics import leakage
from facegan.metrics.leakage import (
    LEAKS,
    closest,
    grey,
    likeness,
    match_level,
    midway,
    nearest_other,
    planted,
    similarity,
    summary,
)
from facegan.metrics.verification import unit_rows

PEOPLE, SHOTS = 6, 5


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    faces = [draw_face(person, shot, 64, 64) for person in range(PEOPLE) for shot in range(SHOTS)]
    return np.stack(faces)[..., None]


def brute(image: np.ndarray, photo: np.ndarray) -> float:
    """s by the definition, one pair at a time, with loops."""
    best, cut = -1.0, leakage.BORDER_PX
    inside = slice(cut, 64 - cut, 2)
    image_band = leakage.band(image[None])[0][inside, inside]
    for blur in leakage.BLURS:
        for turned in (photo, photo[:, ::-1]):
            field = leakage.band(turned[None], blur)[0]
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    moved = np.roll(field, (-dy, -dx), (0, 1))[inside, inside]
                    best = max(best, float(np.corrcoef(image_band.ravel(), moved.ravel())[0, 1]))
    return best


def test_similarity_is_the_definition(photos: np.ndarray) -> None:
    few = grey(photos[[0, 1, 7, 13]])
    expected = np.array([[brute(a, b) for b in few] for a in few[:2]])
    score, index = closest(few[:2], few[2:])
    assert score == pytest.approx(expected[:, 2:].max(axis=1), abs=1e-5)
    assert index.tolist() == expected[:, 2:].argmax(axis=1).tolist()
    assert similarity(few[:2], few[2:]) == pytest.approx([expected[0, 2], expected[1, 3]], abs=1e-5)


def test_blocks_change_nothing(photos: np.ndarray) -> None:
    images = grey(photos)
    whole, pieces = closest(images[:7], images[7:]), closest(images[:7], images[7:], block=3)
    assert whole[0] == pytest.approx(pieces[0], abs=1e-6) and whole[1].tolist() == pieces[1].tolist()


def test_every_kind_of_leak_is_found_and_its_photo_named(photos: np.ndarray) -> None:
    images, person = grey(photos), np.repeat(np.arange(PEOPLE), SHOTS)
    leaks = {kind: similarity(grey(pixels), images[indices]) for kind, (pixels, indices) in planted(photos).items()}
    bound = midway(nearest_other(images, person), leaks, 0.05)
    assert bound.power == dict.fromkeys(LEAKS, 1.0) and bound.false_alarm <= 0.05
    for kind, (pixels, _) in planted(photos).items():
        score, index = closest(grey(pixels), images)
        assert (score >= bound.value).all(), kind
        assert index.tolist() == list(range(len(photos))), kind


def test_an_only_photo_has_no_other_and_a_repeated_one_has(photos: np.ndarray) -> None:
    images = grey(photos[[0, 0, 9]])
    assert nearest_other(images, np.array([0, 0, 1])) == pytest.approx([1, 1, -1], abs=1e-5)
    with pytest.raises(ValueError, match="no train person has two photos"):
        midway(np.full(3, -1.0), {"exact": np.ones(3)}, 0.01)


def test_threshold_is_midway_or_above_the_real_quantile() -> None:
    real, leaks = np.linspace(0, 0.8, 101), {"easy": np.ones(50), "hard": np.linspace(0.95, 1, 101)}
    bound = midway(real, leaks, 0.01)
    assert bound.real == pytest.approx(0.792) and bound.leaks == pytest.approx(0.9505)
    assert np.arctanh(bound.value) == pytest.approx((np.arctanh(0.792) + np.arctanh(0.9505)) / 2)
    mixed = midway(real, {"hard": np.linspace(0.5, 1, 101)}, 0.05)  # they overlap: few false alarms, less power
    assert mixed.value == pytest.approx(0.76, abs=1e-6) and mixed.false_alarm <= 0.05
    assert mixed.power["hard"] == pytest.approx(0.48, abs=0.01)


def test_likeness_is_the_mean_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    rows, others = (unit_rows(rng.normal(size=(n, 5)).astype(np.float32)) for n in (9, 7))
    person, other = np.array([2, 0, 1, 1, 0, 2, 2, 0, 0]), np.array([0, 1, 1, 0, 0, 1, 1])
    expected = [[(rows[person == a] @ others[other == b].T).mean() for b in range(2)] for a in range(3)]
    assert likeness(rows, person, others, other) == pytest.approx(np.array(expected), abs=1e-6)


def test_level_is_what_people_reach_with_themselves() -> None:
    synthetic = np.linspace(0.8, 0.9, 21)  # 0.805 is reached by all but one of them
    assert match_level(synthetic, np.array([0.6, 0.7, 0.8]), 0.5) == pytest.approx(0.7)
    assert match_level(synthetic, np.array([0.9, 0.9]), 0.5) == pytest.approx(0.805)
    assert match_level(synthetic, np.array([0.6, 0.7]), 0.75) == 0.75
    alike = np.array([[0.71, 0.1], [0.2, 0.69]], np.float32)
    assert summary(alike, 0.7) == {"people": 2, "matched": 1, "rate": 0.5}
    assert summary(np.empty((0, 2), np.float32), 0.7) == {"people": 0, "matched": 0, "rate": 0.0}


@pytest.mark.parametrize("seed", range(5))
def test_fresh_photos_of_a_train_person_match_and_strangers_do_not(seed: int) -> None:
    """A judge that has learned the train photos: they and images made of them lie closer than photos do elsewhere."""
    rng = np.random.default_rng(seed)

    def photos(centre: np.ndarray, spread: float, each: int = 6) -> tuple[np.ndarray, np.ndarray]:
        rows = np.repeat(centre, each, axis=0) + spread * rng.normal(size=(len(centre) * each, centre.shape[1]))
        return unit_rows(rows.astype(np.float32)), np.repeat(np.arange(len(centre)), each)

    train, val, new = (unit_rows(rng.normal(size=(n, 24)).astype(np.float32)) * 24**0.5 for n in (20, 6, 20))
    seen, made, unseen = photos(train, 0.2), photos(train, 0.2), photos(val, 0.6)
    fresh, strangers = photos(train, 0.5), photos(new, 0.6)
    first, second = ((unseen[0][side::2], unseen[1][side::2]) for side in (0, 1))
    own = np.diag(likeness(*made, *seen))
    level = match_level(own, np.diag(likeness(*first, *second)), 0.4)
    assert level < np.quantile(own, 0.05) and np.diag(likeness(*fresh, *seen)).min() >= level
    assert likeness(*strangers, *seen).max() < level
