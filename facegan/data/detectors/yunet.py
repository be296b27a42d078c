"""YuNet, a small network that OpenCV runs, from an ONNX file of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.data.detectors import DETECTORS, Detect, DetectorConfig, Face
from facegan.data.detectors.dlib import shrink, to_photo_px

if TYPE_CHECKING:
    import numpy as np

FIX = "give face_detection_yunet_2023mar.onnx of OpenCV's model zoo (MIT licence) as align.detector.path"


@DETECTORS.register
class Yunet(DetectorConfig):
    """OpenCV's FaceDetectorYN with a YuNet file that you give: all five points, small and turned faces too.

    Source: Wu, Peng and Yu 2023 (YuNet: A Tiny Millisecond-level Face Detector).
    """

    paths: ClassVar[tuple[str, ...]] = ("path",)
    kind: Literal["yunet"] = "yunet"
    path: str = Field(min_length=1, description="the ONNX file")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="refuse a file with another checksum")
    max_side_px: int = Field(640, ge=64, le=10_000, description="larger photos are searched at this size")
    min_score: float = Field(0.7, gt=0, lt=1, description="faces below this score of the detector do not count")

    def identifying(self) -> dict[str, Any]:
        """See DetectorConfig; the file counts by its content, not by what it was expected to be."""
        return self.model_dump(mode="json", exclude={"path", "sha256"})

    def fingerprint(self) -> dict[str, str]:
        """See DetectorConfig."""
        path = user_path(self.path)
        if not path.is_file():
            raise UserError(f"the detector's file '{path}' is not there", fix=FIX)
        digest = file_sha256(path)
        if self.sha256 not in (None, digest):
            raise UserError(f"'{path}' has sha256 {digest}, expected {self.sha256}", fix=FIX)
        return {"detector": digest}

    def note(self) -> str:
        """See DetectorConfig."""
        return "YuNet (eyes, tip of the nose, corners of the mouth), run by OpenCV"

    def load(self) -> Detect:
        """See DetectorConfig."""
        import cv2
        import numpy as np

        self.fingerprint()  # raises unless the file is there and has the expected checksum
        path = str(user_path(self.path))
        try:
            net = cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold=self.min_score)
        except cv2.error as error:
            raise UserError(f"'{path}' is no network that OpenCV can run: {error.err}", fix=FIX) from error

        def detect(photo: np.ndarray, landmarks: Sequence[float] | None = None) -> list[Face]:
            shrunk_photo, factor = shrink(photo, self.max_side_px)
            net.setInputSize((shrunk_photo.shape[1], shrunk_photo.shape[0]))
            try:
                _, rows = net.detect(np.ascontiguousarray(shrunk_photo[:, :, ::-1]))  # OpenCV's channels are BGR
            except cv2.error as error:
                raise UserError(f"'{path}' is no face detector like YuNet: {error.err}", fix=FIX) from error
            faces = []
            for row in rows if rows is not None else ():
                left, top, width, height = (float(value) for value in row[:4])
                edges = to_photo_px(np.array([[left, top], [left + width, top + height]]), factor).ravel()
                five = to_photo_px(row[4:14].reshape(5, 2).astype(np.float64), factor)
                faces.append(Face((float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])), five, five))
            return sorted(faces, key=lambda face: face.box)

        return detect
