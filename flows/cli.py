"""The `facegan` command. Everything heavy is imported where it is needed: help and plan import no torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from facegan.errors import ConfigError, UserError
from flows.command import JsonOpt, LogOpt, RecipeArg, SetOpt, Terminated, UntilOpt, WorkdirOpt, main, said

if TYPE_CHECKING:
    from facegan.config import Recipe
    from facegan.graph import Node
    from flows.answer import Finished


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
def plan(
    recipe: RecipeArg = "orl-quick",
    sets: SetOpt = None,
    until: UntilOpt = None,
    workdir: WorkdirOpt = Path("."),
) -> None:
    """Show what is cached, stale or to run, and why; time and disk to expect; what is not installed. Runs nothing."""
    from facegan import ready
    from facegan.graph import store_at
    from flows import tables
    from flows.planning import plan

    loaded, nodes, workdir = _load(recipe, sets, until, workdir)
    plans = plan(nodes, store_at(workdir, loaded.runtime))
    tables.show_plan(loaded, plans, workdir)
    ready.check([one.item for one in plans if one.state != "cached"], loaded.runtime)


@main.command("list")
@said
def list_(
    family: Annotated[str | None, typer.Argument(metavar="[FAMILY]", help="one family only")] = None,
    filter_: Annotated[str, typer.Argument(metavar="[FILTER]", help="of backbones: resnet*")] = "*",
) -> None:
    """List recipes, backbones and the members of each family: sources, gans, identities, heads, judges and others."""
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
    from facegan import graph, ready
    from facegan.forgotten import Forgotten
    from flows import address, answer, log, tables
    from flows.planning import survey
    from flows.room import check_room
    from flows.scratch import tidy

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
        unmade = graph.unmade(nodes, store)
        ready.check(unmade, recipe.runtime)
        if warning := check_room(unmade, store, recipe.runtime):
            say(warning)
        hits = [artifact for _, artifact, _ in survey(nodes, store) if artifact is not None]
        recorded = os.environ.get("PREFECT_API_URL") or address.of_up(workdir)
        if len(hits) == len(nodes) and not recorded:
            tidy(workdir)  # a run would: the one before may have been killed at its very end
            done = answer.finish(recipe, nodes, hits, workdir)
        else:
            done = _flow(recipe, workdir, until, len(nodes), len(hits), log_json)
    if not (log_json and json_to == "-"):  # else nothing is left to show it on
        tables.show_run(done.answer, done.page, time.monotonic() - started, to_stderr=json_to == "-")
    tables.write_json(json_to, done.answer)


def _flow(recipe: Recipe, workdir: Path, until: str | None, count: int, hits: int, log_json: bool) -> Finished:
    """Run the flow, on a Prefect server that is up or a temporary one, with something to see meanwhile."""
    from facegan.workers import start_forkserver
    from flows.log import JsonLog
    from flows.scratch import temporary_files
    from flows.screen import Screen
    from flows.server import prefect_server, server_error

    before = signal.signal(signal.SIGTERM, _terminate)
    with temporary_files(workdir), JsonLog() if log_json else Screen() as screen:
        cached = f", {hits} of them cached" if hits else ""
        screen.line(f"recipe {recipe.name} in {workdir}: {count} stages{cached}; starting takes 10 to 30 s")
        if hits < count:
            start_forkserver(recipe.runtime)  # imports torch in the background while Prefect starts
        with prefect_server(workdir):
            from httpx import HTTPError
            from prefect.exceptions import CancelledRun

            from flows.pipeline import pipeline
            from flows.steps import WATCHER

            token = WATCHER.set(screen)
            try:
                return cast("Finished", pipeline(recipe, str(workdir), until))  # a State only where it promotes
            except CancelledRun:
                fix = "give the same command again: it goes on from the last checkpoint"
                raise UserError("the run was cancelled in Prefect", fix=fix) from None
            except HTTPError as error:  # a full disk stops the server too
                raise server_error(workdir, error) from None
            finally:
                WATCHER.reset(token)
                signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise Terminated


from flows.commands import faces, machine, models  # noqa: E402, F401 # below, so that help lists them below

if __name__ == "__main__":
    sys.exit(main())
