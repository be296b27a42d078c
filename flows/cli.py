"""The `facegan` command. Everything heavy is imported where it is needed: help and plan import no torch."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from facegan import __version__
from facegan.errors import ConfigError, Remote, UserError

if TYPE_CHECKING:
    from facegan.config import Recipe
    from facegan.graph import Node
    from flows.answer import Finished

main = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Would synthetic identities help my face recognizer, and can I believe the answer?\n\n"
    "`facegan run` goes from faces to a report with a verdict. After a change or an interruption give "
    "the same command again: what is done stays done.",
    epilog="Exit status: 0 done, 1 the run failed, 2 bad usage or config.",
)

RecipeArg = Annotated[str, typer.Argument(metavar="[RECIPE | FILE.yaml]", help="a recipe's name or a file")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=YAML", help="change an option: train_gan.gan.kind=dcgan (repeatable)"),
]
UntilOpt = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="the last stage to run")]
WorkdirOpt = Annotated[Path, typer.Option("--workdir", metavar="DIR", help="holds data/store and reports")]
KnownOpt = Annotated[
    Path, typer.Option("--workdir", metavar="DIR", help="notes --out and knows who was erased: see forget")
]
JsonOpt = Annotated[str | None, typer.Option("--json", metavar="FILE", help="the answer as JSON; - is standard output")]
ModelOpt = Annotated[str | None, typer.Option("--model", metavar="VERSION", help="of `facegan models`; the current")]
AlignOpt = Annotated[
    bool | None, typer.Option("--align/--no-align", help="find and align the face; as in training if not given")
]
LogOpt = Annotated[bool, typer.Option("--log-json", help="one JSON object a line on standard error, for machines")]
Command = TypeVar("Command", bound=Callable[..., None])


class Terminated(BaseException):
    """SIGTERM, as an exception: everything that was started is ended on the way out."""


def said(command: Command) -> Command:
    """A command whose errors are said in words; only what nobody foresaw shows a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        def tell(text: str) -> None:
            if kwargs.get("log_json"):
                from flows import log

                log.line(text, "error")
            else:
                typer.echo(f"facegan: {text}", err=True)

        try:
            command(*args, **kwargs)
        except typer.Exit:  # an exit status, nothing to be said
            raise
        except UserError as error:
            tell(str(error))
            raise typer.Exit(error.exit_code) from None
        except (KeyboardInterrupt, Terminated) as error:
            tell("stopped; the same command goes on from the last checkpoint")
            raise typer.Exit(143 if isinstance(error, Terminated) else 130) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                fix = "free some space, then give the same command again: it goes on from the last checkpoint"
                tell(f"cannot write {error.filename or 'a file'}: {error.strerror}\n  -> {fix}")
                raise typer.Exit(1) from None
            text = str(error.__cause__) if isinstance(error.__cause__, Remote) else traceback.format_exc()
            tell(f"this is a bug; please report it with what follows\n{text}")
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


@main.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="show the version and exit")] = False,
) -> None:
    if version:
        typer.echo(f"facegan {__version__}")
        raise typer.Exit


@main.command()
@said
def run(
    recipe: RecipeArg = "orl-quick",
    sets: SetOpt = None,
    until: UntilOpt = None,
    workdir: WorkdirOpt = Path("."),
    json: JsonOpt = None,
    log_json: LogOpt = False,
) -> None:
    """Run a recipe: GAN, synthetic identities, recognizers of each arm, benchmark, report with a verdict."""
    _run(recipe, sets, until, workdir, json, log_json)


@main.command()
@said
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the stage to end with")],
    recipe: RecipeArg = "orl-quick",
    sets: SetOpt = None,
    workdir: WorkdirOpt = Path("."),
    json: JsonOpt = None,
    log_json: LogOpt = False,
) -> None:
    """Run up to and including one stage, from what is cached."""
    _run(recipe, sets, name, workdir, json, log_json)


@main.command()
@said
def up(
    workdir: WorkdirOpt = Path("."),
    host: Annotated[str, typer.Option(metavar="HOST", help="anything but loopback asks for a password")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: any that is free")] = 4200,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="FACEGAN_DATABASE", help="postgresql://...; else SQLite in DIR"),
    ] = None,
    auth: Annotated[bool, typer.Option("--auth", help="ask for a password on loopback too")] = False,
    runs: Annotated[int, typer.Option(metavar="N", min=1, help="flow runs that work side by side")] = 1,
    log_json: LogOpt = False,
) -> None:
    """Start all that scheduled runs need on this machine: server, page, worker, deployments. Ctrl-C stops it."""
    from flows.log import JsonLog
    from flows.screen import Screen
    from flows.up import Options, hide_password, up

    hide_password(database)
    options = Options(workdir.expanduser().absolute(), host, port, database, auth, runs, log_json)
    up(options, JsonLog() if log_json else Screen())


