"""The files of promoted models, and which model is current."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError

SPEC, WEIGHTS, ONNX, CARD, PEOPLE = "model.json", "model.safetensors", "model.onnx", "card.md", "people.parquet"
TRAINED_SPEC, TRAINED_WEIGHTS = "embedder.json", "embedder.safetensors"
CURRENT = "current"


def models_of(workdir: Path) -> Path:
    """Where the promoted models of a working directory lie."""
    return workdir / "data" / "models"


def current_model(models: Path) -> Path | None:
    """The folder of the version that the link `current` leads to; None where there is none."""
    link = models / CURRENT
    name = os.readlink(link) if link.is_symlink() else ""
    folder = models / name
    return folder if re.fullmatch(r"v[1-9]\d*", name) and folder.is_dir() else None


def network_beside(weights: Path) -> dict[str, Any] | None:
    """What the JSON beside a file of weights says of its network (options, channels, size_px).

    None where it is no file of a promoted model or of a finished train_recognizer, or has no such JSON. Raises
    UserError where that cannot be read.
    """
    if weights.name == WEIGHTS and (weights.parent / SPEC).is_file():
        return dict(read_spec(weights.parent)["network"])
    path = weights.parent / TRAINED_SPEC
    if weights.name != TRAINED_WEIGHTS or not path.is_file():
        return None
    try:
        network: dict[str, Any] = json.loads(path.read_bytes())
        dict(network["options"])
        return network
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "move the weights away from it, and say whose network they are (train_recognizer.start.of)"
        raise UserError(f"{path} cannot be read: {error!r}", fix) from error


def read_spec(folder: Path) -> dict[str, Any]:
    """`model.json` in a folder; raises UserError where it cannot be read."""
    try:
        spec: dict[str, Any] = json.loads((folder / SPEC).read_bytes())
        spec["network"], spec["preprocessing"], spec["thresholds"]
        return spec
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SPEC} cannot be read: {error!r}", fix="promote the model again") from error


def verified_file(folder: Path, spec: dict[str, Any], name: str) -> Path:
    """A file of a version, its bytes those that were promoted; raises UserError where they are not."""
    path = folder / name
    if not path.is_file() or file_sha256(path) != spec["files"][name]:
        what = "was changed" if path.is_file() else "is missing"
        raise UserError(f"{path} {what}", fix="promote it again, or `facegan rollback` to another version")
    return path
