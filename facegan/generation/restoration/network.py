"""The network that restores photos, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.generation.gans.networks.refiner import UNet
from facegan.training.checkpoints import load_tensors, save_tensors
from facegan.training.tensors import tensor_to_pixels, to_input

WEIGHTS, SPEC = "restorer.safetensors", "restorer.json"


class Restorer(nn.Module):
    """img + tanh(U-net of it), within -1..1: nothing is changed at first.

    img_channels, size_px: of the photos that it was trained on; a side is a multiple of 8.
    """

    def __init__(self, img_channels: int, size_px: int, *, channels: int) -> None:
        super().__init__()
        self.img_channels, self.size_px, self.channels = img_channels, size_px, channels
        self.change = UNet(img_channels, channels)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """NCHW float32 in -1..1 of the same shape."""
        restored: torch.Tensor = (img + torch.tanh(self.change(img).float())).clamp(-1, 1)
        return restored

    @torch.no_grad()
    def restored(self, pixels: np.ndarray) -> np.ndarray:
        """A photo (side, side, C) uint8, restored: alone in its batch, since others have other bits."""
        img = to_input(pixels[None], next(self.parameters()).device)
        return tensor_to_pixels(self(img))[0]

    def save(self, folder: Path, licenses: list[str]) -> None:
        """Write WEIGHTS and SPEC."""
        save_tensors(folder / WEIGHTS, self.state_dict())
        spec = {"channels": self.channels, "img_channels": self.img_channels, "size_px": self.size_px}
        write_atomic(folder / SPEC, json.dumps({**spec, "licenses": licenses}, indent=1).encode())


def load_restorer(folder: Path) -> Restorer:
    """The network of a folder, on the CPU, in eval mode; raises UserError where there is none."""
    try:
        spec = json.loads((folder / SPEC).read_bytes())
    except OSError as error:
        raise UserError(
            f"no restorer in '{folder}'", fix="run a recipe with an arm whose set is {kind: restore}, up to derive"
        ) from error
    net = Restorer(spec["img_channels"], spec["size_px"], channels=spec["channels"])
    net.load_state_dict(load_tensors(folder / WEIGHTS))
    return net.eval().requires_grad_(False)