@main.command()
@said
def deploy(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE | FILE.yaml]", help="none: those that come with facegan, afresh")
    ] = None,
    sets: SetOpt = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="else the recipe's name")] = None,
    cron: Annotated[str | None, typer.Option(metavar="CRON", help="when it starts, in UTC: '0 2 * * *'")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="(repeatable)")] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="one that falls due during another is dropped, else waits")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="start it when its source has changed")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="end each run with `facegan promote`")] = False,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Offer a recipe on the server of `facegan up` (or of PREFECT_API_URL): by form, command and schedule."""
    from flows.deploying import deploy

    workdir = workdir.expanduser().absolute()
    for line in deploy(recipe, sets or [], name, cron, tags or [], drop, watch, promote, workdir):
        typer.echo(line)


@main.command()
@said
def plan(
    recipe: RecipeArg = "orl-quick",
    sets: SetOpt = None,
    until: UntilOpt = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Show what is cached, stale or to run, and why; time and disk to expect. Runs nothing."""
    from facegan.graph import store_at
    from flows import tables
    from flows.planning import plan

    loaded, nodes, workdir = _load(recipe, sets, until, workdir)
    tables.show_plan(loaded, plan(nodes, store_at(workdir, loaded.runtime)), workdir)


@main.command("list")
@said
def list_(
    family: Annotated[str | None, typer.Argument(metavar="[FAMILY]", help="one family only")] = None,
    filter_: Annotated[str, typer.Argument(metavar="[FILTER]", help="of backbones: resnet*")] = "*",
) -> None:
    """List recipes, sources, detectors, gans, identities, judges, heads, backbones, benchmarks."""
    from flows import listing

    for line in listing.lines(family, filter_):
        typer.echo(line)


@main.command()
@said
def regenerate(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="a stage's folder or its manifest/")],
    image_id: Annotated[str, typer.Argument(metavar="IMAGE_ID", help="sha256 of a synthetic row's image")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="where the image goes")],
    workdir: Annotated[
        Path | None, typer.Option("--workdir", metavar="DIR", help="where its generator is stored")
    ] = None,
) -> None:
    """Make one synthetic image again, bit for bit, from its row of a manifest."""
    from facegan.remote.store import around
    from facegan.store import Store
    from flows.answer import store_of

    if not manifest.exists():
        raise ConfigError(f"there is no manifest '{manifest}'", fix="give a stage's folder or its manifest/ folder")
    above = (p for p in manifest.absolute().parents if p.name == "store" and p.parent.name == "data")
    local = store_of(workdir) if workdir else Store(next(above, Path("data/store")))
    store = around(manifest) or local
    from facegan.synthesis import regenerate

    same = regenerate(manifest, image_id, out, store)
    also = "the bytes that are stored" if same else "not the stored bytes: other machine, threads or versions"
    typer.echo(f"{out}: {also}")


@main.command("import")
@said
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="a path, or KIND:PATH with a kind of `facegan list sources`"),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the manifest goes")],
    dataset: Annotated[str | None, typer.Option("--dataset", help="first part of identity names")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="kept with every row that names no other")] = None,
    identity_column: Annotated[str | None, typer.Option("--identity-column", help="holds the person")] = None,
    image_column: Annotated[str | None, typer.Option("--image-column", help="holds the image or its path")] = None,
    images: Annotated[str | None, typer.Option("--images", metavar="DIR", help="where paths in a table start")] = None,
    workdir: KnownOpt = Path("."),
) -> None:
    """Bring faces of any form into one manifest; no JPEG or PNG is encoded anew."""
    from flows.transfer import bring_in

    options = {"dataset": dataset, "license": license_, "identity_column": identity_column}
    for line in bring_in(sources, out, {**options, "image_column": image_column, "images": images}, workdir):
        typer.echo(line)


@main.command()
@said
def fetch(
    name: Annotated[str, typer.Argument(metavar="lfw", help="Labeled Faces in the Wild, 13,233 photos")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where its files go: needs 500 MB")],
) -> None:
    """Download LFW with its checksums, by scikit-learn's fetcher; no other command downloads faces."""
    from flows.fetching import fetch

    for line in fetch(name, out):
        typer.echo(line)


@main.command()
@said
def export(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="an import's or a stage's folder")],
    format_: Annotated[str, typer.Option("--format", help="folder, webdataset or parquet")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the files go")],
    workdir: KnownOpt = Path("."),
) -> None:
    """Write a manifest's images for other tools; the bytes are the stored ones."""
    from flows.transfer import take_out

    for line in take_out(manifest, format_, out, workdir):
        typer.echo(line)


