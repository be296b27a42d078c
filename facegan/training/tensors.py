"""Pixels to tensors and back."""

from __future__ import annotations

import numpy as np
import torch


def to_input(pixels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """NHWC uint8 -> NCHW float32 in -1..1, channels last in memory."""
    img = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)
    return img.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def to_tensor(pixels: np.ndarray, mirrored: np.ndarray | None = None) -> torch.Tensor:
    """NHWC uint8 -> NCHW float32 in -1..1; images whose `mirrored` (N,) bool is set are flipped left to right."""
    img = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    if mirrored is not None:
        img = torch.where(torch.from_numpy(mirrored)[:, None, None, None], img.flip(3), img)
    return img.contiguous()


def to_pixels(img: torch.Tensor) -> np.ndarray:
    """NCHW float in -1..1 -> NHWC uint8."""
    scaled = img.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
