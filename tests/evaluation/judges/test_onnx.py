"""The judge onnx: the input of the network, and files that cannot be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facegan.core.errors import UserError
from facegan.evaluation.judges.onnx import Onnx
from facegan.metrics.verification import unit_rows
from facegan.recognition.embedder import batched
from onnx_networks import flatten_network


def test_onnx_networks_are_given_what_they_want(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(flatten_network(16))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    judge = Onnx(path=str(tmp_path / "net.onnx"), size_px=16, mean=100, scale=50, bgr=True)
    assert set(judge.fingerprint()) == {"judge"}
    expected = ((pixels[..., ::-1].astype(np.float32) - 100) / 50).transpose(0, 3, 1, 2).reshape(5, -1)
    assert batched(judge.load(None, "cpu"), 2)(pixels) == pytest.approx(unit_rows(expected), abs=1e-6)
    grey = judge.load(None, "cpu")(pixels[..., :1])
    assert grey.shape == (5, 768) and grey[:, :256] == pytest.approx(grey[:, 512:])
    with pytest.raises(UserError, match=r"does not take \(5, 3, 32, 32\) float32"):
        judge.model_copy(update={"size_px": 32}).load(None, "cpu")(pixels)
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="no network that onnxruntime can run"):
        judge.load(None, "cpu")
