"""report: the page that a person reads, and the same in JSON, Parquet and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegan.core.files import write_atomic
from facegan.recipe.comparison import Report
from facegan.reporting import audit, figures, galleries, page, prepare, results, runs, sections
from facegan.reporting.figures import Drawn
from facegan.reporting.results import Findings
from facegan.runtime.context import Context


def run(options: Report, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `index.html`, `report.md`, `results.json`, `results.parquet` and `figures/*.png`.

    Reads nothing but its inputs; the same inputs give the same bytes. Raises UserError when the comparison's
    metric was not measured, or the recognizers were not judged on the same images.
    """
    recipe = extra["recipe"]

    def progress(done: int, total: int) -> None:
        context.progress(done, total, "recognizers judged")

    findings = results.measure(recipe, inputs, options.bootstrap, options.seed, progress)
    results.write(out, recipe, findings, {i["arm"]: i["licenses"] for i in sections.licences(recipe, inputs)})
    gallery = None
    if "synthesize" in inputs:
        shown, each = options.identities_shown if options.show_faces else 0, options.faces_per_identity
        gallery = galleries.collect(inputs["prepare"], inputs["synthesize"], shown, each)
    seen = None
    if "audit" in inputs:
        each = options.faces_per_identity if options.show_faces else 0
        seen = audit.collect(inputs["prepare"], inputs["synthesize"], inputs["audit"], each)
    samples = _samples(inputs) if options.show_faces else None
    drawn = _figures(recipe, inputs, findings)
    files = {name: figure.png for name, figure in drawn.items()}
    if gallery is not None:
        sheets = {"faces-existing": gallery.existing, "faces-new": gallery.new}
        files |= {name: galleries.sheet(people) for name, people in sheets.items() if people}
    if seen is not None:
        files |= {name: galleries.sheet(audit.beside(people)) for name, _, people in seen.galleries}
    if samples is not None:
        files["samples"] = samples
    for name, data in files.items():
        write_atomic(out / "figures" / f"{name}.png", data)
    photos = prepare.collect(inputs["prepare"], options.show_faces)
    material = page.PageMaterial(drawn, gallery, samples, photos, seen)
    values = page.context(recipe, inputs, findings, material)
    html, markdown = page.pages(values)
    write_atomic(out / "report.md", markdown.encode())
    write_atomic(out / "index.html", html.encode())
    context.say(values["sentence"])


def _samples(inputs: dict[str, Path]) -> bytes | None:
    """The generator's last sample grid."""
    grids = sorted((inputs["train_gan"] / "snapshots").glob("kimg-*.png")) if "train_gan" in inputs else []
    return grids[-1].read_bytes() if grids else None


def _figures(recipe: dict[str, Any], inputs: dict[str, Path], findings: Findings) -> dict[str, Drawn]:
    """Every figure that there are numbers for, by name."""
    arms, seeds = recipe["arms"], recipe["seeds"]
    drawn = [figures.arms(findings.measures, list(arms), recipe["comparison"]["confidence"])]
    if det := findings.curves.get("det"):
        first = findings.measures[0]
        pairs = next((m for m in findings.measures if m.n_impostor), first)
        drawn.append(figures.det(runs.series(det, "far", "frr"), pairs.n_genuine, pairs.n_impostor))
    if cmc := findings.curves.get("cmc"):
        drawn.append(figures.cmc(runs.series(cmc, "rank", "rate")))
    if "train_gan" in inputs and (lines := sections.read_lines(inputs["train_gan"] / "curve.jsonl")):
        drawn.append(figures.gan(lines))
    folders = {arm: [sections.recognizer(inputs, arm, seed) for seed in seeds] for arm in arms}
    curves = {arm: [sections.read_lines(f / "curve.jsonl") for f in found if f] for arm, found in folders.items()}
    drawn.append(figures.recognizers(curves))
    return {figure.name: figure for figure in drawn}
