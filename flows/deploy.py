"""`facegan deploy`: recipes offered on a server that is up."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from facegan.core.errors import UserError
from flows.service import address


def deploy(
    recipe: str | None,
    sets: list[str],
    name: str | None,
    cron: str | None,
    tags: list[str],
    drop: bool,
    watch: bool,
    promote: bool,
    workdir: Path,
) -> list[str]:
    """Make the deployments; lines for the user. Raises UserError where no server is up.

    watch: changes of its source after this call start runs.
    """
    from facegan.recipe.load import DEFAULT, shipped
    from flows.service.server import prefect_server

    if (watch or not os.environ.get("PREFECT_API_URL")) and address.of_up(workdir) is None:
        other = "it is what watches" if watch else "or set PREFECT_API_URL"
        raise UserError(f"no server is up in {workdir}", fix=f"start `facegan up` there: {other}")
    is_custom = recipe is not None or sets or name or cron or tags or drop or watch or promote
    extended = recipe or DEFAULT
    if extended not in shipped() and (path := Path(extended).expanduser()).is_file():
        extended = str(path.absolute())  # the worker need not run where this command does
    form = {"extends": extended, "set": sets} if sets else {"extends": extended}
    with prefect_server(workdir):
        from prefect.client.orchestration import get_client

        from flows import deployments

        if watch:
            tags = [*tags, deployments.TAG]
        watched_source = ""
        with contextlib.chdir(workdir):  # its runs resolve relative paths there too
            chosen = (
                [deployments.custom_deployment(name, form, cron, tags, drop, promote)]
                if is_custom
                else deployments.shipped()
            )
            if watch:
                watched_source = f", which watches {_begin(form, workdir, chosen[0].name)}"
        with get_client(sync_client=True) as client:
            names = deployments.apply(client, chosen, workdir, reset=True)
    return [f"facegan/{name}{watched_source}" for name in names]


def _begin(form: dict[str, Any], workdir: Path, name: str) -> str:
    """Start to watch the recipe's source from what it holds now; return a description of it."""
    from facegan.data.source_changes import SourceWatch
    from flows.service.source_watch import source_of, where

    source = source_of(form)
    watch = SourceWatch(source, workdir, name)
    watch.begin()
    return f"{where(source)}: {watch.files} files"
