"""Commands of faces: import, fetch, export, align, inspect, overlap, forget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegan.cli.app import (
    BatchOpt,
    BgrOpt,
    DatasetOpt,
    DeviceOpt,
    IdentityColumnOpt,
    ImageColumnOpt,
    ImagesOpt,
    InputMeanOpt,
    InputScaleOpt,
    InputSideOpt,
    KnownOpt,
    LevelOpt,
    WeightsOpt,
    WorkdirOpt,
    main,
    reports_errors,
)
from facegan.core.files import user_path


@main.command("import")
@reports_errors
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="a path, or KIND:PATH with a kind of `facegan list sources`"),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the manifest goes")],
    dataset: DatasetOpt = None,
    license_: Annotated[str | None, typer.Option("--license", help="kept with every row that names no other")] = None,
    identity_column: IdentityColumnOpt = None,
    image_column: ImageColumnOpt = None,
    images: ImagesOpt = None,
    level: LevelOpt = None,
    workdir: KnownOpt = Path("."),
) -> None:
    """Bring faces of any form into one manifest; no JPEG or PNG is encoded anew."""
    from facegan.cli.commands.import_export import bring_in

    columns = {"identity_column": identity_column, "image_column": image_column, "images": images, "level": level}
    for line in bring_in(sources, out, {"dataset": dataset, "license": license_, **columns}, workdir):
        typer.echo(line)


@main.command()
@reports_errors
def fetch(
    name: Annotated[str, typer.Argument(metavar="lfw", help="Labeled Faces in the Wild, 13,233 photos")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where its files go: needs 500 MB")],
) -> None:
    """Download LFW with its checksums, by scikit-learn's fetcher; no other command downloads faces."""
    from facegan.cli.commands.fetch import fetch

    for line in fetch(name, out):
        typer.echo(line)


@main.command()
@reports_errors
def export(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="an import's or a stage's folder")],
    format_: Annotated[str, typer.Option("--format", help="folder, webdataset or parquet")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the files go")],
    derived: Annotated[
        bool, typer.Option("--derived", help="also controls and augmented photos, made from photos of train people")
    ] = False,
    workdir: KnownOpt = Path("."),
) -> None:
    """Write a manifest's images for other tools; the bytes are the stored ones."""
    from facegan.cli.commands.import_export import take_out

    for line in take_out(manifest, format_, out, workdir, derived=derived):
        typer.echo(line)


@main.command()
@reports_errors
def align(
    photos: Annotated[Path, typer.Argument(metavar="FOLDER_OR_ZIP", help="one directory for each person")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the faces go: empty or not there yet")],
    size_px: Annotated[int, typer.Option("--size", metavar="PX", min=16, max=512, help="side of a face")] = 112,
    level: LevelOpt = None,
    identity_column: IdentityColumnOpt = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=YAML", help="of prepare.align: faces=skip, detector.kind=... (repeatable)"
        ),
    ] = None,
) -> None:
    """Find, align and crop the faces in photos: a folder of people, a contact sheet, what was left out."""
    from facegan.cli.commands.inspect import align_photos

    for line in align_photos(photos, out, size_px, sets or [], level, identity_column):
        typer.echo(line)


@main.command()
@reports_errors
def restore(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="aligned faces like those of the run: files or folders")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the PNGs go: empty or not there yet")],
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="FINGERPRINT", help="the stage derive that learned it; the last by default"),
    ] = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Restore poor photos by the network of an arm {kind: restore}: a guess at a face, no evidence of anything."""
    from facegan.cli.commands.restore import restore

    for line in restore(images, out, run, user_path(workdir).absolute()):
        typer.echo(line)


@main.command()
@reports_errors
def inspect(
    faces: Annotated[
        str,
        typer.Argument(metavar="MANIFEST | SOURCE", help="a stage's folder or its manifest/, or a source as in import"),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="a page and a contact sheet go there")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="check hashes, splits and labels; exit 1 on faults")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
    dataset: DatasetOpt = None,
    identity_column: IdentityColumnOpt = None,
    image_column: ImageColumnOpt = None,
    images: ImagesOpt = None,
    level: LevelOpt = None,
) -> None:
    """Show what a manifest holds, or whom a source would be taken for: no photo is read, nothing is written."""
    from facegan.cli.commands.inspect import inspect_faces

    columns = {"identity_column": identity_column, "image_column": image_column, "images": images, "level": level}
    lines, sound = inspect_faces(faces, out, validate, json, {"dataset": dataset, **columns})
    for line in lines:
        typer.echo(line)
    if not sound:
        raise typer.Exit(1)


@main.command()
@reports_errors
def overlap(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="an import's or a stage's folder")],
    embedder: Annotated[
        str,
        typer.Option(
            metavar="EMBEDDER", help="dlib, FILE.onnx, timm:NAME, package.module:callable, or a recognizer's folder"
        ),
    ] = "dlib",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="a page with both people's photos, and lists, go there")
    ] = None,
    most: Annotated[int, typer.Option(metavar="N", min=1, help="pairs to list, and those spelled alike")] = 50,
    false_alarms: Annotated[
        float, typer.Option(metavar="N", min=0, help="mark where fewer pairs of two people are to be expected")
    ] = 0.1,
    decided: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a recipe whose prepare.same_people ... need no more look")
    ] = None,
    size_px: InputSideOpt = None,
    mean: InputMeanOpt = None,
    scale: InputScaleOpt = None,
    bgr: BgrOpt = False,
    weights: WeightsOpt = None,
    batch_size: BatchOpt = 64,
    device: DeviceOpt = "auto",
) -> None:
    """Find people who may stand under two names, by looks and spelling, with the false alarms to expect."""
    from facegan.cli.commands import overlap
    from facegan.evaluation.embedders import InputOptions

    options = overlap.OverlapArguments(most, false_alarms, decided, batch_size, device)
    input_options = InputOptions(size_px, mean, scale, bgr, weights)
    for line in overlap.run(manifest, embedder, input_options, options, out):
        typer.echo(line)


@main.command()
@reports_errors
def forget(
    identity: Annotated[str, typer.Argument(metavar="IDENTITY", help="dataset/name, as in a manifest")],
    workdir: WorkdirOpt = Path("."),
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="PATH", help="an import or export made with another --workdir (repeatable)"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="erase; without it, only show")] = False,
) -> None:
    """Erase a person: photos, and all synthetic faces, checkpoints and reports that descend from them."""
    from facegan.cli.commands.forget import forget_person

    for line in forget_person(identity, user_path(workdir).absolute(), also or [], yes):
        typer.echo(line)