@main.command()
@said
def align(
    photos: Annotated[Path, typer.Argument(metavar="FOLDER_OR_ZIP", help="one directory for each person")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the faces go: empty or not there yet")],
    size_px: Annotated[int, typer.Option("--size", metavar="PX", min=16, max=512, help="side of a face")] = 112,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=YAML", help="of prepare.align: faces=skip, detector.kind=... (repeatable)"
        ),
    ] = None,
) -> None:
    """Find, align and crop the faces in photos: a folder of people, a contact sheet, what was left out."""
    from flows.looking import align_photos

    for line in align_photos(photos, out, size_px, sets or []):
        typer.echo(line)


@main.command()
@said
def inspect(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="a stage's folder or its manifest/")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="a page and a contact sheet go there")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="check hashes, splits and labels; exit 1 on faults")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """Show what a manifest holds: people, sizes, duplicates, quality, licences, quarantine."""
    from flows.looking import inspect_manifest

    lines, sound = inspect_manifest(manifest, out, validate, json)
    for line in lines:
        typer.echo(line)
    if not sound:
        raise typer.Exit(1)


@main.command()
@said
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
    size_px: Annotated[int | None, typer.Option(metavar="PX", min=16, max=1024, help="side of the input")] = None,
    mean: Annotated[float | None, typer.Option(help="the input is (x - mean) / scale, x in 0 .. 255")] = None,
    scale: Annotated[float | None, typer.Option(help="see --mean")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="the input is blue, green, red")] = False,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="of timm:NAME, instead of a download")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
) -> None:
    """Find people who may stand under two names, by looks and spelling, with the false alarms to expect."""
    from facegan.external import Asked
    from flows import overlapping

    options = overlapping.Options(most, false_alarms, decided, batch_size, device)
    asked = Asked(size_px, mean, scale, bgr, weights)
    for line in overlapping.run(manifest, embedder, asked, options, out):
        typer.echo(line)


@main.command()
@said
def benchmark(
    embedder: Annotated[
        str,
        typer.Option(
            metavar="EMBEDDER", help="FILE.onnx, timm:NAME, package.module:callable, dlib, or a recognizer's folder"
        ),
    ],
    data: Annotated[str, typer.Option(metavar="DATA", help="a manifest, a folder of people's folders, or a zip")],
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a list of pairs: LFW's text, .csv, .parquet")
    ] = None,
    benchmarks: Annotated[
        list[str] | None, typer.Option("--benchmark", metavar="KIND", help="or {kind: KIND, ...} (repeatable)")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="of a manifest: train, val or test alone")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="add the embedding of the mirror image")] = False,
    templates: Annotated[bool, typer.Option("--templates", help="mean over each identity and group")] = False,
    size_px: Annotated[int | None, typer.Option(metavar="PX", min=16, max=1024, help="side of the input")] = None,
    mean: Annotated[float | None, typer.Option(help="the input is (x - mean) / scale, x in 0 .. 255")] = None,
    scale: Annotated[float | None, typer.Option(help="see --mean")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="the input is blue, green, red")] = False,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="of timm:NAME, instead of a download")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    json: JsonOpt = None,
) -> None:
    """Score any embedder on faces, by the code that scores the recognizers of a run."""
    from facegan.external import Asked
    from flows import answer, benchmarking

    if json is not None:
        answer.check_writable(json)
    asked = Asked(size_px, mean, scale, bgr, weights)
    options = benchmarking.Options(pairs, tuple(benchmarks or ()), split, flip, templates, batch_size, device)
    benchmarking.run(embedder, data, asked, options, json)


@main.command()
@said
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
    from facegan.recipe import load
    from flows import answer, models

    if json is not None:
        answer.check_writable(json)
    if not models.promote(load(recipe, sets or []), workdir.expanduser().absolute(), arm, force, json):
        raise typer.Exit(1)


@main.command("models")
@said
def models_(workdir: WorkdirOpt = Path("."), json: JsonOpt = None) -> None:
    """List the promoted and refused models: state, date, figures, why."""
    from flows import models

    models.show(workdir.expanduser().absolute(), json)


