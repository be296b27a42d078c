"""From a photo to the standard crop: landmarks -> similarity transform -> warped square; and which face is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from facegan.data.detectors import Face
from facegan.data.images import BadFace
from facegan.data.options import Align
from facegan.data.preparation.quality import sharpness

TEMPLATE_PX = 112
NO_FACE = "no face found"
"""The reason in the quarantine of an image that counts as a failure to acquire."""


def umeyama(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The similarity transform (2, 3) that brings points (k, 2) nearest to others, in least squares.

    [x', y'] = M @ [x, y, 1]; rotation, one scale and shift, never a mirror image. Raises ValueError for fewer than two
    different points. Source: Umeyama 1991, IEEE PAMI 13(4), equations 34 to 43.
    """
    x, y = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_x, mean_y = x.mean(0), y.mean(0)
    spread = ((x - mean_x) ** 2).sum() / len(x)  # sigma_x^2, eq. 36
    if len(x) < 2 or spread < 1e-12:
        raise ValueError(f"a similarity needs two different points, got {x.tolist()}")
    covariance = (y - mean_y).T @ (x - mean_x) / len(x)  # eq. 38
    u, d, vt = np.linalg.svd(covariance)
    s = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])  # eq. 39 and 43
    rotation = u @ np.diag(s) @ vt  # eq. 40
    scale = (d * s).sum() / spread  # eq. 42
    return np.column_stack([scale * rotation, mean_y - scale * rotation @ mean_x])  # eq. 41


def template_at(template: ArrayLike, size_px: int) -> NDArray[np.float64]:
    """The template of the 112 px crop (k, 2) for a crop of size_px; pixels' centres lie at whole numbers."""
    return (np.asarray(template, np.float64) + 0.5) * size_px / TEMPLATE_PX - 0.5


def transform_points(matrix: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Points (k, 2) under a transform (2, 3)."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def scale_of(matrix: NDArray[np.float64]) -> float:
    """How many px of the crop one px of the photo becomes."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def warp(photo: Image.Image, matrix: NDArray[np.float64], size_px: int) -> Image.Image:
    """The crop (size_px, size_px) of a grey or RGB photo under photo -> crop; what lies outside the photo is black.

    A photo that the crop shows at less than half its size is averaged over whole blocks of pixels first, so that
    nothing flickers in the crop that is finer than its pixels.
    """
    block = max(1, int(1 / scale_of(matrix)))
    if block > 1:
        photo = photo.reduce(block)
        linear = matrix[:, :2] * block  # x = block * x' + (block - 1) / 2
        matrix = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ np.full(2, (block - 1) / 2)])
    pixels = cv2.warpAffine(np.asarray(photo), matrix, (size_px, size_px), flags=cv2.INTER_LINEAR)
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class Aligned:
    """An aligned crop: `landmarks` ten numbers in its own px (NaN where not known), `face_px` its side in the photo."""

    image: Image.Image
    landmarks: list[float]
    face_px: float


class Aligner:
    """Aligns photos by the options of `prepare.align`; `several` counts photos with several faces of which one was
    taken. Raises UserError where the detector is not installed."""

    def __init__(self, options: Align) -> None:
        self.options = options
        self.several = 0
        self._detect = options.detector.load()
        self._template = np.asarray(options.detector.template)

    def __call__(self, photo: Image.Image, landmarks: Sequence[float] | None, size_px: int) -> Aligned:
        """The aligned crop of a grey or RGB photo; raises BadFace with the reason where there is none."""
        faces = self._detect(np.asarray(photo.convert("RGB")), landmarks)
        candidates = [(face, matrix) for face in faces if (matrix := self._matrix(face, size_px)) is not None]
        if not candidates:
            raise BadFace(NO_FACE)
        large = [
            (face, matrix) for face, matrix in candidates if size_px / scale_of(matrix) >= self.options.min_face_px
        ]
        if not large:
            raise BadFace(f"face too small: under min_face_px ({self.options.min_face_px})")
        if len(large) > 1 and self.options.faces == "skip":
            raise BadFace("several faces")
        face, matrix = choose_face(large, self.options.faces, photo.size)
        crop = warp(photo, matrix, size_px)
        if self.options.min_sharpness and sharpness(np.asarray(crop)) < self.options.min_sharpness:
            raise BadFace(f"face too blurred: under min_sharpness ({self.options.min_sharpness:g})")
        self.several += len(large) > 1
        return Aligned(crop, transform_points(matrix, face.five).ravel().tolist(), size_px / scale_of(matrix))

    def _matrix(self, face: Face, size_px: int) -> NDArray[np.float64] | None:
        """photo -> crop by the points that are known; None where they determine nothing."""
        finite = np.isfinite(face.points).all(1)
        try:
            return umeyama(face.points[finite], template_at(self._template[finite], size_px))
        except ValueError:
            return None


Candidate = tuple[Face, NDArray[np.float64]]


def choose_face(faces: list[Candidate], policy: str, size: tuple[int, int]) -> Candidate:
    """One of several faces with their transforms: the `largest`, or (`centre`) that nearest to the photo's centre.

    size: width and height of the photo. The first of equals.
    """
    if policy == "centre":
        middle = (np.array(size) - 1) / 2

        def distance(item: Candidate) -> float:
            left, top, right, bottom = item[0].box
            return float(np.hypot(*(np.array([left + right, top + bottom]) / 2 - middle)))

        return min(faces, key=distance)
    return min(faces, key=lambda item: scale_of(item[1]))
