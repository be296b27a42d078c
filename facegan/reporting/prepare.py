"""The faces that prepare found: how many, their quality, and which were left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facegan.data import manifest
from facegan.data.preparation import quarantine
from facegan.reporting.sections import read_json
from facegan.reporting.words import number

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def collect(folder: Path, pictures: bool) -> dict[str, Any]:
    """`quality`: a line for each split. `faces`: counts of an alignment or quality filter, None where there was none.

    `rejected`: what it left out (file, identity, reason, jpeg), empty without `pictures`.
    """
    counts = read_json(folder / "summary.json").get("faces")
    return {
        "quality": quality(folder),
        "faces": counts,
        "rejected": quarantine.read_rejected(folder) if counts and pictures else [],
    }


def quality(folder: Path) -> list[dict[str, Any]]:
    """For each split: how many images, and quantiles of their quality; none where no image has one."""
    table = manifest.read(folder, ["split", "quality"])
    splits, values = np.asarray(table["split"]), table["quality"].to_numpy().astype(np.float64)
    lines = []
    for split in manifest.SPLITS:
        of_split = values[(splits == split) & ~np.isnan(values)]
        if len(of_split):
            quantiles = [number(value) for value in np.quantile(of_split, QUANTILES)]
            lines.append({"split": split, "images": len(of_split), "quantiles": quantiles})
    return lines
