"""Python modules with embedders, as a user may write them."""

from __future__ import annotations

from pathlib import Path

MODULE = "import numpy as np\ndef rows(pixels):\n    return pixels.reshape(len(pixels), -1).astype(float)\nn = 1\n"


DOWN = "def rows(pixels):\n    return pixels[:, ::4, ::4].reshape(len(pixels), -1) - 100.0\n"


def write_modules(folder: Path) -> None:
    """Write `theirs_x.py` (`rows`: the pixels as they are) and `theirs_y.py` (`rows`: every fourth pixel)."""
    (folder / "theirs_x.py").write_text(MODULE)
    (folder / "theirs_y.py").write_text(DOWN)
