"""Resizing of squares of a known side, as two products with a matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Resized(nn.Module):
    """(N, C, from_px, from_px) in `bounds` -> (N, C, to_px, to_px) in them: bicubic and antialiased, as F.interpolate.

    Unlike that it can be exported as ONNX, and its gradient has the same bits each time on a GPU too.
    """

    along: torch.Tensor

    def __init__(self, from_px: int, to_px: int, bounds: tuple[float, float] = (-1, 1)) -> None:
        super().__init__()
        self.bounds = bounds
        unit = torch.eye(from_px)[None, None]
        along = F.interpolate(unit, (to_px, from_px), mode="bicubic", antialias=True)[0, 0]
        self.register_buffer("along", along, persistent=False)  # (to_px, from_px): no weight

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        with torch.autocast(img.device.type, enabled=False):
            return (self.along @ img @ self.along.T).clamp(*self.bounds)
