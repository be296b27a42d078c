"""Whole runs on a real S3 server: the bytes of a run on a disk, no copy of a manifest, and a network that breaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drawn import Lab, draw_folder, tiny
from facegan.cli.commands.forget import forget_person
from facegan.cli.commands.gc import collect_garbage
from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.data.suppression import SuppressionList
from facegan.pipeline import graph
from facegan.recipe.load import load
from s3 import NAME, SETTINGS, Proxy, Server, running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
URL = f"s3://{NAME}/runs"
STORE = f"--set=runtime.store={URL}"


class World:
    """A recipe over drawn faces, working directories, and a server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.recipe = folder / "tiny.yaml"
        arms = {"real": {}, "real+synthetic": {"existing": True, "new": True}}
        made = tiny(draw_folder(folder / "faces"), audit={"enforce": False}, arms=arms)
        self.recipe.write_text(yaml.safe_dump(made.model_dump(mode="json")))

    def facegan(self, *arguments: str | Path, endpoint: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **SETTINGS, "AWS_ENDPOINT_URL": endpoint or self.server.url}
        command = [sys.executable, "-m", "facegan", *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)

    def run(self, workdir: str, *more: str, endpoint: str | None = None) -> list[dict[str, Any]]:
        """The stages of a run's answer."""
        done = self.facegan(
            "run", self.recipe, "--workdir", self.folder / workdir, "--json", "-", *more, endpoint=endpoint
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["stages"])

    def local(self, workdir: str) -> dict[str, str]:
        """{stage/fingerprint: digest of all outputs} of a store on disk."""
        records = (self.folder / workdir / "data" / "store").glob("*/*/record.json")
        return {"/".join(path.parts[-3:-1]): _digest(path.read_bytes()) for path in records}

    def remote(self) -> dict[str, str]:
        """The same of the bucket."""
        names = [name for name in self.server.names("runs/") if name.endswith("/record.json")]
        return {"/".join(name.split("/")[1:3]): _digest(self.server.read(name)) for name in names}

    def copies(self, workdir: str) -> list[Path]:
        """Whatever of a manifest lies on this disk."""
        return [path for path in (self.folder / workdir).rglob("*") if path.name.startswith("part-")]


def _digest(record: bytes) -> str:
    return digest({name: entry["sha256"] for name, entry in json.loads(record)["outputs"].items()})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The recipe has run on a disk (`disk`) and on the server (`one`)."""
    with running() as server:
        world = World(tmp_path_factory.mktemp("s3"), server)
        lab = Lab(world.folder / "disk" / "data" / "store")
        for item in graph.build(load(str(world.recipe))):
            lab.make(item)
        assert {stage["state"] for stage in world.run("one", STORE)} >= {"ran"}
        yield world


def test_a_run_on_s3_makes_the_same_bytes_and_keeps_no_manifest(world: World) -> None:
    disk = world.local("disk")
    assert world.remote() == disk and len(disk) > 12
    assert world.copies("disk") and not world.copies("one") and not world.local("one")
    assert not list((world.folder / "one").rglob("*.incomplete"))
    (page,) = (world.folder / "disk" / "data" / "store" / "report").glob("*/index.html")
    assert (world.folder / "one" / "reports" / "tiny" / "latest" / "index.html").read_bytes() == page.read_bytes()
    said = "".join(str(path.read_bytes()) for path in (world.folder / "one").rglob("*") if path.is_file())
    assert not any(secret in said for secret in list(SETTINGS.values())[:2])


def test_a_second_run_and_another_machine_find_all_of_it(world: World) -> None:
    shutil.rmtree(world.folder / "one" / "data" / "cache")
    for workdir in ("one", "two"):
        stages = world.run(workdir, STORE)
        assert {stage["state"] for stage in stages} == {"cached"}
        assert Path(stages[-1]["path"], "index.html").is_file() and not world.copies(workdir)
        assert (world.folder / workdir / "reports" / "tiny" / "latest" / "index.html").is_file()
    planned = world.facegan("plan", world.recipe, "--workdir", world.folder / "three", STORE)
    assert planned.returncode == 0 and "to run" not in planned.stdout and "stale" not in planned.stdout


def test_what_was_made_on_s3_is_promoted_inspected_and_drawn_again(world: World) -> None:
    done = world.facegan("promote", world.recipe, "--workdir", world.folder / "one", STORE, "--force", "a test")
    assert done.returncode == 0, done.stderr
    assert "v1 is promoted" in done.stdout + done.stderr and not world.copies("one")
    stages = world.run("one", STORE)
    made = next(stage["path"] for stage in stages if stage["stage"] == "synthesize")
    looked = world.facegan("inspect", made, "--validate")
    assert looked.returncode == 0, looked.stderr
    from facegan.data import manifest

    os.environ.update(SETTINGS, AWS_ENDPOINT_URL=world.server.url)
    image_id = manifest.read(Path(made), ["image_id"])["image_id"][0].as_py()
    drawn = world.facegan("regenerate", made, image_id, "--out", world.folder / "again.png")
    assert drawn.returncode == 0 and "the bytes that are stored" in drawn.stdout, drawn.stderr


def test_a_network_that_fails_in_the_middle_is_said_and_the_same_command_goes_on(world: World) -> None:
    world.server.empty()
    proxy = Proxy(world.server.port)
    proxy.cut(after=500_000)  # of 1.3 MB and more that a run sends
    arguments = ("run", world.recipe, "--workdir", world.folder / "broken", STORE)
    failed = world.facegan(*arguments, endpoint=proxy.url)
    assert proxy.is_cut and failed.returncode == 1, failed.stderr
    assert f"{URL}/" in failed.stderr and "run the same command again" in failed.stderr
    assert "Traceback" not in failed.stderr and SETTINGS["AWS_SECRET_ACCESS_KEY"] not in failed.stderr
    half = world.remote()
    assert 0 < len(half) < len(world.local("disk"))
    proxy.mend()
    stages = world.run("broken", STORE, endpoint=proxy.url)
    assert {stage["state"] for stage in stages} >= {"cached", "ran"}
    assert world.remote() == world.local("disk") and not world.copies("broken")
    for key in half:  # what the broken uploads left went with the commits
        record = json.loads(world.server.read(f"runs/{key}/record.json"))
        names = {name.split("/")[3] for name in world.server.names(f"runs/{key}/")}
        assert names == {"lease", "record.json", record["objects"]["attempt"]}
    proxy.stop()


def test_forget_asks_for_an_empty_bucket_and_gc_leaves_it_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SETTINGS, "AWS_ENDPOINT_URL": world.server.url}.items():
        monkeypatch.setenv(name, value)
    before, one, workdir = world.server.names(), world.folder / "one", world.folder / "broken"
    assert f"{URL} was not looked at" in "\n".join(collect_garbage(one, 1, 7, yes=True))
    assert world.server.names() == before and not (one / "data" / "cache").exists()
    assert f"{URL} may hold them" in "\n".join(forget_person("folder/p00", workdir, [], yes=False))
    with pytest.raises(UserError, match="where this command does not erase"):
        forget_person("folder/p00", workdir, [], yes=True)
    held = [*(workdir / "data" / "store" / "decoded").rglob("*.parquet"), workdir / "data" / "cache"]
    held.append(workdir / "reports" / "tiny" / "latest" / "index.html")
    assert len(held) > 2 and all(path.exists() for path in held)
    world.server.empty()
    assert "folder/p00" in forget_person("folder/p00", workdir, [], yes=True)[0]
    assert not any(path.exists() for path in held) and SuppressionList.read(workdir).knows("folder/p00")
