"""dlib's detector: what it needs, shrunk photos, and real faces."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from drawn import SHARED
from facegan.core.errors import UserError
from facegan.data.detectors import DETECTORS
from facegan.data.detectors.dlib import shrink, to_photo_px
from facegan.data.options import Align
from facegan.data.preparation.alignment import (
    Aligner,
)
from turned_faces import TEMPLATE

HAS_MODELS = importlib.util.find_spec("face_recognition_models") is not None
HAS_DLIB = HAS_MODELS and importlib.util.find_spec("dlib") is not None


@pytest.mark.skipif(HAS_MODELS, reason="dlib's models are installed")
def test_without_dlib_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r"facegan\[align\]"):
        DETECTORS.get("dlib")().fingerprint()


def test_shrinking_keeps_places() -> None:
    photo = np.zeros((300, 900, 3), np.uint8)
    photo[100:104, 600:604] = 255
    shrunk, factor = shrink(photo, 225)
    assert shrunk.shape == (75, 225, 3) and factor == 4
    v, u = np.argwhere(shrunk[:, :, 0] == shrunk.max())[0]
    assert np.allclose(to_photo_px(np.array([[float(u), float(v)]]), factor), [[601.5, 101.5]])
    assert shrink(photo, 900)[0] is photo


CELEBRITIES = SHARED / "celeb17_raw.zip"


@pytest.mark.skipif(not (HAS_DLIB and CELEBRITIES.is_file()), reason="needs dlib and the shared photos")
def test_dlib_finds_and_aligns_real_faces() -> None:
    import io
    import zipfile

    from facegan.data.detectors.dlib import Dlib

    aligner = Aligner(Align(detector=Dlib(), min_face_px=0))
    with zipfile.ZipFile(CELEBRITIES) as archive:
        photos = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpg")][::17]
    for data in photos:
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        points = np.array(aligner(photo, None, 112).landmarks).reshape(5, 2)
        assert np.abs(points[:2] - TEMPLATE[:2]).max() < 5 and np.isnan(points[3:]).all()
        turned = aligner(photo.rotate(10, Image.Resampling.BICUBIC), None, 112)
        turned_points = np.array(turned.landmarks).reshape(5, 2)
        assert np.abs(turned_points[:2] - TEMPLATE[:2]).max() < 5  # level again
    assert not aligner._detect(np.zeros((200, 200, 3), np.uint8), None)
