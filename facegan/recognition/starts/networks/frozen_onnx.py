"""An ONNX file as a module: no gradient passes through it, and its bytes are stored with the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from facegan.recognition.starts.networks.onnx_session import OnnxSession

FIX = "set the side of its input: train_recognizer.start.size_px"


class FrozenOnnx(nn.Module):
    """(N, 3, S, S) float32 -> (N, num_features) float32 on the same device, computed on the CPU."""

    file: torch.Tensor

    def __init__(self, num_features: int, n_bytes: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.register_buffer("file", torch.zeros(n_bytes, dtype=torch.uint8))
        self.session: OnnxSession | None = None  # made when it is first asked, of the bytes that are then there

    def fill(self, data: bytes) -> None:
        """Put the bytes of a file in."""
        self.file = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        self.session = None

    def opened(self) -> OnnxSession:
        """The network, ready to run; raises UserError as OnnxSession."""
        if self.session is None:
            self.session = OnnxSession(self.file.cpu().numpy().tobytes(), "the ONNX network", FIX)
        return self.session

    @torch.no_grad()
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        rows = self.opened()(img.detach().float().cpu().numpy())
        return torch.from_numpy(rows).to(img.device)

    def __getstate__(self) -> dict[str, Any]:
        """Copies open a session of their own."""
        return {**self.__dict__, "session": None}
