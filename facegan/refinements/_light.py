"""How light falls on a face, as four numbers that need no labels and have a gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def light(img: torch.Tensor) -> torch.Tensor:
    """(N, 4) of grey images (N, H, W) in 0..255, from their inner three quarters: brightness, its standard deviation,
    how much brighter the right half is than the left, and the lower than the upper. In grey levels.
    """
    height, width = img.shape[1:]
    inner = img[:, height // 8 : height - height // 8, width // 8 : width - width // 8]
    middle_y, middle_x = inner.shape[1] // 2, inner.shape[2] // 2
    across = inner[:, :, middle_x:].mean(dim=(1, 2)) - inner[:, :, :middle_x].mean(dim=(1, 2))
    down = inner[:, middle_y:].mean(dim=(1, 2)) - inner[:, :middle_y].mean(dim=(1, 2))
    return torch.stack([inner.mean(dim=(1, 2)), inner.flatten(1).std(dim=1), across, down], dim=1)


def grey(img: torch.Tensor, side: int) -> torch.Tensor:
    """NCHW float32 in -1..1 -> grey (N, side, side) float32 in 0..255, by area: contrast depends on the size."""
    weights = torch.tensor(LUMA if img.shape[1] == 3 else (1.0,), device=img.device)
    drawn = F.conv2d((img + 1) * 127.5, weights[None, :, None, None])
    return (drawn if drawn.shape[2:] == (side, side) else F.interpolate(drawn, (side, side), mode="area"))[:, 0]
