"""Any face embedder in ONNX form, frozen."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from facegan.core.errors import UserError
from facegan.recognition.starts import STARTS, Asked, Begun, FromFile

if TYPE_CHECKING:
    from torch import nn

    from facegan.recognition.starts.networks.frozen_onnx import FrozenOnnx


@STARTS.register
class Onnx(FromFile):
    """An ONNX embedder of your own, frozen, under an embedding layer that begins as the identity (`tune:
    frozen`, or `whitened`).

    Its file is stored with the recognizer (`pip install facegan[onnx]`).
    """

    words: ClassVar[str] = "an ONNX network of one's own, frozen"
    frozen_only: ClassVar[bool] = True
    kind: Literal["onnx"] = "onnx"
    path: str | None = Field(None, description="the .onnx file (hashed by content)")
    size_px: int = Field(112, ge=16, le=1024, description="side of its input")
    mean: float = Field(127.5, description="the input is (x - mean) / scale, x in 0 .. 255")
    scale: float = Field(127.5, gt=0, description="see mean")
    bgr: bool = Field(False, description="its input is blue, green, red")
    n_bytes: int = Field(0, ge=0, description="size of the file; not to be given, a stored recognizer says it")

    def identifying(self) -> dict[str, Any]:
        """See StartConfig."""
        n_bytes = self.n_bytes if self.path is None else self.file.stat().st_size
        return {**super().identifying(), "n_bytes": n_bytes}

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec("onnxruntime") is None:
            raise UserError(
                "the start 'onnx' needs the package onnxruntime, which is not installed",
                fix="pip install 'facegan[onnx]'",
            )

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        from facegan.recognition.starts.networks.frozen_onnx import FrozenOnnx
        from facegan.recognition.starts.networks.own_input import OwnInput

        network = FrozenOnnx(asked.embedding_dim, self.n_bytes)
        return OwnInput(network, asked.size_px, self.size_px, self.mean, self.scale, self.bgr)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig; raises UserError where it gives another embedding than is asked for."""
        import torch

        network = cast("FrozenOnnx", backbone.get_submodule("net"))
        network.fill(self.file.read_bytes())
        dim = backbone(torch.zeros(2, asked.channels, asked.size_px, asked.size_px)).shape[1]
        if dim != asked.embedding_dim:
            raise UserError(
                f"the embeddings of {self.file.name} have {dim} numbers, but train_recognizer.embedding_dim is "
                f"{asked.embedding_dim}",
                fix=f"set train_recognizer.embedding_dim={dim}",
            )
        if not asked.fitted:
            torch.nn.init.eye_(net.get_parameter("project.weight"))
        outputs = network.opened().outputs
        first = f"; of its {len(outputs)} outputs the first, '{outputs[0]}', is taken" if len(outputs) > 1 else ""
        return Begun(f"{self.file.name}: {dim} numbers for (N, 3, {self.size_px}, {self.size_px}){first}", whole=True)
