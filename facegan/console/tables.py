"""The tables that commands end with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from facegan.console.screen import console
from facegan.core.errors import UserError
from facegan.core.files import user_path, write_atomic
from facegan.core.units import format_seconds
from facegan.pipeline.plan import Planned, disk, expected_s
from facegan.recipe.recipe import Recipe
from facegan.reporting.summary import advice, arms_table, sentence
from facegan.runtime.devices import cores

if TYPE_CHECKING:
    from facegan.evaluation.model_figures import Figure, ModelFigures
    from facegan.promotion.gates import Gate, GateResults


def show_run(result: dict[str, Any], page: Path | None, seconds: float, to_stderr: bool) -> None:
    """Time per stage, the arms, the verdict, the report's path; `result` is the JSON answer."""
    out, stages = console(to_stderr), result["stages"]
    if all(stage["state"] == "cached" for stage in stages):
        say(out, f"nothing to do: all {len(stages)} stages are cached and verified ({format_seconds(seconds)})")
    else:
        out.print(_times_by_stage(stages, seconds))
    if page is None:
        return
    header, rows, left_out = turned_to_fit(*arms_table(result), out.width)
    out.print(_table(header, rows))
    if left_out:
        say(out, f"the report has {left_out} more figures of each")
    for line in (sentence(page.parent), *advice(page.parent)):
        say(out, line)
    say(out, result["look"]["text"])
    say(out, f"report: {page}")


def turned_to_fit(header: list[str], rows: list[list[str]], width: int) -> tuple[list[str], list[list[str]], int]:
    """Arms in columns, where these fit into `width` characters; else arms in rows, and the last metrics left out.

    header, rows: of arms_table. Returns the table's, and how many metrics are left out: the deciding one never is.
    """
    if _width([header, *rows]) <= width:
        return header, rows, 0
    turned = [list(row) for row in zip(header, *rows, strict=True)]
    turned[0][0] = "arm"
    columns = next((n for n in range(len(turned[0]), 2, -1) if _width([row[:n] for row in turned]) <= width), 2)
    return turned[0][:columns], [row[:columns] for row in turned[1:]], len(turned[0]) - columns


def _width(rows: list[list[str]]) -> int:
    """Characters of the widest line of a table, three between columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return sum(widths) + 3 * (len(widths) - 1)


def _times_by_stage(stages: list[dict[str, Any]], seconds: float) -> Table:
    """One line a stage: its runs summed up. As stages run side by side, the sum may exceed the whole command's time."""
    rows = []
    for name in dict.fromkeys(stage["stage"] for stage in stages):
        runs = [stage for stage in stages if stage["stage"] == name]
        states = [f"{n} {state}" for state in ("ran", "resumed", "cached") if (n := _count(runs, state))]
        rows.append([name, str(len(runs)), ", ".join(states), format_seconds(sum(run["seconds"] for run in runs))])
    table = _table(["stage", "runs", "state", "time"], rows)
    table.add_section()
    table.add_row("whole command", "", "", format_seconds(seconds))
    return table


def _count(runs: list[dict[str, Any]], state: str) -> int:
    return sum(run["state"] == state for run in runs)


def show_plan(recipe: Recipe, plans: list[Planned], workdir: Path) -> None:
    """Each stage (of a study, how many of each stage), then time and disk to expect."""
    out = console(to_stderr=False)
    out.print(_plan_by_stage(plans) if recipe.study is not None else _plan_by_node(plans))
    to_run = [entry for entry in plans if entry.state != "cached"]
    if not to_run:
        say(out, f"recipe {recipe.name}: all {len(plans)} stages are cached and verified")
    else:
        jobs = recipe.runtime.jobs or min(2, cores())
        seconds_left, unknown = expected_s(plans, jobs)
        time_left = "unknown (nothing like it has run here)"
        if seconds_left and unknown < len(to_run):
            time_left = f"{'at least' if unknown else 'about'} {format_seconds(seconds_left)}"
        unknown_times = f", {unknown} of which nothing like it has run here" if 0 < unknown < len(to_run) else ""
        say(
            out,
            f"recipe {recipe.name}: {len(to_run)} of {len(plans)} stages to run{unknown_times}; time left {time_left}",
        )
    size, unsized, free = disk(plans, workdir)
    unknown_sizes = f" and {unsized} stages of unknown size" if unsized else ""
    say(out, f"disk: {size / 1e6:.1f} MB to write{unknown_sizes}, {free / 1e9:.1f} GB free in {workdir}")


def _plan_by_node(plans: list[Planned]) -> Table:
    rows = []
    trials = any(entry.item.trial for entry in plans)
    for entry in plans:
        item = entry.item
        seed = "" if item.seed is None else str(item.seed)
        trial = [item.trial or ("as chosen" if item.as_chosen else "")] if trials else []
        rows.append([item.stage, item.arm or "", *trial, seed, item.key[:12], entry.state, entry.why, _time(entry)])
    return _table(["stage", "arm", *["trial"] * trials, "seed", "fingerprint", "state", "why", "time"], rows)


