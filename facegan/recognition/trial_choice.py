"""What val people chose between the trials of an arm: the files that `select` leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facegan.core.files import write_atomic

FILE = "choice.json"
RECOGNIZER = "recognizer"  # the folder of what a search trained with its seed and the options that were chosen


def write(folder: Path, trial: str, val_eer: dict[str, dict[str, Any]]) -> None:
    """{"trial": name, "val_eer": {trial: {"per_seed": [...], "mean": x}}}."""
    write_search(folder, trial, {"val_eer": val_eer})


def write_search(folder: Path, trial: str, found: dict[str, Any]) -> None:
    """{"trial": name, **found}; of a search `found` is {"search": {...}}, as `facegan.stages.select` says."""
    write_atomic(folder / FILE, json.dumps({"trial": trial, **found}, indent=1).encode())


def read(folder: Path) -> dict[str, Any]:
    """All that was written."""
    choice: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    return choice


def trial(folder: Path) -> str:
    """The trial that was chosen."""
    return str(read(folder)["trial"])


def trained(folder: Path, seed: int) -> Path | None:
    """Where a search has trained what it chose with this seed; None where it has not."""
    found = read(folder).get("search")
    return folder / RECOGNIZER if found and found["seed"] == seed else None
