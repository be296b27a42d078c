"""What a network that nothing trains makes of images, computed once and kept on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facegan.core.errors import UserError
from facegan.core.files import evict, write_private
from facegan.training.tensors import to_input

if TYPE_CHECKING:
    from facegan.runtime.context import Context

FOLDER = "features"  # in the cache of a run
MOST_BYTES = 4_000_000_000  # kept; of more, what was used longest ago goes
DIGEST_BYTES = 32


class FrozenFeatures:
    """images (N, H, W, C) uint8 -> the output (N, d) float32 of a backbone, looked up in the cache of `context`.

    `made_of` is what the backbone was made of, in JSON's types.

    A file holds one batch: its features behind their sha256, under the sha256 of network, device and pixels. So arms
    that ask for the same batch share it, with the bits that it would have without a cache. A file whose bytes were
    changed is made again. What may be deleted at any time is no reason to stop: without a cache, or on a full disk,
    all is computed.
    """

    def __init__(self, backbone: nn.Module, made_of: Any, device: torch.device, context: Context) -> None:
        self._backbone, self._device, self._say = backbone.eval(), device, context.say
        self._folder: Path | None = None
        if context.cache is not None:
            self._folder = context.cache / FOLDER / network_digest(backbone, made_of, device)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """On the device of the network. Raises UserError where features are no numbers."""
        path = self._folder / f"{_digest(images)}.bin" if self._folder is not None else None
        values = _read(path, len(images)) if path is not None else None
        if values is None:
            output: torch.Tensor = self._backbone(to_input(images, self._device))
            if not output.isfinite().all():
                raise UserError("what this starts from gives features that are no numbers", fix="give other weights")
            values = np.ascontiguousarray(output.float().cpu().numpy())
            if path is not None:
                self._keep(path, values)
        return torch.from_numpy(values).to(self._device)

    def _keep(self, path: Path, values: NDArray[np.float32]) -> None:
        data = values.tobytes()
        # A name of this process alone: two seeds may write the same batch at the same moment.
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            write_private(temporary, hashlib.sha256(data).digest() + data)
            os.replace(temporary, path)
        except (UserError, OSError) as error:
            self._folder = None
            self._say(f"features of images are not kept for later runs: {error}")
            return
        evict(path.parent.parent.glob("*/*.bin"), MOST_BYTES, path)


def network_digest(backbone: nn.Module, made_of: Any, device: torch.device) -> str:
    """sha256 of what a backbone is made of and of its tensors, of the kind of device and torch's version."""
    told = hashlib.sha256(json.dumps([made_of, device.type, torch.__version__]).encode())
    for name, value in [*backbone.named_parameters(), *backbone.named_buffers()]:
        told.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        told.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return told.hexdigest()


def _digest(images: NDArray[np.uint8]) -> str:
    told = hashlib.sha256(f"{images.shape}".encode())
    told.update(np.ascontiguousarray(images).tobytes())
    return told.hexdigest()


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    """The features of `count` images, None where the file is missing or its bytes were changed."""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        values = memoryview(data)[DIGEST_BYTES:]
        if hashlib.sha256(values).digest() == data[:DIGEST_BYTES]:
            os.utime(path)  # `evict` takes others first
            return np.frombuffer(bytearray(values), np.float32).reshape(count, -1)
        path.unlink()
    return None
