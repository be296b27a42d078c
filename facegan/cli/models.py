"""Commands of recognizers: benchmark, promote, models, rollback, embed, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegan.cli.app import (
    AlignOpt,
    BatchOpt,
    BgrOpt,
    DeviceOpt,
    IdentityColumnOpt,
    InputMeanOpt,
    InputScaleOpt,
    InputSideOpt,
    JsonOpt,
    LevelOpt,
    ModelOpt,
    RecipeArg,
    SetOpt,
    WeightsOpt,
    WorkdirOpt,
    main,
    reports_errors,
)
from facegan.core.files import user_path


@main.command()
@reports_errors
def benchmark(
    embedders: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder",
            metavar="EMBEDDER",
            help="FILE.onnx, timm:NAME, package.module:callable, dlib, or a recognizer's folder; several are compared "
            "with the first",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="a manifest, a folder of people's folders, or a zip")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a list of pairs: LFW's text, .csv, .parquet")
    ] = None,
    benchmarks: Annotated[
        list[str] | None, typer.Option("--benchmark", metavar="KIND", help="or {kind: KIND, ...} (repeatable)")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="of a manifest: train, val or test alone")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="add the embedding of the mirror image")] = False,
    templates: Annotated[bool, typer.Option("--templates", help="mean over each identity and group")] = False,
    size_px: InputSideOpt = None,
    mean: InputMeanOpt = None,
    scale: InputScaleOpt = None,
    bgr: BgrOpt = False,
    weights: WeightsOpt = None,
    batch_size: BatchOpt = 64,
    device: DeviceOpt = "auto",
    level: LevelOpt = None,
    identity_column: IdentityColumnOpt = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            "--scores", metavar="FILE", help="scores of pairs, bob's or NIST's plain text, as one more (repeatable)"
        ),
    ] = None,
    save_scores: Annotated[
        Path | None, typer.Option("--save-scores", metavar="DIR", help="a file of scores for each embedder")
    ] = None,
    score_form: Annotated[
        str, typer.Option("--score-form", metavar="FORM", help="of those files: bob or nist")
    ] = "bob",
    det: Annotated[Path | None, typer.Option("--det", metavar="FILE", help="the DET curves of all, a PNG")] = None,
    json: JsonOpt = None,
) -> None:
    """Score any embedder on faces, by the code that scores the recognizers of a run; compare several."""
    from facegan.cli import app
    from facegan.cli.commands import benchmark
    from facegan.evaluation.embedders import InputOptions

    if json is not None:
        app.check_writable(json)
    input_options = InputOptions(size_px, mean, scale, bgr, weights)
    protocols = tuple(benchmarks or ())
    source = {"level": level, "identity_column": identity_column}
    options = benchmark.BenchmarkArguments(
        pairs,
        protocols,
        split,
        flip,
        templates,
        batch_size,
        device,
        source,
        tuple(scores or ()),
        save_scores,
        score_form,
        det,
    )
    benchmark.run(embedders or [], data, input_options, options, json)


@main.command()
@reports_errors
def promote(
    recipe: RecipeArg = "orl-quick",
    sets: SetOpt = None,
    arm: Annotated[str | None, typer.Option(metavar="ARM", help="whose recognizer; the comparison's arm")] = None,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="whatever the gates say; the reason is put down")
    ] = None,
    workdir: WorkdirOpt = Path("."),
    json: JsonOpt = None,
) -> None:
    """Judge a finished run's best recognizer against the current model; it takes its place if the gates hold.

    Exit status 1 where it is refused: it is then kept beside, with the reason.
    """
    from facegan.cli import app
    from facegan.cli.commands import promote
    from facegan.recipe.load import load

    if json is not None:
        app.check_writable(json)
    if not promote.promote(load(recipe, sets or []), user_path(workdir).absolute(), arm, force, json):
        raise typer.Exit(1)


@main.command("models")
@reports_errors
def models_(workdir: WorkdirOpt = Path("."), json: JsonOpt = None) -> None:
    """List the promoted and refused models: state, date, figures, why."""
    from facegan.cli.commands import promote

    promote.show(user_path(workdir).absolute(), json)


@main.command()
@reports_errors
def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="the current one before this, if none")
    ] = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Make an earlier model current again."""
    from facegan.cli.commands import promote

    for line in promote.rollback(user_path(workdir).absolute(), version):
        typer.echo(line)


@main.command()
@reports_errors
def embed(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="photos, or folders of them")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help=".npz, .parquet or .csv; CSV on standard output without it")
    ] = None,
    model: ModelOpt = None,
    align: AlignOpt = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Embeddings of photos by the current model, prepared as its training images were.

    Exit status 1 where some photo gives none: the others are written.
    """
    from facegan.cli.commands import embed

    failed = embed.embed(images, out, embed.load(user_path(workdir).absolute(), model, align))
    for line in failed:
        typer.echo(f"facegan: no embedding of {line}", err=True)
    if failed:
        raise typer.Exit(1)


@main.command()
@reports_errors
def verify(
    one: Annotated[Path, typer.Argument(metavar="A", help="a photo")],
    other: Annotated[Path, typer.Argument(metavar="B", help="another photo")],
    far: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="share of pairs of different people that may pass (0.01, or the least that it resolves)"
        ),
    ] = None,
    model: ModelOpt = None,
    align: AlignOpt = None,
    workdir: WorkdirOpt = Path("."),
    json: JsonOpt = None,
) -> None:
    """Whether two photos show one person, by the current model and its threshold."""
    from facegan.cli import app
    from facegan.cli.commands import embed
    from facegan.console import tables

    if json is not None:
        app.check_writable(json)
    lines, answer = embed.verify(one, other, far, embed.load(user_path(workdir).absolute(), model, align))
    for line in lines if json != "-" else []:
        typer.echo(line)
    tables.write_json(json, answer)
