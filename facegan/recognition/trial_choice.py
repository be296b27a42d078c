"""What val people chose between the trials of an arm: the file that `select` leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facegan.core.files import write_atomic

FILE = "choice.json"


def write(folder: Path, trial: str, val_eer: dict[str, dict[str, Any]]) -> None:
    """{"trial": name, "val_eer": {trial: {"per_seed": [...], "mean": x}}}."""
    write_atomic(folder / FILE, json.dumps({"trial": trial, "val_eer": val_eer}, indent=1).encode())


def read(folder: Path) -> dict[str, Any]:
    """All that was written."""
    choice: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    return choice


def trial(folder: Path) -> str:
    """The trial that was chosen."""
    return str(read(folder)["trial"])