def _plan_by_stage(plans: list[Planned]) -> Table:
    """A study has hundreds of runs: one line for each stage and state, with the first of them."""
    groups: dict[tuple[str, str], list[Planned]] = {}
    for entry in plans:
        groups.setdefault((entry.item.stage, entry.state), []).append(entry)
    rows = [
        [stage, str(len(group)), state, group[0].item.title.partition(" · ")[2], group[0].why, _time(group[0])]
        for (stage, state), group in groups.items()
    ]
    return _table(["stage", "runs", "state", "the first", "why", "time of it"], rows)


def _time(entry: Planned) -> str:
    return "unknown" if entry.seconds is None else "" if entry.state == "cached" else format_seconds(entry.seconds)


def _table(header: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    return table


def show_benchmark(results: dict[str, Any], out: Console) -> None:
    """One line for each metric: its value, of how many pairs and people, and a note."""
    rows = []
    for label, result in results.items():
        for metric in result["metrics"]:
            value = "-" if metric["value"] is None else f"{metric['value']:.4f}"
            counts = [
                f"{metric[name]:,}" if metric[name] else "" for name in ("n_genuine", "n_impostor", "n_identities")
            ]
            rows.append([label, metric["name"].removeprefix(f"{label}/"), value, *counts, metric["note"]])
    out.print(_table(["benchmark", "metric", "value", "genuine", "impostor", "people", "note"], rows))


def show_compared(sides: list[tuple[str, ModelFigures]], out: Console) -> None:
    """One line for each metric: values with intervals, each other one less the first, and what all notes say."""
    first = sides[0][1]
    rows = []
    for figure in first.figures:
        values = [_figure(side.figure(figure.name)) for _, side in sides]
        differences = [_figure(side.minus(first, figure.name), "+.3f") for _, side in sides[1:]]
        notes = [side.figure(figure.name).note.split("; ") for _, side in sides]
        shared = "; ".join(part for part in notes[0] if all(part in other for other in notes))
        rows.append([figure.name, *values, *differences, shared])
    names = [label for label, _ in sides]
    out.print(_table(["metric", *names, *(f"{name} - {names[0]}" for name in names[1:]), "note"], rows))
    say(out, f"{first.scale.confidence:.0%} intervals, for other people of the same kind; differences are paired")


def show_comparison(results: GateResults, version: str, champion: str | None, out: Console) -> None:
    """The tables of `comparison_tables`."""
    for header, rows in comparison_tables(results, version, champion):
        out.print(_table(header, rows))


def comparison_tables(
    results: GateResults, version: str, champion: str | None
) -> list[tuple[list[str], list[list[str]]]]:
    """Header and rows: champion and challenger on every metric, the one that decides first; then each gate."""
    champion_figures = {figure.name: figure for figure in results.champion}
    differences = {figure.name: figure for figure in results.differences}
    rows = []
    for figure in sorted(results.challenger, key=lambda figure: figure.name != results.metric):
        champion_figure, difference = champion_figures.get(figure.name), differences.get(figure.name)
        if figure.value is not None or (champion_figure is not None and champion_figure.value is not None):
            rows.append([figure.name, *map(_figure, (champion_figure, figure)), _figure(difference, "+.3f")])
    header = ["metric", f"champion {champion or '(none)'}", f"challenger {version}", "difference"]
    gates = [[g.name, g.outcome, "refuses" if g.blocks else "", _figure(g, "+.3f"), g.why] for g in results.gates]
    return [(header, rows), (["gate", "outcome", "", "found", "why"], gates)]


def _figure(figure: Figure | Gate | None, format_spec: str = ".3f") -> str:
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:{format_spec}}"
    return f"{figure.value:{format_spec}} ({figure.low:{format_spec}} to {figure.high:{format_spec}})"


def show_models(rows: list[dict[str, Any]], root: Path, out: Console) -> None:
    """One line for each version."""
    cells = []
    for row in rows:
        figures = [f"{name} {value:.3f}" for name, value in row["metrics"].items() if value is not None]
        from_run = [
            row["version"],
            row["state"],
            row["date"][:10],
            f"{row['recipe']}, {row['arm']}",
            ", ".join(figures[:3]),
        ]
        cells.append([*from_run, row["why"]])
    out.print(_table(["model", "state", "made", "from", "figures (when it was made)", "why"], cells))
    say(
        out,
        f"{len(rows)} model{'s' * (len(rows) > 1)} in {root}"
        if rows
        else f"no models in {root}: `facegan promote` makes them",
    )


def say(out: Console, text: str) -> None:
    """Print one line unbroken, however long."""
    out.print(text, markup=False, soft_wrap=True)


def write_json(to: str | None, result: dict[str, Any]) -> None:
    """Write the answer to the file `to`, for `-` to standard output, for None nowhere."""
    text = json.dumps(result, indent=1, allow_nan=False)
    if to == "-":
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    elif to is not None:
        path = user_path(to)
        try:
            write_atomic(path, (text + "\n").encode())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}") from error
