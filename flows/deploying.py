"""`facegan deploy`: recipes offered on a server that is up."""

from __future__ import annotations

import os
from pathlib import Path

from facegan.errors import UserError
from flows import address


def deploy(
    recipe: str | None, sets: list[str], name: str | None, cron: str | None, tags: list[str], drop: bool, workdir: Path
) -> list[str]:
    """Make the deployments; lines for the user. Raises UserError where no server is up."""
    from facegan.recipe import DEFAULT, shipped
    from flows.server import prefect_server

    if not os.environ.get("PREFECT_API_URL") and address.of_up(workdir) is None:
        raise UserError(f"no server is up in {workdir}", fix="start `facegan up` there, or set PREFECT_API_URL")
    own = recipe is not None or sets or name or cron or tags or drop
    extended = recipe or DEFAULT
    if extended not in shipped() and (path := Path(extended).expanduser()).is_file():
        extended = str(path.absolute())  # the worker need not run where this command does
    form = {"extends": extended, "set": sets} if sets else {"extends": extended}
    with prefect_server(workdir):
        from prefect.client.orchestration import get_client

        from flows import deployments

        chosen = [deployments.deployment(name, form, cron, tags, drop)] if own else deployments.shipped()
        with get_client(sync_client=True) as client:
            made = deployments.apply(client, chosen, workdir, reset=True)
    return [f"facegan/{one}" for one in made]
