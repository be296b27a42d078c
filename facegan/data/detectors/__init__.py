"""Who finds faces in photos that are not aligned. One file adds a member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np

DETECTORS = Registry("detector", __name__)

ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where left eye, right eye, tip of the nose, left and right corner of the mouth (as seen in the picture) lie in the
standard crop of 112 x 112 px, centres of pixels at whole numbers. Source: `arcface_dst` of insightface
(python-package/insightface/utils/face_align.py), the template of Deng et al. 2019 (ArcFace, section 3.1)."""


@dataclass(frozen=True)
class Face:
    """A face in a photo, in px of the photo, centres of pixels at whole numbers.

    box: (left, top, right, bottom). points: float64 (k, 2), those that the detector's `template` places; NaN where one
    is not known. five: float64 (5, 2), in the order of ARCFACE, NaN where the detector finds no such point.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray
    five: np.ndarray


Detect = Callable[["np.ndarray", Sequence[float] | None], list[Face]]
"""(H, W, 3) uint8 RGB and the landmarks that the source has (ten numbers, or None) -> the faces, in a fixed order."""


class DetectorConfig(Options):
    """The base of detectors: a literal `kind`, `note` and `load`. Options in `paths` say only where files lie."""

    paths: ClassVar[tuple[str, ...]] = ()
    template: ClassVar[Sequence[tuple[float, float]]] = ARCFACE
    kind: str

    def identifying(self) -> dict[str, Any]:
        """The options that decide what it finds, without where files lie."""
        return self.model_dump(mode="json", exclude=set(self.paths))

    def fingerprint(self) -> dict[str, str]:
        """{name: sha256} of the files that it reads; raises UserError where one is missing."""
        return {}

    def note(self) -> str:
        """A phrase for the report: what finds the faces."""
        raise TypeError(f"{type(self).__name__} must define note()")

    def load(self) -> Detect:
        """The detector, ready to use; raises UserError where it is not installed or its file is no network."""
        raise TypeError(f"{type(self).__name__} must define load()")
