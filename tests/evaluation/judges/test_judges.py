"""The family of judges: each describes its training, and hides where its files are."""

from __future__ import annotations

import json

import pytest

from facegan.evaluation.judges import JUDGES


@pytest.mark.parametrize("kind", sorted(JUDGES.load()))
def test_every_judge_says_what_it_has_learned_from(kind: str) -> None:
    judge = JUDGES.get(kind).model_validate({"kind": kind, **({"path": "x.onnx"} if kind == "onnx" else {})})
    assert len(judge.note()) > 20 and "x.onnx" not in json.dumps(judge.identifying())
