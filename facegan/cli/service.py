"""Commands of what keeps running, and of its disk: up, deploy, gc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegan.cli.app import LogOpt, SetOpt, WorkdirOpt, main, reports_errors
from facegan.core.files import user_path


@main.command()
@reports_errors
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
    from facegan.console.json_log import JsonLog
    from facegan.console.screen import Screen
    from flows.service.supervisor import ServiceOptions, hide_password, up

    hide_password(database)
    options = ServiceOptions(user_path(workdir).absolute(), host, port, database, auth, runs, log_json)
    up(options, JsonLog() if log_json else Screen())


@main.command()
@reports_errors
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
    from flows.deploy import deploy

    workdir = user_path(workdir).absolute()
    for line in deploy(recipe, sets or [], name, cron, tags or [], drop, watch, promote, workdir):
        typer.echo(line)


@main.command()
@reports_errors
def gc(
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="reports of each recipe that stay")] = 3,
    days: Annotated[
        float, typer.Option("--days", metavar="D", min=0, help="what belongs to no report stays so many days")
    ] = 7,
    workdir: WorkdirOpt = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it, only show")] = False,
) -> None:
    """Free the disk of what neither the last reports nor a promoted model was made from."""
    from facegan.cli.commands.gc import collect_garbage

    for line in collect_garbage(user_path(workdir).absolute(), keep, days, yes):
        typer.echo(line)
