"""The pages: one self-contained HTML file, and Markdown that shows the figures beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from facegan.reporting import composition, controls, figures, galleries, results, sections, words
from facegan.reporting.audit import AuditMaterial
from facegan.reporting.comparisons import EXPLORATORY, ArmDifference, Measure
from facegan.reporting.figures import ARMS, RenderedFigure, own_figures
from facegan.reporting.galleries import Gallery
from facegan.reporting.results import Findings

TEMPLATES = Path(__file__).resolve().parent / "templates"
STRIP_PX = (640, 104)


@dataclass(frozen=True)
class PageMaterial:
    """What the pages show beside the numbers."""

    figures: dict[str, RenderedFigure]
    gallery: Gallery | None
    samples: bytes | None
    prepared: dict[str, Any]
    audited: AuditMaterial | None = None
    controls: list[dict[str, Any]] = field(default_factory=list)  # galleries of the control arms
    transfers: list[dict[str, Any]] = field(default_factory=list)  # of each attack: `transfer.as_rows`
    compositions: list[dict[str, Any]] = field(default_factory=list)  # `composition.collect`


def context(
    recipe: dict[str, Any], inputs: dict[str, Path], findings: Findings, material: PageMaterial
) -> dict[str, Any]:
    """The context of the report's templates."""
    comparison = findings.comparison
    primary = next(measure for measure in findings.measures if measure.name == comparison["metric"])
    arms = sections.arms(recipe, inputs)
    synthetic = "synthesize" in inputs
    recognizers = sections.recognizers(recipe, inputs)
    summary = sections.read_json(inputs["prepare"] / "summary.json")
    beaten = results.beaten_by(recipe, primary)
    return {
        "recipe": recipe,
        "comparison": comparison,
        "percent": words.percent(comparison["confidence"]),
        "tone": words.tone(comparison["verdict"], beaten),
        "headline": words.headline(recipe, comparison["verdict"], words.where(comparison), beaten),
        "sentence": f"{words.beaten_by(beaten)} {words.verdict(recipe, primary, comparison)}".lstrip(),
        "why": words.why(comparison),
        "smallest": words.smallest(primary, comparison),
        "learning": words.learning(recognizers, comparison, recipe["train_recognizer"]["evaluations"]),
        "gloss": words.gloss(primary.name, primary.arms[comparison["baseline"]].mean),
        "strip": strip(primary, comparison),
        "best_control": controls.sentence(controls.best(recipe, primary)),
        "splits": summary["splits"],
        "n_images": findings.n_images,
        "arms": arms,
        "baselines": sections.baselines(recipe, inputs),
        "against": against_baselines(primary),
        "invented": material.gallery.n_new if material.gallery else 0,
        "rows": [metric_row(measure, recipe) for measure in findings.measures],
        "drawn": material.figures,
        "of_benchmarks": [label for draw, label in own_figures(findings.measures) if draw is not figures.domains],
        "across": [
            {
                "label": label,
                "rows": across_domains(measures),
                "domains": domains_of(measures),
                "notes": notes_of_domains(measures),
            }
            for (draw, label), measures in own_figures(findings.measures).items()
            if draw is figures.domains
        ],
        "transfers": material.transfers,
        "compositions": composition.in_words(material.compositions),
        "gallery": material.gallery,
        "controls": material.controls,
        "samples": material.samples,
        "audited": material.audited,
        "licences": sections.licences(recipe, inputs),
        "quarantine": sections.quarantine(inputs["prepare"]),
        "prepared": material.prepared,
        "filters": sections.filters(inputs["synthesize"]) if synthetic else None,
        "duplicates": sections.duplicates(recipe, inputs),
        "trials": sections.trials(recipe, inputs),
        "searched": sections.searches(recipe, inputs),
        "d_won": sections.d_won(inputs),
        "recognizers": recognizers,
        "limits": [*words.began(recipe), *words.limits(comparison, findings.n_images, synthetic)],
        "terms": words.TERMS,
        "config": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        "lineage": sections.lineage(inputs),
        "colors": ARMS,
    }


def metric_row(measure: Measure, recipe: dict[str, Any]) -> dict[str, Any]:
    """A metric as a table row: a cell for each arm and then each baseline, and for each difference between arms."""
    cells, differences = [], []
    for value in (*(measure.arms[arm] for arm in recipe["arms"]), *measure.baselines.values()):
        if value.mean is None:
            cells.append({"value": "", "interval": "", "seeds": "", "note": measure.note})
            continue
        cells.append(
            {
                "value": words.number(value.mean),
                "interval": words.interval(value.low, value.high),
                "seeds": ", ".join(words.number(v) for v in value.per_seed),
                "note": "",
            }
        )
    for arm in recipe["arms"]:
        if arm == recipe["comparison"]["baseline"]:
            continue
        difference = measure.differences.get(arm)
        if difference is None:
            differences.append({"value": "", "interval": "", "tone": "none", "arm": arm})
            continue
        digits = words.digits_for(difference.delta, difference.low, difference.high)
        differences.append(
            {
                "arm": arm,
                "value": words.signed(difference.delta, digits),
                "interval": words.interval(difference.low, difference.high, digits, sign=True),
                "tone": tone(measure.better, difference),
            }
        )
    return {
        "name": measure.name,
        "words": words.short(measure.name),
        "better": measure.better,
        "cells": cells,
        "differences": differences,
        "named": measure.name == recipe["comparison"]["metric"],
        "resolved": measure.resolved,
        "note": measure.note,
        "remark": measure.remark if measure.resolved else "",
    }


