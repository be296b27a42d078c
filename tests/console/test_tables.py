"""Tables of the terminal: what is shown where not everything fits."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from facegan.console.tables import turned_to_fit
from facegan.reporting.summary import arms_table

METRICS = ["rank-1", "eer", "tar@far=0.01"]
METRICS_SHOWN = ["eer", "rank-1", "tar@far=0.01"]  # the deciding one first


def answer(arms: int) -> dict[str, object]:
    """An answer of a run with so many arms; `eer` decides."""
    values = {metric: {"mean": 0.1, "ci_low": 0.05, "ci_high": 0.2} for metric in METRICS}
    return {"comparison": {"metric": "eer"}, "arms": {f"arm-{n}": values for n in range(arms)}}


def test_what_fits_has_arms_in_columns() -> None:
    header, rows, left_out = turned_to_fit(*arms_table(answer(2)), 80)
    assert header == ["metric", "arm-0", "arm-1"] and [row[0] for row in rows] == METRICS_SHOWN
    assert left_out == 0


@pytest.mark.parametrize(
    ("width", "metrics"), [(120, ["eer", "rank-1", "tar@far=0.01"]), (70, ["eer", "rank-1"]), (20, ["eer"])]
)
def test_what_does_not_fit_has_arms_in_rows_and_the_deciding_metric_first(width: int, metrics: list[str]) -> None:
    header, rows, left_out = turned_to_fit(*arms_table(answer(7)), width)
    assert header == ["arm", *metrics] and left_out == 3 - len(metrics)
    assert rows == [[f"arm-{n}", *["0.100 (0.050 to 0.200)"] * len(metrics)] for n in range(7)]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_broken(width: int) -> None:
    from facegan.console import tables

    header, rows, _ = turned_to_fit(*arms_table(answer(7)), width)
    screen = Console(file=io.StringIO(), width=width)
    screen.print(tables._table(header, rows))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2 + len(rows) and max(map(len, lines)) <= width
