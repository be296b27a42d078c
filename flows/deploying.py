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
    from facegan.recipe import DEFAULT, load
    from flows.server import prefect_server

    if not os.environ.get("PREFECT_API_URL") and address.of_up(workdir) is None:
        raise UserError(f"no server is up in {workdir}", fix="start `facegan up` there, or set PREFECT_API_URL")
    own = recipe is not None or sets or name or cron or tags or drop
    loaded = load(recipe or DEFAULT, sets) if own else None
    with prefect_server(workdir):
        from prefect.client.orchestration import get_client

        from flows import deployments

        chosen = [deployments.deployment(name, loaded, cron, tags, drop)] if loaded else deployments.shipped()
        with get_client(sync_client=True) as client:
            made = deployments.apply(client, chosen, workdir, reset=True)
    return [f"facegan/{one}" for one in made]
