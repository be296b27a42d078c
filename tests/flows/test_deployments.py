"""prefect.yaml and the deployments of `facegan up` say the same; passwords do not stay in a command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drawn import ROOT
from facegan.core.errors import ConfigError
from facegan.recipe import form
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe
from flows.deployments import as_prefect_yaml, custom_deployment, shipped
from flows.service.supervisor import ServiceOptions


def test_prefect_yaml_is_what_the_module_writes() -> None:
    assert (ROOT / "prefect.yaml").read_text() == as_prefect_yaml(), "python -m flows.deployments > prefect.yaml"


def test_the_short_recipes_of_prefect_yaml_are_the_whole_ones() -> None:
    by_name = {
        deployment["name"]: deployment
        for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    }
    assert list(by_name) == [deployment.name for deployment in shipped()]
    for deployment in shipped():
        assert by_name[deployment.name]["parameters"]["recipe"] == deployment.form and isinstance(
            form.read(deployment.form), Recipe
        )
        assert [s["cron"] for s in by_name[deployment.name].get("schedules", [])] == [deployment.cron] * bool(
            deployment.cron
        )


@pytest.mark.parametrize("cron", ["often", "61 2 * * *", "0 2 * *"])
def test_a_schedule_that_is_none_is_refused(cron: str) -> None:
    with pytest.raises(ConfigError, match="is no schedule"):
        custom_deployment(None, load("orl-tiny"), cron, [], False)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-x"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    recipe = load("orl-tiny")
    with pytest.raises(ConfigError, match="cannot be called"):
        custom_deployment(name or " ", recipe, None, [], False)


@pytest.mark.parametrize("url", ["mysql://a@b/c", "sqlite:///x", "postgres"])
def test_only_postgres_is_a_database(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PostgreSQL"):
        ServiceOptions(tmp_path, database=url)


def test_a_deployment_without_a_server_says_so(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "facegan", "deploy", "--workdir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1 and "start `facegan up` there" in done.stderr
    assert list(tmp_path.iterdir()) == []
