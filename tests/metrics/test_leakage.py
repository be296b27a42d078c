"""The similarity by which near-copies are left out when images are made."""

from __future__ import annotations

import numpy as np
import pytest

from drawn import draw_face
from facegan.metrics import leakage
from facegan.metrics.leakage import closest, grey, nearest_other, similarity, summary

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


def test_an_only_photo_has_no_other_and_a_repeated_one_has(photos: np.ndarray) -> None:
    images = grey(photos[[0, 0, 9]])
    assert nearest_other(images, np.array([0, 0, 1])) == pytest.approx([1, 1, -1], abs=1e-5)


def test_a_match_is_counted_once_a_person() -> None:
    alike = np.array([[0.71, 0.7], [0.2, 0.69]], np.float32)
    assert summary(alike, 0.7) == {"people": 2, "matched": 1, "rate": 0.5}
    assert summary(np.empty((0, 2), np.float32), 0.7) == {"people": 0, "matched": 0, "rate": 0.0}
