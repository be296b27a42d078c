"""A network from a photo to a photo."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.generation.gans.networks.refiner import UNet
from facegan.training.tensors import tensor_to_pixels, to_input


class PhotoNetwork(nn.Module):
    """img + tanh(U-net of it), within -1..1: nothing is changed at first.

    img_channels, size_px: of the photos that it is trained on. Raises UserError for a side that is no multiple of 8.
    """

    def __init__(self, img_channels: int, size_px: int, *, channels: int) -> None:
        super().__init__()
        if size_px % 8:
            raise UserError(
                f"photos of {size_px} px cannot be halved three times, as the network does",
                fix="set prepare.size_px to a multiple of 16",
            )
        self.img_channels, self.size_px, self.channels = img_channels, size_px, channels
        self.change = UNet(img_channels, channels)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """NCHW float32 in -1..1 of the same shape."""
        changed: torch.Tensor = (img + torch.tanh(self.change(img).float())).clamp(-1, 1)
        return changed

    @torch.no_grad()
    def changed(self, pixels: np.ndarray) -> np.ndarray:
        """A photo (side, side, C) uint8, changed: alone in its batch, since others have other bits."""
        img = to_input(pixels[None], next(self.parameters()).device)
        return tensor_to_pixels(self(img))[0]
