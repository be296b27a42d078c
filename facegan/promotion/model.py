"""A promoted model used: photos to embeddings, prepared as the training images were. Imports torch only where the
ONNX file or onnxruntime is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.core.types import Embed
from facegan.data.images import BadImage, decode
from facegan.data.options import Align, Prepare
from facegan.data.preparation.alignment import Aligner
from facegan.data.preparation.photo import square
from facegan.recognition.promoted_embedder import torch_embedder
from facegan.recognition.saved_model import ONNX, WEIGHTS, read_spec, verified_file

BATCH = 64
USUAL_FAR = 0.01


@dataclass(frozen=True)
class Embedded:
    """`files` with their embeddings, float32 (n, d) of unit length; `failed` are (file, why)."""

    files: list[str]
    embeddings: np.ndarray
    failed: list[tuple[str, str]]


class Model:
    """The model in a version's folder. `align`: find and align the face; None: as for the training images.

    Raises UserError where its files are missing or changed, or the detector is not installed.
    """

    def __init__(self, folder: Path, align: bool | None = None) -> None:
        self.folder, self.spec = folder, read_spec(folder)
        preprocessing = self.spec["preprocessing"]
        options = {name: preprocessing[name] for name in ("size_px", "color", "align")}
        if align is not None:
            options["align"] = (options["align"] or Align().model_dump(mode="json")) if align else None
        self.prepare = Prepare.model_validate(options)
        self.aligner = None if self.prepare.align is None else Aligner(self.prepare.align)

    @property
    def version(self) -> str:
        """Its name in the registry."""
        return str(self.spec["version"])

    @cached_property
    def embed(self) -> Embed:
        """(N, size_px, size_px, C) uint8 -> (N, d) float32 of unit length, by onnxruntime or else by torch."""
        if ONNX in self.spec["files"] and importlib.util.find_spec("onnxruntime") is not None:
            return _by_onnx(self._sound(ONNX))
        return torch_embedder(self._sound(WEIGHTS).parent)

    def _sound(self, name: str) -> Path:
        return verified_file(self.folder, self.spec, name)

    def pixels(self, path: Path) -> np.ndarray:
        """A photo as the network's input, (size_px, size_px, C) uint8; raises BadImage or OSError."""
        pixels, _ = square(decode(path.read_bytes()), None, self.prepare, self.aligner)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def photos(self, paths: Sequence[Path]) -> Embedded:
        """The embeddings of photos, in their order; what cannot be read or shows no face is in `failed`."""
        files: list[str] = []
        batch: list[np.ndarray] = []
        embeddings: list[np.ndarray] = [np.empty((0, self.spec["embedding_dim"]), np.float32)]
        failed: list[tuple[str, str]] = []
        for path in paths:
            try:
                batch.append(self.pixels(path))
                files.append(str(path))
            except (BadImage, OSError) as error:
                failed.append((str(path), getattr(error, "strerror", None) or str(error)))
            if len(batch) == BATCH:
                embeddings.append(self.embed(np.stack(batch)))
                batch = []
        if batch:
            embeddings.append(self.embed(np.stack(batch)))
        return Embedded(files, np.concatenate(embeddings), failed)

    def threshold(self, far: float | None = None) -> dict[str, Any]:
        """The operating point of a FAR (None: 0.01 or, where there is none for it, the strictest that there is).

        Raises UserError, which lists the FARs that have one.
        """
        resolved = [point for point in self.spec["thresholds"] if point["threshold"] is not None]
        for point in resolved:
            if np.isclose(point["far"], USUAL_FAR if far is None else far, rtol=1e-9):
                return dict(point)
        if far is None and resolved:
            return dict(min(resolved, key=lambda point: point["far"]))
        far = USUAL_FAR if far is None else far
        available = ", ".join(f"{point['far']:g}" for point in resolved) or "none"
        why = next((point["why"] for point in self.spec["thresholds"] if point["threshold"] is None), "")
        raise UserError(
            f"model {self.version} has no threshold for FAR {far:g}{f' ({why})' if why else ''}",
            fix=f"give --far with one of: {available}" if resolved else "promote a model with more val people",
        )


def _by_onnx(path: Path) -> Embed:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def embed(pixels: np.ndarray) -> np.ndarray:
        image = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - 1
        (embeddings,) = session.run(["embedding"], {"image": image})
        return np.asarray(embeddings, np.float32)

    return embed
