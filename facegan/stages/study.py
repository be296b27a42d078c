"""study: all splits and variants judged together, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegan.core.files import write_atomic
from facegan.recipe.comparison import Report, Study
from facegan.reporting import page
from facegan.reporting.study import efficiency, pooled
from facegan.reporting.study import figures as study_figures
from facegan.reporting.study import page as study_page
from facegan.runtime.context import Context
from facegan.runtime.devices import threads_of


def run(options: Report, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `index.html`, `report.md`, `results.json`, `results.parquet`, `differences.parquet`, `figures/*.png`.

    `inputs` are the stages of all cells, `<variant>:<split>:<stage>[:<arm>[:<seed>]]`; the same inputs give the
    same bytes. Raises UserError as pooled.measure does.
    """
    study = extra["recipe"]["study"]
    recipe = {**extra["recipe"], "study": {**study, "claim": Study.model_validate(study).claimed}}

    def progress(done: int, total: int) -> None:
        context.progress(done, total, "recognizers judged")

    threads = threads_of(context.runtime)
    findings = pooled.measure(recipe, inputs, options.bootstrap, options.seed, progress, threads)
    answer = study_page.write(out, recipe, findings, study_page.licences(recipe, inputs))
    curve = efficiency.measure(recipe, findings)
    figures = [study_figures.differences(recipe, findings.variants)]
    if curve is not None:
        figures.append(study_figures.efficiency(recipe, curve))
    rendered_figures = {figure.name: figure for figure in figures}
    for name, figure in rendered_figures.items():
        write_atomic(out / "figures" / f"{name}.png", figure.png)
    values = study_page.context(recipe, inputs, findings, answer, curve, rendered_figures)
    html, markdown = page.pages(values, "study")
    write_atomic(out / "report.md", markdown.encode())
    write_atomic(out / "index.html", html.encode())
    context.say(values["sentence"])
