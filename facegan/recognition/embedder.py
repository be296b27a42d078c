"""The recognizer's network: a backbone and an embedding layer, and how images pass through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegan.core.types import Embed
from facegan.training.tensors import to_input

if TYPE_CHECKING:
    import numpy as np

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.errors import UserError
from facegan.metrics.verification import unit_rows
from facegan.recognition.batch_norms import replace_batch_norms
from facegan.recognition.frozen_features import FrozenFeatures
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.starts.networks.backbone import block_sizes, num_features
from facegan.recognition.whitened_layer import WhitenedLayer
from facegan.training.weights import load_weights


class Embedder(nn.Module):
    """NCHW float32 in -1..1 -> embedding (N, embedding_dim), not normalised.

    The embedding layer is that of the network that `options.begins` gives or, where it has none, a linear map followed
    by batch norm, as in ArcFace's output setting E (Deng et al. 2019, section 3.1). Where it is fitted (tune: whitened)
    it follows the network's own, and takes the mirror image too. With `options.privacy` the norm of the linear map is a
    layer norm, and those of a random backbone are group norms: what an image becomes must not depend on others.
    """

    def __init__(self, options: TrainRecognizer, channels: int, size_px: int) -> None:
        super().__init__()
        self.made_of = [options.begins.model_dump(mode="json"), channels, size_px]
        self.backbone = options.begins.network(options.asked(channels, size_px))
        self.has_layer = not options.begins.form.embeds
        self.has_gradient = not options.begins.form.frozen_only
        self.is_fitted = options.is_fitted
        if self.is_fitted:
            self.has_layer = True
            self.project: nn.Module = WhitenedLayer(block_sizes(self.backbone), options.embedding_dim)
        elif self.has_layer:
            self.project = nn.Linear(num_features(self.backbone), options.embedding_dim, bias=False)
            self.norm: nn.Module = nn.BatchNorm1d(options.embedding_dim)
        if options.privacy is not None:
            if options.begins.kind == "random":
                replace_batch_norms(self.backbone)
            self.norm = nn.LayerNorm(options.embedding_dim)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.backbone(img)
        if self.is_fitted:
            return self.project(output, self.backbone(img.flip(3)))  # type: ignore[no-any-return]
        embedding: torch.Tensor = self.norm(self.project(output).float()) if self.has_layer else output.float()
        return embedding


@torch.no_grad()
def embed(
    net: nn.Module,
    pixels: np.ndarray,
    batch_size: int,
    device: torch.device | str = "cpu",
    features: FrozenFeatures | None = None,
) -> np.ndarray:
    """Embeddings of unit length (N, embedding_dim) float32 of NHWC uint8 images; `net` is set to eval mode.

    features: those of the backbone of a net whose layer is fitted, where they may be known already.
    """
    net.eval()

    def embedding(batch: np.ndarray) -> torch.Tensor:
        if features is None:
            return net(to_input(batch, device))  # type: ignore[no-any-return]
        return net.project(features(batch), features(batch[:, :, ::-1]))  # type: ignore[operator, no-any-return]

    batches = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    parts = [F.normalize(embedding(batch).float()).cpu().numpy() for batch in batches]
    return np.concatenate(parts).astype(np.float32)


MIRRORED = "embeddings of image and mirror image added"


def with_mirror(embed: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """`embed` of an image plus `embed` of its mirror image, of unit length: (N, H, W, C) uint8 -> (N, d) float32.

    Source: insightface's verification.py, which adds them too (without making each of unit length before).
    """

    def fused(pixels: np.ndarray) -> np.ndarray:
        return unit_rows(embed(pixels) + embed(np.ascontiguousarray(pixels[:, :, ::-1])))

    return fused


def load_embedder(folder: Path, device: torch.device | str = "cpu") -> tuple[Embedder, dict[str, Any]]:
    """The embedder of a finished train_recognizer folder, in eval mode, and its `embedder.json`."""
    spec = embedder_spec(folder)
    return restored(spec, folder / "embedder.safetensors", device), spec


def embedder_spec(folder: Path) -> dict[str, Any]:
    """The `embedder.json` of a finished train_recognizer folder."""
    try:
        spec: dict[str, Any] = json.loads((folder / "embedder.json").read_bytes())
    except OSError as error:
        raise UserError(f"no recognizer in '{folder}'", fix="run train_recognizer first") from error
    return spec


def restored(spec: dict[str, Any], weights: Path, device: torch.device | str = "cpu") -> Embedder:
    """The embedder that `spec` (an `embedder.json`) describes with the weights of a file, in eval mode.

    `use` steered the training alone, and may name what has been removed since.
    """
    options = TrainRecognizer.model_validate({**spec["options"], "pretrained": False, "use": {}})
    net = Embedder(options, spec["channels"], spec["size_px"])
    load_weights(weights, {"recognizer": net}, fix="make or promote it again", exact=True)
    net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


def batched(embed: Embed, size: int) -> Embed:
    """`embed` over batches of `size` images."""

    def run(pixels: np.ndarray) -> np.ndarray:
        import numpy as np

        parts = [embed(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return np.concatenate(parts)

    return run
