"""Alignment: the similarity transform, the crop, and whose face it is."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facegan.data.detectors import Face
from facegan.data.detectors.landmarks import Landmarks
from facegan.data.images import BadFace
from facegan.data.options import Align
from facegan.data.preparation.alignment import (
    NO_FACE,
    Aligner,
    choose_face,
    scale_of,
    template_at,
    transform_points,
    umeyama,
    warp,
)
from turned_faces import TEMPLATE, photo_of, similarity


def test_a_transform_worked_by_hand() -> None:
    """A unit square turned by 90 degrees, doubled and moved to (10, 20): (x, y) -> (10 - 2 y, 20 + 2 x)."""
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    matrix = umeyama(square, [(10, 20), (10, 22), (8, 22), (8, 20)])
    assert np.allclose(matrix, [[0, -2, 10], [2, 0, 20]]) and scale_of(matrix) == pytest.approx(2)


def test_the_example_of_umeyamas_paper() -> None:
    """Umeyama 1991, section IV: these three points need a mirror image, which a similarity must not be."""
    matrix = umeyama([(0, 0), (1, 0), (0, 2)], [(0, 0), (-1, 0), (0, 2)])
    turn, scale = matrix[:, :2] / scale_of(matrix), scale_of(matrix)
    assert np.allclose(turn, [[0.832, 0.555], [-0.555, 0.832]], atol=5e-4)
    assert scale == pytest.approx(0.721, abs=5e-4) and np.allclose(matrix[:, 2], [-0.800, 0.400], atol=5e-4)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("points", [2, 3, 5])
def test_any_similarity_is_recovered(seed: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    truth = similarity(rng.uniform(0.1, 5), rng.uniform(-180, 180), tuple(rng.uniform(-500, 500, 2)))
    source = rng.uniform(-50, 50, (points, 2))
    assert np.allclose(umeyama(source, transform_points(truth, source)), truth, atol=1e-9)


def test_noise_is_fitted_in_least_squares() -> None:
    """No small change of the four numbers of a similarity brings the points nearer."""
    rng = np.random.default_rng(0)
    source, target = TEMPLATE, transform_points(similarity(2, 30, (5, 6)), TEMPLATE) + rng.normal(0, 3, (5, 2))
    best = umeyama(source, target)

    def error(matrix: NDArray[np.float64]) -> float:
        return float(((transform_points(matrix, source) - target) ** 2).sum())

    (a, b), (c, d) = best[:, 0], best[:, 2]
    for step in 1e-3 * np.vstack([np.eye(4), -np.eye(4)]):
        p, q, x, y = np.array([a, b, c, d]) + step
        assert error(np.array([[p, -q, x], [q, p, y]])) > error(best)


def test_points_that_determine_nothing_are_refused() -> None:
    for points in ([(3, 3)], [(3, 3), (3, 3)]):
        with pytest.raises(ValueError, match="two different points"):
            umeyama(points, [(0, 0)] * len(points))


@pytest.mark.parametrize("size_px", [48, 112])
@pytest.mark.parametrize("scale", [0.8, 3.0, 9.3])
def test_landmarks_land_on_the_template(size_px: int, scale: float) -> None:
    """Five dots drawn in a photo at turned, moved and scaled places of the template are at the template in the crop."""
    to_photo = similarity(scale, 25, (60 * scale, 30 * scale))
    points = transform_points(to_photo, TEMPLATE)
    side = math.ceil(points.max() + 40 * scale)
    y, x = np.mgrid[:side, :side]
    aligner = Aligner(Align(detector=Landmarks(), min_face_px=0))
    for point, expected in zip(points, template_at(TEMPLATE, size_px), strict=True):
        dot = 250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (4 * scale) ** 2))
        aligned = aligner(Image.fromarray(dot.astype(np.uint8)), tuple(points.ravel()), size_px)
        crop = np.asarray(aligned.image, np.float64)
        v, u = np.mgrid[:size_px, :size_px]
        centre = np.array([(crop * u).sum(), (crop * v).sum()]) / crop.sum()
        assert np.abs(centre - expected).max() < 0.15
        assert np.allclose(aligned.landmarks, template_at(TEMPLATE, size_px).ravel(), atol=1e-6)
        assert aligned.face_px == pytest.approx(112 * scale)


def test_large_photos_are_averaged_and_not_sampled() -> None:
    """Stripes one pixel wide, seen at an eighth of their size, are grey; sampling would show some of them."""
    stripes = np.zeros((800, 800), np.uint8)
    stripes[:, ::2] = 200
    crop = np.asarray(warp(Image.fromarray(stripes), similarity(0.12, 7, (4, 3)), 64))[20:44, 20:44]
    assert np.abs(crop.astype(float) - 100).max() <= 2


def face(centre: tuple[float, float], scale: float) -> tuple[Face, NDArray[np.float64]]:
    points = (TEMPLATE - 56) * scale + centre
    left, top, right, bottom = *points.min(0), *points.max(0)
    return Face((left, top, right, bottom), points, points), umeyama(points, TEMPLATE)


def test_policies() -> None:
    large, central = face((100, 100), 2.0), face((310, 190), 1.0)
    assert choose_face([central, large], "largest", (600, 400)) is large
    assert choose_face([large, central], "centre", (600, 400)) is central
    twins = [face((100, 100), 1.0), face((100, 100), 1.0)]
    assert (
        choose_face(twins, "largest", (600, 400)) is twins[0] and choose_face(twins, "centre", (600, 400)) is twins[0]
    )


def test_limits_and_reasons() -> None:
    photo, points = photo_of(0, 0, 1.5, 10)
    with pytest.raises(BadFace, match=NO_FACE):
        Aligner(Align(detector=Landmarks()))(photo, None, 64)
    with pytest.raises(BadFace, match=NO_FACE):  # all five in one place, or unknown
        Aligner(Align(detector=Landmarks()))(photo, (7.0,) * 10, 64)
    with pytest.raises(BadFace, match=r"face too small: under min_face_px \(169\)"):
        Aligner(Align(detector=Landmarks(), min_face_px=169))(photo, points, 64)
    aligned = Aligner(Align(detector=Landmarks(), min_face_px=167))(photo, points, 64)
    assert aligned.face_px == pytest.approx(168) and aligned.image.size == (64, 64)
    blurred = Image.fromarray(cv2.GaussianBlur(np.asarray(photo), (0, 0), 12))
    with pytest.raises(BadFace, match="face too blurred"):
        Aligner(Align(detector=Landmarks(), min_sharpness=0.3))(blurred, points, 64)
    assert Aligner(Align(detector=Landmarks(), min_sharpness=0.3))(photo, points, 64).image.mode == "RGB"


def test_unknown_points_do_without(tmp_path: Path) -> None:
    photo, points = photo_of(0, 0, 1.5, 10)
    aligned = Aligner(Align(detector=Landmarks()))(photo, points, 64)
    aligned_by_three = Aligner(Align(detector=Landmarks()))(photo, (*points[:6], *[math.nan] * 4), 64)
    assert np.array_equal(np.asarray(aligned.image), np.asarray(aligned_by_three.image))
    assert np.isnan(aligned_by_three.landmarks[6:]).all() and np.allclose(
        aligned_by_three.landmarks[:6], aligned.landmarks[:6]
    )
