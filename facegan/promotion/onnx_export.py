"""A recognizer as ONNX: one input `image` (N, C, S, S) float32 in -1..1, one output `embedding` (N, d) of unit length.

Its embeddings are compared with PyTorch's on real faces, in batches of several sizes, before the file is written. By
torch's TorchScript exporter: it needs the package onnx alone, and takes a second where the newer one takes 10 to 30.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.files import write_atomic
from facegan.training.tensors import to_input

OPSET = 18
TOLERANCE = 1e-4
BATCHES = (1, 2, 5)
NEEDED = ("onnx", "onnxruntime")
FIX = "pip install 'facegan[onnx]' and promote again"


class UnitLength(nn.Module):
    """A network whose embeddings are of unit length; `mirror` adds that of the mirror image first."""

    def __init__(self, net: nn.Module, mirror: bool) -> None:
        super().__init__()
        self.net, self.mirror = net, mirror

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        embedding = F.normalize(self.net(image).float())
        if self.mirror:
            embedding = F.normalize(embedding + F.normalize(self.net(image.flip(-1)).float()))
        return embedding


def write(path: Path, net: nn.Module, mirror: bool, faces: np.ndarray) -> dict[str, Any]:
    """Write the network to `path`; return how it was checked: {opset, largest_difference, faces, batches}.

    net: on the CPU, in eval mode. faces: real ones, (N, H, W, C) uint8, N >= 1. Where it cannot be written, or its
    embeddings differ from PyTorch's by more than TOLERANCE, no file is left and the result is {missing: why}.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return {"missing": f"{' and '.join(missing)} not installed: {FIX}"}
    try:
        data = onnx_bytes(UnitLength(net, mirror).eval(), faces)
        agreement = check(data, net, mirror, faces)
    except Exception as error:  # exporter, checker and runtime have no common base
        return {"missing": f"the network cannot be exported: {str(error).splitlines()[0] if str(error) else error!r}"}
    if not agreement["largest_difference"] <= TOLERANCE:  # NaN too
        return {"missing": f"its embeddings differ from PyTorch's by {agreement['largest_difference']:.2g}"}
    write_atomic(path, data)
    return agreement


def onnx_bytes(unit: nn.Module, faces: np.ndarray) -> bytes:
    """The bytes of an ONNX file for any batch size, which has passed onnx's checker."""
    import onnx

    axes = {"image": {0: "batch"}, "embedding": {0: "batch"}}
    example = to_input(np.repeat(faces[:1], 2, axis=0)).contiguous()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            unit, (example,), path, opset_version=OPSET, dynamo=False,
            input_names=["image"], output_names=["embedding"], dynamic_axes=axes,
        )  # fmt: skip
        data = path.read_bytes()
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    if model.opset_import[0].version != OPSET:
        raise ValueError(f"opset {model.opset_import[0].version} was written where {OPSET} was asked for")
    return data


@torch.no_grad()
def check(data: bytes, net: nn.Module, mirror: bool, faces: np.ndarray) -> dict[str, Any]:
    """How far onnxruntime's embeddings lie from PyTorch's: the largest absolute difference, over BATCHES."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    unit, differences = UnitLength(net, mirror).eval(), []
    for size in (*BATCHES, len(faces)):
        image = to_input(faces[np.arange(size) % len(faces)]).contiguous()
        (embeddings,) = session.run(["embedding"], {"image": image.numpy()})
        differences.append(np.abs(embeddings - unit(image).numpy()).max())
    return {
        "opset": OPSET,
        "largest_difference": float(np.max(differences)),  # NaN where there is one, unlike max()
        "faces": len(faces),
        "batches": [*BATCHES, len(faces)],
    }
