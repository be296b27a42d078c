"""An embedder for tests: coarse pixels."""

from __future__ import annotations

import numpy as np


def pixels(images: np.ndarray) -> np.ndarray:
    """An embedder: coarse pixels, whatever the light."""
    grey = images.mean(axis=-1).reshape(len(images), 14, 8, 14, 8).mean(axis=(2, 4)).reshape(len(images), -1)
    return np.asarray((grey - grey.mean(axis=1, keepdims=True)) / grey.std(axis=1, keepdims=True))
