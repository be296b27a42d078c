"""The `facegan` command. Everything heavy is imported where it is needed: help and plan import no torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facegan.cli.app import JsonOpt, LogOpt, RecipeArg, SetOpt, Terminated, UntilOpt, WorkdirOpt, main, reports_errors
from facegan.core.errors import ConfigError
from facegan.core.files import user_path

if TYPE_CHECKING:
    from facegan.pipeline.publish import Finished
    from facegan.pipeline.run import PlannedRun


@main.command()
@reports_errors
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
@reports_errors
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
@reports_errors
def plan(
    recipe: RecipeArg = "orl-quick",
    sets: SetOpt = None,
    until: UntilOpt = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Show what is cached, stale or to run, and why; time and disk to expect; what is not installed. Runs nothing."""
    from facegan.console import tables
    from facegan.pipeline import preflight
    from facegan.pipeline.plan import plan
    from facegan.pipeline.run import nodes_of
    from facegan.recipe.load import load
    from facegan.store.workdir import store_at

    loaded, workdir = load(recipe, sets or []), user_path(workdir).absolute()
    plans = plan(nodes_of(loaded, workdir, until), store_at(workdir, loaded.runtime))
    tables.show_plan(loaded, plans, workdir)
    preflight.check([entry.item for entry in plans if entry.state != "cached"], loaded.runtime)


@main.command("list")
@reports_errors
def list_(
    family: Annotated[str | None, typer.Argument(metavar="[FAMILY]", help="one family only")] = None,
    filter_: Annotated[str, typer.Argument(metavar="[FILTER]", help="of backbones: resnet*")] = "*",
) -> None:
    """List recipes, backbones and the members of each family: sources, gans, identities, heads, judges and others."""
    from facegan.cli.commands import list as listing

    for line in listing.lines(family, filter_):
        typer.echo(line)


@main.command()
@reports_errors
def regenerate(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="a stage's folder or its manifest/")],
    image_id: Annotated[str, typer.Argument(metavar="IMAGE_ID", help="sha256 of a synthetic row's image")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="where the image goes")],
    workdir: Annotated[
        Path | None, typer.Option("--workdir", metavar="DIR", help="where its generator is stored")
    ] = None,
) -> None:
    """Make one synthetic image again, bit for bit, from its row of a manifest."""
    from facegan.store.local import Store
    from facegan.store.object_storage import store_of_cached
    from facegan.store.workdir import store_of

    if not manifest.exists():
        raise ConfigError(f"there is no manifest '{manifest}'", fix="give a stage's folder or its manifest/ folder")
    stores = (p for p in manifest.absolute().parents if p.name == "store" and p.parent.name == "data")
    local = store_of(workdir) if workdir else Store(next(stores, Path("data/store")))
    store = store_of_cached(manifest) or local
    from facegan.generation.draw import regenerate

    same = regenerate(manifest, image_id, out, store)
    also = "the bytes that are stored" if same else "not the stored bytes: other machine, threads or versions"
    typer.echo(f"{out}: {also}")


def _run(
    name: str, sets: list[str] | None, until: str | None, workdir: Path, json_to: str | None, log_json: bool
) -> None:
    from facegan.cli.app import check_writable
    from facegan.console import json_log, tables
    from facegan.core.scratch import tidy
    from facegan.pipeline import publish
    from facegan.pipeline.plan import survey
    from facegan.pipeline.run import planned_run
    from facegan.recipe.load import load
    from flows.service import address

    started = time.monotonic()
    recipe = load(name, sets or [])
    if json_to is not None:
        check_writable(json_to)

    def say(text: str) -> None:
        if log_json:
            json_log.line(text)
        else:
            typer.echo(f"facegan: {text}", err=True)

    with planned_run(recipe, workdir, until, say) as planned:
        if planned.warning:
            say(planned.warning)
        hits = [artifact for _, artifact, _ in survey(planned.nodes, planned.store) if artifact is not None]
        server = os.environ.get("PREFECT_API_URL") or address.of_up(planned.workdir)
        if len(hits) == len(planned.nodes) and not server:
            tidy(planned.workdir)  # a run would: the one before may have been killed at its very end
            done = publish.finish(planned.recipe, planned.nodes, hits, planned.workdir)
        else:
            done = _flow(planned, len(hits), log_json)
    if not (log_json and json_to == "-"):  # else nothing is left to show it on
        tables.show_run(done.answer, done.page, time.monotonic() - started, to_stderr=json_to == "-")
    tables.write_json(json_to, done.answer)


def _flow(planned: PlannedRun, hits: int, log_json: bool) -> Finished:
    """Run the flow, with a screen or log of its progress."""
    from facegan.console.json_log import JsonLog
    from facegan.console.screen import Screen
    from facegan.core.scratch import temporary_files
    from facegan.runtime.processes import start_forkserver
    from flows import in_process

    recipe, count = planned.recipe, len(planned.nodes)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with temporary_files(planned.workdir), JsonLog() if log_json else Screen() as screen:
            cached = f", {hits} of them cached" if hits else ""
            screen.line(f"recipe {recipe.name} in {planned.workdir}: {count} stages{cached}; starting takes 10 to 30 s")
            if hits < count:
                start_forkserver(recipe.runtime)  # imports torch in the background while Prefect starts
            return in_process.run(planned, screen)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise Terminated


from facegan.cli import faces, models, service  # noqa: E402, F401 # below, so that help lists them below

if __name__ == "__main__":
    sys.exit(main())
