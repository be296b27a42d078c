"""Any face embedder in ONNX form, run by onnxruntime."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.types import Embed
from facegan.evaluation.judges import JUDGES, JudgeConfig

if TYPE_CHECKING:
    import numpy as np


@JUDGES.register
class Onnx(JudgeConfig):
    """An ONNX file of your own: (N, 3, size_px, size_px) float32 in, (N, d) out (`pip install facegan[onnx]`).

    The network is given (RGB - mean) / scale, by default -1..1 as most face embedders want it.
    """

    kind: Literal["onnx"] = "onnx"
    path: str = Field(min_length=1, description="the .onnx file (hashed by content)")
    size_px: int = Field(112, ge=16, le=1024, description="side of its input")
    mean: float = Field(127.5, description="the input is (x - mean) / scale, x in 0 .. 255")
    scale: float = Field(127.5, gt=0, description="see mean")
    bgr: bool = Field(False, description="its input is blue, green, red")

    def identifying(self) -> dict[str, Any]:
        """See JudgeConfig."""
        return self.model_dump(mode="json", exclude={"path"})

    def fingerprint(self) -> dict[str, str]:
        """See JudgeConfig."""
        path = user_path(self.path)
        if not path.is_file():
            raise UserError(f"the judge's network '{path}' is not there", fix="set audit.judge.path to an .onnx file")
        return {"judge": file_sha256(path)}

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec("onnxruntime") is None:
            raise UserError(
                "the judge 'onnx' needs the package onnxruntime, which is not installed",
                fix="pip install 'facegan[onnx]' (a run can do without: audit.judge.kind=recognizer)",
            )

    def try_out(self) -> None:
        """See Options: whether the network can be run on faces."""
        import numpy as np

        self.load(None, "cpu")(np.zeros((2, self.size_px, self.size_px, 1), np.uint8))

    def note(self) -> str:
        """See JudgeConfig."""
        return "an ONNX network of your own, whose training is not known here"

    def load(self, recognizer: Path | None, device: str) -> Embed:
        """See JudgeConfig; raises UserError for a file that onnxruntime cannot run on such input."""
        import torch
        import torch.nn.functional as F

        from facegan.metrics.verification import unit_rows
        from facegan.recognition.starts.networks.onnx_session import OnnxSession

        fix = "set the side of its input: --size-px, in a recipe audit.judge.size_px"
        session = OnnxSession(str(user_path(self.path)), self.path, fix)

        def embed(pixels: np.ndarray) -> np.ndarray:
            img = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
            img = F.interpolate(img, (self.size_px, self.size_px), mode="bicubic", antialias=True).clamp(0, 255)
            img = ((img.flip(1) if self.bgr else img) - self.mean) / self.scale
            return unit_rows(session(img.numpy()))

        return embed
