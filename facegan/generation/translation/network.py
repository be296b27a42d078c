"""The networks between two domains, and their file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.generation.photo_networks.network import PhotoNetwork
from facegan.training.checkpoints import load_tensors, save_tensors

WEIGHTS, SPEC = "translator.safetensors", "translator.json"


class Translator(nn.Module):
    """Two networks: `into(d)` draws photos of the other domain as of domain d, 0 or 1."""

    def __init__(self, img_channels: int, size_px: int, *, channels: int) -> None:
        super().__init__()
        self.spec = {"channels": channels, "img_channels": img_channels, "size_px": size_px}
        self.nets = nn.ModuleList(PhotoNetwork(img_channels, size_px, channels=channels) for _ in range(2))

    def into(self, domain: int) -> PhotoNetwork:
        """The network that draws photos as of `domain`."""
        net = self.nets[domain]
        assert isinstance(net, PhotoNetwork)
        return net

    def forward(self, photos: list[torch.Tensor]) -> list[torch.Tensor]:
        """Photos of domain 0 and of domain 1, NCHW in -1..1 -> those of 1 as of domain 0, and those of 0 as of 1."""
        return [self.into(0)(photos[1]), self.into(1)(photos[0])]

    def save(self, folder: Path, names: tuple[str, str], licenses: list[str]) -> None:
        """Write WEIGHTS and SPEC; `names` are those of the domains."""
        save_tensors(folder / WEIGHTS, self.state_dict())
        spec = {**self.spec, "domains": list(names), "licenses": licenses}
        write_atomic(folder / SPEC, json.dumps(spec, indent=1).encode())


def load_translator(folder: Path) -> Translator:
    """The networks of a folder, on the CPU, in eval mode; raises UserError where there are none."""
    try:
        spec = json.loads((folder / SPEC).read_bytes())
    except OSError as error:
        raise UserError(f"no translator in '{folder}'", fix="run an arm whose set is cut or cyclegan") from error
    nets = Translator(spec["img_channels"], spec["size_px"], channels=spec["channels"])
    nets.load_state_dict(load_tensors(folder / WEIGHTS))
    return nets.eval().requires_grad_(False)
