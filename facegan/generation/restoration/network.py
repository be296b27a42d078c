"""The network that restores photos, and its file."""

from __future__ import annotations

import json
from pathlib import Path

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.generation.photo_networks.network import PhotoNetwork
from facegan.training.checkpoints import load_tensors, save_tensors

WEIGHTS, SPEC = "restorer.safetensors", "restorer.json"


class Restorer(PhotoNetwork):
    """From a poor photo to a restored one."""

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
