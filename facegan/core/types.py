"""Types that several packages share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

from collections.abc import Callable

Embed = Callable[["np.ndarray"], "np.ndarray"]
"""(N, H, W, C) uint8, grey or RGB -> (N, d) float32, rows of unit length."""
