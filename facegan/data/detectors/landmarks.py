"""No search at all: the landmarks that the source already has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from facegan.data.detectors import DETECTORS, Detect, DetectorConfig, Face

if TYPE_CHECKING:
    import numpy as np


@DETECTORS.register
class Landmarks(DetectorConfig):
    """The five points that the source states for a photo (tables, WebDataset, a manifest); one face in each photo.

    A photo without them counts as one in which no face was found. Points that are NaN are passed over.
    """

    kind: Literal["landmarks"] = "landmarks"

    def note(self) -> str:
        """See DetectorConfig."""
        return "the landmarks that the source states"

    def load(self) -> Detect:
        """See DetectorConfig."""
        import numpy as np

        def detect(photo: np.ndarray, landmarks: Sequence[float] | None = None) -> list[Face]:
            if landmarks is None:
                return []
            five = np.array(landmarks, np.float64).reshape(5, 2)
            finite = five[np.isfinite(five).all(1)]
            if len(finite) < 2:
                return []
            (left, top), (right, bottom) = finite.min(0).tolist(), finite.max(0).tolist()
            return [Face((left, top, right, bottom), five, five)]

        return detect
