"""The deployments that a server offers and starts on a schedule; this module also writes them to `prefect.yaml`.

python -m flows.deployments > prefect.yaml
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from facegan import __version__
from facegan.core.errors import ConfigError, UserError
from facegan.core.versions import commit
from facegan.recipe.form import read
from flows.promotion import check

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "facegan"
TAG = "watch"  # of a deployment that starts when its source has changed
Collision = Literal["ENQUEUE", "CANCEL_NEW"]


@dataclass(frozen=True)
class Deployment:
    """A recipe that a server offers: its schedule, and what happens when a run is due while another works.

    `form` is what the run form shows at first: the recipe that it extends, and its changes (recipe/form.py).
    `cron` is in UTC (None: only when asked); an inactive schedule waits to be switched on in the page. Of one
    deployment at most `limit` runs work side by side; one more waits (ENQUEUE) or is dropped (CANCEL_NEW). With the
    tag `watch` it also starts when its source has changed; with `promote` it ends with `facegan promote`.
    """

    name: str
    form: dict[str, Any]
    description: str
    cron: str | None = None
    active: bool = True
    tags: tuple[str, ...] = ()
    limit: int = 1
    collision: Collision = "ENQUEUE"
    promote: bool = False


def shipped() -> list[Deployment]:
    """The deployments of every server."""
    quick, study = {"extends": "orl-quick"}, {"extends": "orl-study"}
    return [
        Deployment(
            "recipe",
            quick,
            "From faces to a verdict: the form shows every option of every stage.",
            tags=("form",),
        ),
        Deployment(
            "nightly",
            quick,
            "The whole pipeline each night; what has not changed is found in the store.",
            cron="0 2 * * *",
            tags=("nightly",),
            collision="CANCEL_NEW",  # the run that is still at work does the same
        ),
        Deployment(
            "retrain",
            {**quick, "set": ["prepare.split.by=hash"]},
            "When faces arrive, and each week: a run whose best recognizer becomes the current model if it is better.",
            cron="0 4 * * 0",
            tags=("retrain", TAG),
            promote=True,
        ),
        Deployment(
            "study",
            study,
            "Several splits and variants, one pooled answer. May take hours: switch its schedule on where you want it.",
            cron="0 6 1 * *",
            active=False,
            tags=("study",),
            collision="CANCEL_NEW",
        ),
    ]


def custom_deployment(
    name: str | None,
    form: dict[str, Any],
    cron: str | None,
    tags: Iterable[str],
    drop: bool,
    promote: bool = False,
) -> Deployment:
    """A deployment of the user's own recipe; raises ConfigError for an invalid recipe, name or schedule."""
    recipe = read(form)
    if promote:
        check(recipe)
    name = name or recipe.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ConfigError(f"a deployment cannot be called {name!r}", fix="use letters, digits, '.', '_', '+' and '-'")
    if cron is not None:
        _check_cron(cron)
    collision: Collision = "CANCEL_NEW" if drop else "ENQUEUE"
    return Deployment(name, form, recipe.description, cron, tags=tuple(tags), collision=collision, promote=promote)


def _check_cron(cron: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise ConfigError(
            f"--cron {cron!r} is no schedule", fix="minute hour day month weekday, in UTC: '0 2 * * *'"
        ) from None


def apply(client: SyncPrefectClient, deployments: Iterable[Deployment], workdir: Path, reset: bool) -> list[str]:
    """Make deployments, or bring existing ones to this version; returns the names of those that were made or reset.

    Unless `reset`, what a user may have changed in the page (schedule, parameters, tags, limits) stays.
    """
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    from flows.pipeline import pipeline

    flow, version = client.create_flow(pipeline), commit() or __version__
    schema = parameter_schema(pipeline).model_dump()
    names = []
    for deployment in deployments:
        try:
            existing = client.read_deployment_by_name(f"{pipeline.name}/{deployment.name}")
        except ObjectNotFound:
            existing = None
        if existing is not None and not reset:
            update = DeploymentUpdate(version=version, parameter_openapi_schema=schema, entrypoint=ENTRYPOINT)
            client.update_deployment(existing.id, update)
            continue
        client.create_deployment(
            flow,
            deployment.name,
            version=version,
            description=deployment.description,
            tags=["facegan", *deployment.tags],
            parameters={"recipe": deployment.form, "workdir": str(workdir), "promote": deployment.promote},
            schedules=_schedules(deployment),
            concurrency_limit=deployment.limit,
            concurrency_options={"collision_strategy": deployment.collision},  # type: ignore[arg-type]
            work_pool_name=POOL,
            entrypoint=ENTRYPOINT,
            parameter_openapi_schema=schema,
            enforce_parameter_schema=True,
        )
        names.append(deployment.name)
    return names


ENTRYPOINT = "flows.pipeline.pipeline"


def _schedules(deployment: Deployment) -> list[Any]:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    if deployment.cron is None:
        return []
    cron = CronSchedule(cron=deployment.cron, timezone="UTC")
    return [DeploymentScheduleCreate(schedule=cron, active=deployment.active)]


def make_pool(client: SyncPrefectClient, workdir: Path, limit: int) -> None:
    """The work pool of this machine: each run is a process in `workdir` that ends with its worker.

    Who may start runs can change none of this: the pool has no variables.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    command = shlex.join([sys.executable, "-P", "-m", "flows.service.flow_run"])
    job = {"command": command, "working_dir": str(workdir), "stream_output": True}
    template = {"job_configuration": job, "variables": {"type": "object", "properties": {}}}
    text = f"Runs of facegan on this machine, in {workdir}"
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        create = WorkPoolCreate(
            name=POOL, type="process", base_job_template=template, concurrency_limit=limit, description=text
        )
        client.create_work_pool(create)
        return
    if pool.type != "process":
        raise UserError(f"the server has a work pool '{POOL}' of type {pool.type}", fix="rename or delete that pool")
    update = WorkPoolUpdate(base_job_template=template, concurrency_limit=limit, description=text)
    client.update_work_pool(POOL, update)


def as_prefect_yaml() -> str:
    """The text of `prefect.yaml`, for servers and workers that users run themselves."""
    head = (
        "# The deployments of `facegan up` and `facegan deploy`, for a server and workers of your own:\n"
        f"# `prefect work-pool create {POOL} --type process`, `prefect deploy --all`,\n"
        f"# `prefect worker start --pool {POOL}`.\n"
        "# Written by `python -m flows.deployments > prefect.yaml`.\n"
    )
    document = {
        "name": "facegan",
        "prefect-version": _prefect_version(),
        "deployments": [_as_yaml(deployment) for deployment in shipped()],
    }
    return head + yaml.safe_dump(document, sort_keys=False, width=118)


def _prefect_version() -> str:
    from importlib.metadata import version

    return version("prefect")


def _as_yaml(deployment: Deployment) -> dict[str, Any]:
    schedule = (
        {"schedules": [{"cron": deployment.cron, "timezone": "UTC", "active": deployment.active}]}
        if deployment.cron
        else {}
    )
    return {
        "name": deployment.name,
        "description": deployment.description,
        "entrypoint": "flows/pipeline.py:pipeline",
        "tags": ["facegan", *deployment.tags],
        "parameters": {
            "recipe": dict(deployment.form),
            "workdir": ".",
            **({"promote": True} if deployment.promote else {}),
        },
        **schedule,
        "concurrency_limit": {"limit": deployment.limit, "collision_strategy": deployment.collision},
        "enforce_parameter_schema": True,
        "work_pool": {"name": POOL},
    }


if __name__ == "__main__":
    print(as_prefect_yaml(), end="")
