"""What embeds with a promoted model. Imports torch only when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.types import Embed
from facegan.recognition.saved_model import WEIGHTS, read_spec, verified_file


def torch_embedder(folder: Path, device: Any = "cpu") -> Embed:
    """The network of a version as PyTorch runs it."""
    from facegan.recognition import embedder

    spec = read_spec(folder)
    net = embedder.restored(spec["network"], verified_file(folder, spec, WEIGHTS), device)

    def embed(pixels: np.ndarray) -> np.ndarray:
        return embedder.embed(net, pixels, len(pixels), device)

    return embedder.with_mirror(embed) if spec["preprocessing"]["flip"] else embed
