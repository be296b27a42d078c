"""report: the page that a person reads, and the same in JSON, Parquet and Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from facegan.core.files import write_atomic
from facegan.recipe.comparison import Report
from facegan.reporting import (
    audit,
    composition,
    controls,
    figures,
    galleries,
    page,
    prepare,
    results,
    runs,
    sections,
    transfer,
)
from facegan.reporting.figures import RenderedFigure
from facegan.reporting.results import Findings
from facegan.runtime.context import Context
from facegan.runtime.devices import threads_of


def run(options: Report, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `index.html`, `report.md`, `results.json`, `results.parquet`, `figures/*.png` and, of a set, `card.json`.

    Reads nothing but its inputs; the same inputs give the same bytes. Raises UserError when the comparison's
    metric was not measured, or the recognizers were not judged on the same images.
    """
    recipe = extra["recipe"]

    def progress(done: int, total: int) -> None:
        context.progress(done, total, "recognizers judged")

    findings = results.measure(recipe, inputs, options.bootstrap, options.seed, progress)
    primary = next(measure for measure in findings.measures if measure.name == recipe["comparison"]["metric"])
    transfers = []
    if transfer.attacks(recipe):
        torch.set_num_threads(threads_of(context.runtime))
        loaded, settings = runs.load_all(recipe, inputs), (options.bootstrap, options.seed, options.show_faces)
        transfers = transfer.collect(recipe, inputs, loaded, *settings)
    licenses = {i["arm"]: i["licenses"] for i in sections.licences(recipe, inputs)}
    results.write(out, recipe, findings, licenses, controls.best(recipe, primary), [found.table for found in transfers])
    gallery = None
    if "synthesize" in inputs:
        n_people, faces_per_row = options.identities_shown if options.show_faces else 0, options.faces_per_identity
        gallery = galleries.collect(inputs["prepare"], inputs["synthesize"], n_people, faces_per_row)
    audited = None
    if "audit" in inputs:
        faces_per_row = options.faces_per_identity if options.show_faces else 0
        audited = audit.collect(inputs["prepare"], inputs["synthesize"], inputs["audit"], faces_per_row)
    compositions = composition.collect(recipe, inputs)
    if "audit" in inputs:
        card = audit.set_card(inputs["audit"], compositions, options.show_faces)
        write_atomic(out / "card.json", json.dumps(card, indent=1, allow_nan=False).encode())
    samples = _samples(inputs) if options.show_faces else None
    rendered_figures = _figures(recipe, inputs, findings)
    pngs = {name: figure.png for name, figure in rendered_figures.items()}
    if gallery is not None:
        sheets = {"faces-existing": gallery.existing, "faces-new": gallery.new}
        pngs |= {name: galleries.sheet(people) for name, people in sheets.items() if people}
        if gallery.first:
            pngs["faces-first"] = galleries.first_grid(gallery.first)
    shown_controls = (
        controls.galleries(recipe, inputs, options.identities_shown, options.faces_per_identity)
        if options.show_faces
        else []
    )
    pngs |= {f"faces-control-{item['arm']}": galleries.sheet(item["people"]) for item in shown_controls}
    if audited is not None:
        pngs |= {name: galleries.sheet(audit.side_by_side(people)) for name, _, people in audited.galleries}
    if samples is not None:
        pngs["samples"] = samples
    shown_transfers = transfer.as_rows(transfers)
    pngs |= {item["name"]: item["picture"] for item in shown_transfers if item["picture"]}
    for name, data in pngs.items():
        write_atomic(out / "figures" / f"{name}.png", data)
    prepared = prepare.collect(inputs["prepare"], options.show_faces)
    material = page.PageMaterial(
        rendered_figures, gallery, samples, prepared, audited, shown_controls, shown_transfers, compositions
    )
    values = page.context(recipe, inputs, findings, material)
    html, markdown = page.pages(values)
    write_atomic(out / "report.md", markdown.encode())
    write_atomic(out / "index.html", html.encode())
    context.say(values["sentence"])


def _samples(inputs: dict[str, Path]) -> bytes | None:
    """The generator's last sample grid."""
    grids = sorted((inputs["train_gan"] / "snapshots").glob("kimg-*.png")) if "train_gan" in inputs else []
    return grids[-1].read_bytes() if grids else None


def _figures(recipe: dict[str, Any], inputs: dict[str, Path], findings: Findings) -> dict[str, RenderedFigure]:
    """Every figure that there are numbers for, by name."""
    arms, seeds = recipe["arms"], recipe["seeds"]
    confidence = recipe["comparison"]["confidence"]
    own = figures.own_figures(findings.measures)
    apart = {measure.name for measures in own.values() for measure in measures}
    together = [measure for measure in findings.measures if measure.name not in apart] or list(findings.measures)
    rendered = [figures.arms(together, list(arms), confidence)]
    rendered += [draw(measures, list(arms), label, confidence) for (draw, label), measures in own.items()]
    baselines = list(findings.measures[0].baselines)
    if det := findings.curves.get("det"):
        pairs = next((m for m in findings.measures if m.n_impostor), findings.measures[0])
        rendered.append(figures.det(runs.series(det, "far", "frr"), pairs.n_genuine, pairs.n_impostor, baselines))
    if cmc := findings.curves.get("cmc"):
        rendered.append(figures.cmc(runs.series(cmc, "rank", "rate"), baselines))
    if "train_gan" in inputs and (lines := sections.read_lines(inputs["train_gan"] / "curve.jsonl")):
        rendered.append(figures.gan(lines))
    folders = {arm: [sections.recognizer(inputs, arm, seed) for seed in seeds] for arm in arms}
    curves = {
        arm: [sections.read_lines(path / "curve.jsonl") for path in paths if path] for arm, paths in folders.items()
    }
    rendered.append(figures.recognizers(curves))
    return {figure.name: figure for figure in rendered}