def domains_of(measures: Sequence[Measure]) -> list[str]:
    """The domains of `NAME/FIGURE@domain=DOMAIN`, home first."""
    return list(dict.fromkeys(measure.name.partition("@domain=")[2] for measure in measures))


def notes_of_domains(measures: Sequence[Measure]) -> dict[str, str]:
    """{domain: what is to be said of its photos}."""
    of_eer = (m for m in measures if m.name.rpartition("/")[2].startswith("eer@"))
    return {m.name.partition("@domain=")[2]: m.note for m in of_eer if m.note}


def across_domains(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """For each arm, then each baseline, a cell for each domain: its EER, and the gap to home with its interval."""
    of_figure = {tuple(m.name.rpartition("/")[2].split("@domain=", 1)): m for m in measures}
    rows = []
    for name in (*measures[0].arms, *measures[0].baselines):
        cells = []
        for domain in domains_of(measures):
            eer, gap = of_figure["eer", domain], of_figure.get(("gap", domain))
            value = {**eer.arms, **eer.baselines}[name].mean
            cell = {"value": "" if value is None else words.number(value), "gap": ""}
            if gap is not None and (apart := {**gap.arms, **gap.baselines}[name]).mean is not None:
                digits = words.digits_for(apart.mean, apart.low, apart.high)
                span = words.interval(apart.low, apart.high, digits, sign=True) or "no interval"
                cell["gap"] = f"{words.signed(apart.mean, digits)} ({span})"
            cells.append(cell)
        rows.append({"name": name, "cells": cells})
    return rows


def tone(better: str, difference: ArmDifference) -> str:
    """`better` or `worse` for a gain or loss; `exploratory` where the interval of a difference that was not named
    beforehand lies on one side of zero; else `none`."""
    if difference.verdict == EXPLORATORY:
        apart = direction(better, difference.low, difference.high) != "none"
        return EXPLORATORY if apart else "none"
    return {"gain": "better", "loss": "worse"}.get(difference.verdict, "none")


def against_baselines(measure: Measure) -> list[dict[str, Any]]:
    """For each baseline its value, and the difference of each arm from it."""
    rows = []
    for name, differences in measure.from_baselines.items():
        value = measure.baselines[name]
        cells = []
        for item in differences.values():
            digits = words.digits_for(item.delta, item.low, item.high)
            cells.append(
                {
                    "value": words.signed(item.delta, digits),
                    "interval": words.interval(item.low, item.high, digits, sign=True),
                    "tone": direction(measure.better, item.low, item.high),
                }
            )
        shown = {"value": words.number(value.mean), "interval": words.interval(value.low, value.high)}
        rows.append({"name": name, **shown, "cells": cells})
    return rows


def direction(better: str, low: float | None, high: float | None) -> str:
    """`better` or `worse` where the whole interval lies on that side of zero, else `none`."""
    if low is None or high is None or low <= 0 <= high:
        return "none"
    return "better" if (high < 0) == (better == "lower") else "worse"


def strip(measure: Measure, comparison: dict[str, Any]) -> dict[str, Any] | None:
    """The small picture of the difference: the x of its marks in px, with the values as text; None: no interval."""
    delta, low, high = (comparison[key] for key in ("delta", "ci_low", "ci_high"))
    if delta is None or low is None:
        return None
    sign = -1 if measure.better == "lower" else 1
    smallest = comparison["smallest_detectable"]
    least_gain = None if smallest is None else sign * smallest
    marks = [0.0, low, high, *([least_gain] if least_gain is not None else [])]
    span = max(max(marks) - min(marks), 1e-9)
    width, margin = STRIP_PX[0], 110  # room for the labels: "no difference" beside "worse" too

    def x(value: float) -> float:
        return round(margin + (value - min(marks)) / span * (width - 2 * margin), 1)

    digits = words.digits_for(delta, low, high)
    text = {
        "delta": words.signed(delta, digits),
        "low": words.signed(low, digits),
        "high": words.signed(high, digits),
    }
    least = None
    if least_gain is not None:
        least = {"at": x(least_gain), "label": min(max(x(least_gain), margin), width - margin)}
    return {
        "x": {"zero": x(0), "delta": x(delta), "low": x(low), "high": x(high)},
        "least": least,
        "text": text,
        "better_left": sign < 0,
        "width": STRIP_PX[0],
        "height": STRIP_PX[1],
    }


def markdown_safe(text: object) -> str:
    """Text that Markdown shows as it is, in a paragraph or a table cell."""
    flat = re.sub(r"\s+", " ", str(text))
    escaped = re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    runs = re.findall(r"`+", text)
    fence = "`" * max(3, *(len(run) + 1 for run in runs)) if runs else "```"
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


@cache
def environment() -> Environment:
    """Jinja with facegan's templates, compiled once, and filters; HTML is escaped, an unknown name raises."""
    loader = FileSystemLoader(TEMPLATES)
    env = Environment(
        loader=loader,
        autoescape=lambda name: bool(name) and str(name).endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {"uri": galleries.data_uri, "face": galleries.face_uri, "first_grid": galleries.first_grid}
    env.filters |= {"md": markdown_safe, "fenced": fenced}
    return env


def pages(values: dict[str, Any], template: str = "report") -> tuple[str, str]:
    """`index.html` and `report.md`."""
    env = environment()
    html = env.get_template(f"{template}.html.j2").render(values)
    markdown = env.get_template(f"{template}.md.j2").render(values)
    return html, re.sub(r"\n{3,}", "\n\n", markdown)
