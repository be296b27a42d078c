"""Pixels to tensors and back."""

from __future__ import annotations

import numpy as np
import torch


def to_input(pixels: np.ndarray | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """NHWC uint8 array -> NCHW float32 in -1..1, channels last in memory, on `device`.

    Of a tensor (NCHW) that is float32 already the values stay.
    """
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    img = pixels.to(device).float()
    if pixels.dtype == torch.uint8:
        img = img.div_(127.5).sub_(1)
    return img.contiguous(memory_format=torch.channels_last)


def tensor_to_pixels(img: torch.Tensor) -> np.ndarray:
    """NCHW float in -1..1 -> NHWC uint8."""
    scaled = img.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
