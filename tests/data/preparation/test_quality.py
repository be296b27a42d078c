"""The quality of a face: sharpness, exposure and pose against closed forms and by hand."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from drawn import draw_face
from facegan.data.preparation.quality import exposure, measure, pose, sharpness

FACES = [draw_face(person, 0, 112, 112) for person in range(6)]


@pytest.mark.parametrize("face", FACES)
def test_blur_lowers_sharpness_step_by_step(face: np.ndarray) -> None:
    blurred = [sharpness(face)] + [sharpness(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (1, 2, 4, 8)]
    assert all(0 < low < high < 1 for high, low in itertools.pairwise(blurred))
    assert blurred[4] < 0.3 * blurred[0]


def test_sharpness_knows_neither_size_nor_light() -> None:
    for person in range(6):
        large = draw_face(person, 1, 224, 224)
        small = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
        assert sharpness(small) == pytest.approx(sharpness(large), rel=0.15)
        dim = (large.astype(float) * 0.5 + 20).round().astype(np.uint8)
        assert sharpness(dim) == pytest.approx(sharpness(large), rel=0.02)
        assert sharpness(np.repeat(large[:, :, None], 3, axis=2)) == pytest.approx(sharpness(large), rel=1e-3)
    assert sharpness(np.full((64, 64), 77, np.uint8)) == 0


def test_sharpness_of_a_wave_is_its_closed_form() -> None:
    """A wave of frequency w, blurred at s: Laplacian -w^2, Gaussian exp(-w^2 s^2 / 2), so r = (s w)^4 exp(-(s w)^2)."""
    side, period = 512, 64.0  # a whole number of periods in the inner three quarters
    x = np.arange(side)
    wave = np.tile(np.round(127.5 + 100 * np.sin(2 * np.pi * x / period)).astype(np.uint8), (side, 1))
    a = 2 * np.pi / period * side / 64
    ratio = a**4 * np.exp(-(a**2))
    assert sharpness(wave) == pytest.approx(ratio / (ratio + 0.05), rel=0.02)


def test_exposure_by_hand() -> None:
    half = np.full((64, 64), 120, np.uint8)
    assert exposure(half) == 1
    half[:, :32] = 255
    assert exposure(half) == pytest.approx(0.5)  # half is clipped; the mean, 187.5, is just within three quarters
    assert exposure(np.full((64, 64), 32, np.uint8)) == pytest.approx(32 / 255 / 0.25)
    assert exposure(np.zeros((64, 64), np.uint8)) == 0


def test_pose_by_hand() -> None:
    def nose_at(x: float, y: float = 20) -> list[float]:
        return [0, 0, 10, 0, x, y, 2, 30, 8, 30]

    assert pose(nose_at(5)) == 1 and pose(nose_at(7.5)) == pytest.approx(0.5) and pose(nose_at(10)) == 0
    assert pose(nose_at(14)) == 0 and pose(None) is None and pose([np.nan] * 10) is None and pose([3] * 10) is None
    turned = [0, 0, 0, 10, -20, 7.5, -30, 2, -30, 8]  # the head lies on its side
    assert pose(turned) == pytest.approx(0.5)
    assert pose([*nose_at(7.5)[:6], *[np.nan] * 4]) == pytest.approx(0.5)  # mouth not known


def test_score_is_the_geometric_mean_of_what_is_known() -> None:
    face, points = FACES[0], [30, 40, 80, 40, 60, 60, 40, 90, 70, 90]
    bare, with_pose = measure(face), measure(face, points)
    assert bare.pose is None and bare.score == pytest.approx((bare.sharpness * bare.exposure) ** 0.5)
    assert with_pose.pose == pytest.approx(0.8) and with_pose.score == pytest.approx((bare.score**2 * 0.8) ** (1 / 3))
    assert measure(np.zeros((32, 32, 3), np.uint8)).score == 0
