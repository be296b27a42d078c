"""Drawn faces of which one person stands under two names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drawn import draw_face, draw_folder
from facegan.data.images import encode_png


def draw_two_names(root: Path) -> Path:
    """14 drawn people; of p04 two photos stand a little brighter under the name Zoe."""
    draw_folder(root, people=14, shots=6)
    (root / "Zoe").mkdir()
    for shot in (1, 3):
        brighter = np.clip(draw_face(4, shot).astype(int) + 3, 0, 255).astype(np.uint8)
        (root / "Zoe" / f"{shot}.png").write_bytes(encode_png(brighter))
    return root
