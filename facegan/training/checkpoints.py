"""Atomic checkpoints: training resumes from the newest intact one, two are kept, nothing needs pickle."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from facegan.core.errors import UserError
from facegan.core.files import write_atomic

KEEP = 2
OF_TORCH_SAVE = (b"PK", b"\x80\x02")  # how its files begin: a zip of a pickle, or a pickle
SHARDS = "shards"  # the key of a state under which the names of its shards stand, if it has any


class Checkpoints:
    """The checkpoints in a folder, named by the number of images seen (`nimg`).

    A state that is divided among several processes lies in shards beside it: all are written before the checkpoint
    that names them, and are deleted with it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, nimg: int, state: dict[str, Any]) -> None:
        """Write `state` (nested dicts of tensors and plain values); keep this one and the one before.

        The file is the sha256 (32 bytes) of what follows, then torch's own format. A full disk raises
        UserError and leaves the previous checkpoint as it was.
        """
        _write(self._path(nimg), state)
        for stale in self._all()[:-KEEP]:
            self._remove(stale)

    def save_shard(self, nimg: int, name: str, state: dict[str, Any]) -> None:
        """Write one shard of the checkpoint at `nimg`, which is to name it under SHARDS; in the same form."""
        _write(self._shard(nimg, name), state)

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest intact checkpoint, its shards too, as (nimg, state on the CPU); broken ones are deleted."""
        for path in reversed(self._all()):
            nimg, state = _nimg(path), _read(path)
            if state is not None and all(_is_whole(self._shard(nimg, name)) for name in state.get(SHARDS, ())):
                return nimg, state
            self._remove(path)
        return None

    def load_shard(self, nimg: int, name: str) -> dict[str, Any]:
        """A shard of a checkpoint that `load_latest` found; raises UserError where it has been broken since."""
        if (state := _read(self._shard(nimg, name))) is None:
            raise UserError(f"{self._shard(nimg, name)} has changed since it was checked", fix="run the command again")
        return state

    def _remove(self, path: Path) -> None:
        path.unlink()  # first: shards alone are no checkpoint
        for shard in self.folder.glob(f"shard-{_nimg(path):012d}-*.pt"):
            shard.unlink()

    def _shard(self, nimg: int, name: str) -> Path:
        return self.folder / f"shard-{nimg:012d}-{name}.pt"

    def _path(self, nimg: int) -> Path:
        return self.folder / f"checkpoint-{nimg:012d}.pt"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))


def _nimg(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _write(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    write_atomic(path, hashlib.sha256(data).digest() + data)


def _read(path: Path) -> dict[str, Any] | None:
    """What `_write` wrote, on the CPU; None where it is broken or missing."""
    data = path.read_bytes() if path.exists() else b""
    if len(data) <= 32 or hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
    return state


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    with open(path, "rb") as file:
        digest = file.read(32)
        return hashlib.file_digest(file, "sha256").digest() == digest


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: str = "") -> None:
    """Write safetensors with one metadata key (`facegan`): the order of several would differ between processes."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(flat, {"facegan": metadata}))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors; raises UserError for a file that is none or cannot be read."""
    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"the weights '{path}' cannot be read: {error}", fix="give a safetensors file") from error
    except Exception as error:
        if path.read_bytes()[:2] in OF_TORCH_SAVE:
            raise UserError(
                f"{path} is not a safetensors file: torch.save wrote it, which is a pickle, and none is read",
                fix=f"convert it: safetensors.torch.save_file(torch.load('{path.name}', weights_only=True), 'NAME."
                "safetensors'); of a dict with more in it, its 'state_dict'",
            ) from error
        raise UserError(
            f"{path} is not a safetensors file: {error}", fix="give weights saved with safetensors"
        ) from error
