"""Features of the classical recognizer, beside slow ones written pixel by pixel."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from drawn import draw_face
from facegan.recognition.fitted.methods import features
from facegan.recognition.fitted.methods.features import FEATURES, UNIFORM, grey, hog, lbp, patterns, pixels


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    faces = [cv2.resize(draw_face(person, 0), (64, 64), interpolation=cv2.INTER_AREA) for person in range(3)]
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64))
    return np.concatenate([np.stack(faces), noise]).astype(np.float32)


def test_a_pattern_by_hand() -> None:
    plane = np.zeros((1, 64, 64), np.float32)
    plane[0, 9:12, 9:12] = [[50, 50, 90], [10, 50, 70], [10, 10, 50]]
    # Neighbours 0, 2, 4, 6 lie on whole pixels: right 70, up 50, left 10, down 10, against the centre's 50.
    assert patterns(plane, 1)[0, 10, 10] & 0b01010101 == 0b00000101
    # Neighbour 1 lies at (0.7071, 0.7071) to the upper right: between 90, 70, 50 and the centre, above it.
    assert patterns(plane, 1)[0, 10, 10] & 0b10 == 0b10
    assert (patterns(np.full((1, 64, 64), 37, np.float32), 1) == 255).all(), "nothing is darker on a flat patch"


def test_patterns_as_pixel_by_pixel(planes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for radius in (1, 2):
        codes = patterns(planes, radius)
        for _ in range(300):
            n, row, column = rng.integers(len(planes)), *rng.integers(0, 64, 2)
            expected = 0
            for bit in range(8):
                angle = 2 * math.pi * bit / 8
                y, x = row - radius * math.sin(angle), column + radius * math.cos(angle)
                expected |= (_bilinear(planes[n], y, x) >= planes[n, row, column] - 1e-3) << bit
            assert codes[n, row, column] == expected


def _bilinear(plane: np.ndarray, y: float, x: float) -> float:
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for row, of_row in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, of_column in ((left, 1 - (x - left)), (left + 1, x - left)):
            total += of_row * of_column * float(plane[min(max(row, 0), 63), min(max(column, 0), 63)])
    return total


def test_there_are_fifty_eight_uniform_patterns_and_one_bin_for_the_rest() -> None:
    for code in range(256):
        bits = [code >> k & 1 for k in range(8)]
        changes = sum(bits[k] != bits[(k + 1) % 8] for k in range(8))
        assert (UNIFORM[code] == 58) == (changes > 2)
    assert sorted(np.unique(UNIFORM)) == list(range(59)) and np.bincount(UNIFORM)[58] == 256 - 58


def test_lbp_counts_the_pixels_of_each_cell(planes: np.ndarray) -> None:
    counts = lbp(planes).reshape(len(planes), 2, 8, 8, 59) ** 2
    np.testing.assert_allclose(counts.sum(axis=-1), 64, rtol=1e-5)
    cell = UNIFORM[patterns(planes, 2)[4, 16:24, 40:48]]
    np.testing.assert_allclose(counts[4, 1, 2, 5], np.bincount(cell.ravel(), minlength=59), atol=1e-4)


def test_hog_as_pixel_by_pixel(planes: np.ndarray) -> None:
    plane = np.sqrt(planes[0].astype(float))
    cells = np.zeros((8, 8, 9))
    for row in range(64):
        for column in range(64):
            down = plane[row + 1, column] - plane[row - 1, column] if 0 < row < 63 else 0.0
            right = plane[row, column + 1] - plane[row, column - 1] if 0 < column < 63 else 0.0
            place = math.degrees(math.atan2(down, right)) % 180 / 20 - 0.5
            lower = math.floor(place)
            for bin_, share in ((lower, 1 - (place - lower)), (lower + 1, place - lower)):
                cells[row // 8, column // 8, bin_ % 9] += share * math.hypot(down, right)
    expected = []
    for row in range(7):
        for column in range(7):
            block = np.concatenate([cells[row + r, column + c] for r in (0, 1) for c in (0, 1)])
            block = np.minimum(block / math.sqrt(block @ block + 1e-10), 0.2)
            expected.append(block / math.sqrt(block @ block + 1e-10))
    np.testing.assert_allclose(hog(planes[:1])[0], np.concatenate(expected), atol=1e-4)


def test_a_ramp_has_one_orientation() -> None:
    ramp = np.tile((np.arange(64, dtype=np.float32)) ** 2, (1, 64, 1))  # its square root rises by one a pixel
    block = hog(ramp)[0].reshape(49, 4, 9)[24]
    assert (block[:, [0, 8]] > 0.3).all(), "the angle 0 lies between the first and the last bin, and is shared"
    np.testing.assert_allclose(np.delete(block, [0, 8], axis=1), 0, atol=1e-6)


def test_pixels_have_mean_zero_and_deviation_one(planes: np.ndarray) -> None:
    rows = pixels(planes)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(rows.std(axis=1), 1, rtol=1e-4)
    assert not pixels(np.full((1, 64, 64), 9, np.float32)).any()


def test_light_changes_none_of_them_much(planes: np.ndarray) -> None:
    np.testing.assert_allclose(pixels(planes), pixels(0.5 * planes), atol=1e-3)
    np.testing.assert_allclose(hog(planes), hog(0.5 * planes), atol=1e-3)
    assert np.abs(lbp(planes) - lbp(0.5 * planes)).mean() < 0.02


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_an_image_has_the_same_features_in_any_batch(name: str, planes: np.ndarray) -> None:
    alone = np.concatenate([FEATURES[name](planes[n : n + 1]) for n in range(len(planes))])
    np.testing.assert_array_equal(FEATURES[name](planes), alone)
    assert alone.dtype == np.float32 and np.isfinite(alone).all()


def test_colour_is_turned_to_grey_and_other_sides_are_resized() -> None:
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = color @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey(color) - expected).max() <= 0.51  # rounded to whole levels
    one = rng.integers(0, 256, (2, 64, 64, 1), dtype=np.uint8)
    np.testing.assert_array_equal(grey(one), one[..., 0])
    large = np.repeat(np.repeat(one, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(grey(large), one[..., 0])
    assert grey(rng.integers(0, 256, (1, 32, 32, 1), dtype=np.uint8)).shape == (1, features.SIDE_PX, features.SIDE_PX)
