"""Drawn faces, turned and small in large photos, with their landmarks."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drawn import draw_face
from facegan.data.detectors import ARCFACE
from facegan.data.preparation.alignment import transform_points

TEMPLATE = np.array(ARCFACE)


def similarity(scale: float, degrees: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    angle = math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([turn, shift])


def photo_of(person: int, shot: int, scale: float, degrees: float) -> tuple[Image.Image, tuple[float, ...]]:
    """A drawn face, turned and small in a large photo, and where its landmarks are."""
    pixels = np.repeat(draw_face(person, shot, 112, 112)[:, :, None], 3, axis=2)
    matrix = similarity(scale, degrees, (90.0, 70.0))
    photo = cv2.warpAffine(pixels, matrix, (320, 300), borderValue=(40, 90, 60))
    return Image.fromarray(photo), tuple(transform_points(matrix, TEMPLATE).ravel())
