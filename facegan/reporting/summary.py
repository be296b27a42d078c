"""A finished report in a few lines: its verdict, its table, what to do next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facegan.core.errors import UserError

RESULTS = "results.json"  # in reports/ it is the whole answer, with stages and paths


def read_results(folder: Path) -> dict[str, Any]:
    """`results.json` of a report; raises UserError when it cannot be read."""
    try:
        results: dict[str, Any] = json.loads((folder / RESULTS).read_bytes())
        return results
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RESULTS} cannot be read: {error}", fix="run the same command again") from error


def sentence(folder: Path) -> str:
    """The verdict in one sentence, as report.md says it in bold."""
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    bold = next((line for line in lines if line.startswith("**") and line.endswith("**")), "")
    return bold.strip("*").replace("\\", "")


def advice(folder: Path) -> list[str]:
    """What a study's report.md advises for each variant; none for a report."""
    _, _, below = (folder / "report.md").read_text(encoding="utf-8").partition("\n## What to do")
    lines = below.partition("\n## ")[0].splitlines()
    return [line[2:].replace("\\", "") for line in lines if line.startswith("- ")]


def arms_table(answer: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each arm's mean and interval of every metric with a value, the deciding one first.

    Baselines stand to the right of the arms.
    """
    decides, baselines = answer["comparison"]["metric"], answer.get("baselines", {})
    names = list(dict.fromkeys(name for values in answer["arms"].values() for name in values))
    names = [n for n in names if any(v.get(n, {}).get("mean") is not None for v in answer["arms"].values())]
    names.sort(key=lambda name: name != decides)
    columns = [*answer["arms"].values(), *baselines.values()]
    rows = [[name, *(_cell(values.get(name, {})) for values in columns)] for name in names]
    return ["metric", *answer["arms"], *(f"baseline {name}" for name in baselines)], rows


def _cell(value: dict[str, Any]) -> str:
    mean, low, high = value.get("mean", value.get("value")), value.get("ci_low"), value.get("ci_high")
    if mean is None:
        return "-"
    return f"{mean:.3f}" if low is None or high is None else f"{mean:.3f} ({low:.3f} to {high:.3f})"
