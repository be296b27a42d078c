"""Atomic checkpoints: the newest sound one is gone on from, two are kept, nothing needs pickle."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from facegan.errors import UserError
from facegan.store import write_atomic

KEEP = 2


class Checkpoints:
    """The checkpoints in a folder, named by the number of images seen (`nimg`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, nimg: int, state: dict[str, Any]) -> None:
        """Write `state` (nested dicts of tensors and plain values); keep this one and the one before.

        The file is the sha256 (32 bytes) of what follows, then torch's own format. A full disk raises
        UserError and leaves the previous checkpoint as it was.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getbuffer()
        write_atomic(self._path(nimg), hashlib.sha256(data).digest() + data)
        for stale in self._all()[:-KEEP]:
            stale.unlink()

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint that is whole, as (nimg, state on the CPU); broken ones are deleted."""
        for path in reversed(self._all()):
            data = path.read_bytes()
            if len(data) > 32 and hashlib.sha256(data[32:]).digest() == data[:32]:
                state = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
                return int(path.stem.split("-")[1]), state
            path.unlink()
        return None

    def _path(self, nimg: int) -> Path:
        return self.folder / f"checkpoint-{nimg:012d}.pt"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: str = "") -> None:
    """Write safetensors with one metadata key (`facegan`): the order of several differs between processes."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(flat, {"facegan": metadata}))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors; raises UserError for a file that is none."""
    try:
        return load_file(path)
    except Exception as error:
        raise UserError(
            f"{path} is not a safetensors file: {error}", fix="give weights saved with safetensors"
        ) from error


def cut_curve(path: Path, nimg: int) -> None:
    """Drop the lines of a JSON-lines curve that lie after `nimg` images, and a torn last line."""
    import json

    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError):
            if json.loads(line)["nimg"] <= nimg:
                kept.append(line + "\n")
    write_atomic(path, "".join(kept).encode())