@main.command()
@said
def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="the current one before this, if none")
    ] = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Make an earlier model current again."""
    from flows import models

    for line in models.rollback(workdir.expanduser().absolute(), version):
        typer.echo(line)


@main.command()
@said
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
    from flows import using

    failed = using.embed(images, out, using.load(workdir.expanduser().absolute(), model, align))
    for line in failed:
        typer.echo(f"facegan: no embedding of {line}", err=True)
    if failed:
        raise typer.Exit(1)


@main.command()
@said
def verify(
    one: Annotated[Path, typer.Argument(metavar="A", help="a photo")],
    other: Annotated[Path, typer.Argument(metavar="B", help="another photo")],
    far: Annotated[float, typer.Option(min=0, max=1, help="share of pairs of different people that may pass")] = 0.01,
    model: ModelOpt = None,
    align: AlignOpt = None,
    workdir: WorkdirOpt = Path("."),
    json: JsonOpt = None,
) -> None:
    """Whether two photos show one person, by the current model and its threshold."""
    from flows import answer, tables, using

    if json is not None:
        answer.check_writable(json)
    lines, told = using.verify(one, other, far, using.load(workdir.expanduser().absolute(), model, align))
    for line in lines if json != "-" else []:
        typer.echo(line)
    tables.write_json(json, told)


@main.command()
@said
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
    from flows.erasing import forget_person

    for line in forget_person(identity, workdir.expanduser().absolute(), also or [], yes):
        typer.echo(line)


@main.command()
@said
def gc(
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="reports of each recipe that stay")] = 3,
    days: Annotated[
        float, typer.Option("--days", metavar="D", min=0, help="what belongs to no report stays so many days")
    ] = 7,
    workdir: WorkdirOpt = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it, only show")] = False,
) -> None:
    """Free the disk of what neither the last reports nor a promoted model was made from."""
    from flows.collecting import collect_garbage

    for line in collect_garbage(workdir.expanduser().absolute(), keep, days, yes):
        typer.echo(line)


def _load(recipe: str, sets: list[str] | None, until: str | None, workdir: Path) -> tuple[Recipe, list[Node], Path]:
    from facegan import graph
    from facegan.forgotten import Forgotten
    from facegan.recipe import load

    workdir = workdir.expanduser().absolute()
    loaded = load(recipe, sets or [])
    return loaded, graph.planned(loaded, Forgotten.read(workdir), until), workdir


def _run(
    name: str, sets: list[str] | None, until: str | None, workdir: Path, json_to: str | None, log_json: bool
) -> None:
    from facegan.forgotten import Forgotten
    from flows import address, answer, log, tables
    from flows.planning import survey
    from flows.room import check_room

    started = time.monotonic()
    known = Forgotten.read(workdir.expanduser())
    recipe, nodes, workdir = _load(name, sets, until, workdir)
    if json_to is not None:
        answer.check_writable(json_to)
    store = answer.open_store(workdir, recipe.runtime)

    def say(text: str) -> None:
        if log_json:
            log.line(text)
        else:
            typer.echo(f"facegan: {text}", err=True)

    with store.in_use(say):
        if Forgotten.read(workdir) != known:  # somebody was forgotten meanwhile
            recipe, nodes, workdir = _load(name, sets, until, workdir)
        if warning := check_room(nodes, store, recipe.runtime):
            say(warning)
        hits = [artifact for _, artifact, _ in survey(nodes, store) if artifact is not None]
        recorded = os.environ.get("PREFECT_API_URL") or address.of_up(workdir)
        if len(hits) == len(nodes) and not recorded:
            done = answer.finish(recipe, nodes, hits, workdir)
        else:
            done = _flow(recipe, workdir, until, len(nodes), len(hits), log_json)
    if not (log_json and json_to == "-"):  # else nothing is left to show it on
        tables.show_run(done.answer, done.page, time.monotonic() - started, to_stderr=json_to == "-")
    tables.write_json(json_to, done.answer)


def _flow(recipe: Recipe, workdir: Path, until: str | None, count: int, hits: int, log_json: bool) -> Finished:
    """Run the flow, on a Prefect server that is up or a temporary one, with something to see meanwhile."""
    from facegan.workers import start_server
    from flows.log import JsonLog
    from flows.scratch import temporary_files
    from flows.screen import Screen
    from flows.server import prefect_server

    before = signal.signal(signal.SIGTERM, _terminate)
    for name, folder in {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}.items():
        os.environ.setdefault(name, str(workdir / "data" / folder))  # nothing is written to HOME
    with temporary_files(workdir), JsonLog() if log_json else Screen() as screen:
        cached = f", {hits} of them cached" if hits else ""
        screen.line(f"recipe {recipe.name} in {workdir}: {count} stages{cached}; starting takes 10 to 30 s")
        if hits < count:
            start_server(recipe.runtime)  # imports torch in the background while Prefect starts
        with prefect_server(workdir):
            from prefect.exceptions import CancelledRun

            from flows.pipeline import pipeline
            from flows.steps import WATCHER

            token = WATCHER.set(screen)
            try:
                return cast("Finished", pipeline(recipe, str(workdir), until))  # a State only where it promotes
            except CancelledRun:
                fix = "give the same command again: it goes on from the last checkpoint"
                raise UserError("the run was cancelled in Prefect", fix=fix) from None
            finally:
                WATCHER.reset(token)
                signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
