"""Every member of the family of detectors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facegan.data.detectors import DETECTORS


@pytest.mark.parametrize("kind", sorted(DETECTORS.load()))
def test_every_detector_is_a_family_member(kind: str) -> None:
    options = {"path": "no/such.onnx"} if kind == "yunet" else {}
    detector = DETECTORS.get(kind).model_validate({"kind": kind, **options})
    template = np.array(detector.template)
    assert template.shape[1] == 2 and (template > 0).all() and (template < 112).all()
    assert detector.note() and "such" not in json.dumps(detector.identifying())
    assert DETECTORS.get(kind).__doc__
