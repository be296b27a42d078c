"""Synthesis on a real Dask cluster, a scheduler and two workers on this machine, of whom some are killed."""

from __future__ import annotations

import binascii
import datetime
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusters import Cluster, give_up_at_once, keep_trying, state
from drawn import RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.pipeline import execute, graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.runtime.engines.dask import Dask
from facegan.runtime.options import Runtime
from facegan.store.local import Artifact, Store

pytestmark = pytest.mark.integration
TESTS = Path(__file__).parent.parent
# Some ten shards, each of which takes a noticeable part of a second.
SYNTHESIZE = {
    "images_per_existing": 60,
    "new_identities": 12,
    "images_per_new": 60,
    "max_attempts": 3,
    "batch_size": 64,
}
TLS = {"tls_ca": "ca.pem", "tls_cert": "node.pem", "tls_key": "node.key"}
SHARD = 120  # candidates: one person


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler without workers."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def two(cluster: Cluster) -> Cluster:
    """With two workers."""
    cluster.have(worker1=(), worker2=())
    return cluster


@pytest.fixture(scope="module")
def whole(faces: Path) -> Recipe:
    """The recipe."""
    return tiny(faces, synthesize=SYNTHESIZE)


@pytest.fixture(scope="module")
def node(whole: Recipe) -> Node:
    """Its synthesis."""
    return pick(graph.build(whole), "synthesize")


@pytest.fixture(scope="module")
def made(node: Node, shared: Lab) -> Artifact:
    """What one process makes."""
    return shared.make(node)


def on(cluster: Cluster, **options: Any) -> Runtime:
    """The runtime with the cluster for an engine."""
    engine = Dask(address=cluster.address, **options)
    return RUNTIME.model_copy(update={"engine": engine, "shard_images": SHARD})


def run(
    node: Node, shared: Lab, root: Path, runtime: Runtime, on_event: Callable[[Event], None] = lambda _: None
) -> Artifact:
    """The stage, in a store of its own."""
    return execute.execute(node, Store(root), shared.done, runtime, on_event)


@contextmanager
def struck(cluster: Cluster, strike: Callable[[str], None]) -> Iterator[None]:
    """`strike(worker)` as soon as a worker is in the middle of a shard: it is held first, so that it stays there."""
    failed: list[BaseException] = []

    def watch() -> None:
        try:
            with cluster.client() as client:
                until = time.monotonic() + 60
                while time.monotonic() < until:
                    busy = [name for name, tasks in client.run_on_scheduler(state)["processing"].items() if tasks]
                    for name in busy:
                        cluster.hold(name)
                        time.sleep(0.3)  # what it had sent before
                        if client.run_on_scheduler(state)["processing"][name]:
                            strike(name)
                            return
                        cluster.release(name)
                raise AssertionError("no worker was ever at work")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join(90)
    assert not failed, failed


def command(whole: Recipe, address: str, workdir: Path) -> subprocess.CompletedProcess[str]:
    """`facegan run` up to merge, with shards for the cluster at `address`."""
    recipe = workdir / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(whole.model_dump(mode="json", exclude_none=True)))
    words = [
        sys.executable,
        "-m",
        "facegan",
        "run",
        str(recipe),
        "--until",
        "merge",
        "--workdir",
        str(workdir),
    ]
    chosen = ["runtime.engine.kind=dask", f"runtime.engine.address={address}", f"runtime.shard_images={SHARD}"]
    sets = [word for each in chosen for word in ("--set", each)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([*words, *sets], env=environment, capture_output=True, text=True, timeout=200)


def test_a_scheduler_that_is_not_there_is_said_before_anything_is_made(whole: Recipe, tmp_path: Path) -> None:
    done = command(whole, "tcp://127.0.0.1:9", tmp_path)
    assert done.returncode == 1 and "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr
    assert not list((tmp_path / "data/store").glob("*/*/record.json"))


def test_the_command_gives_the_bytes_of_one_process(
    two: Cluster, whole: Recipe, made: Artifact, shared: Lab, tmp_path: Path
) -> None:
    merged = shared.stage(whole, "merge", "real+synthetic")
    done = command(whole, two.address, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "distributed" not in done.stderr  # the cluster's own chatter
    for one in (made, merged):
        found = json.loads((tmp_path / "data/store" / one.stage / one.fingerprint / "record.json").read_bytes())
        assert found["outputs"] == one.record["outputs"]
    record = json.loads((tmp_path / "data/store/synthesize" / made.fingerprint / "record.json").read_bytes())
    assert record["engine"] == "dask" and "engine" not in made.record
    logs = [(two.folder / f"worker{number}.log").read_text() for number in (1, 2)]
    assert all("Traceback" not in log for log in logs)


def test_what_a_killed_stage_leaves_on_the_cluster(two: Cluster, node: Node, shared: Lab, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=run, args=(node, shared, tmp_path, on(two)))

    def strike(name: str) -> None:
        process.kill()
        two.release(name)

    with struck(two, strike):
        process.start()
        process.join(90)
    assert process.exitcode == -signal.SIGKILL
    with two.client() as client:
        until = time.monotonic() + 20
        while (left := client.run_on_scheduler(state))["tasks"] or left["clients"]:
            assert time.monotonic() < until, left
            time.sleep(0.2)


def test_a_worker_that_does_not_answer(two: Cluster, node: Node, made: Artifact, shared: Lab, tmp_path: Path) -> None:
    said: list[str] = []
    held: list[str] = []
    with struck(two, held.append):
        found = run(node, shared, tmp_path, on(two, timeout_s=5), lambda event: said.append(event.text))
    two.release(held[0])
    assert found.record["outputs"] == made.record["outputs"]
    assert any("did not come back for 5 s: it is given to another worker too" in text for text in said)


def test_workers_that_are_killed_in_mid_shard(
    two: Cluster, node: Node, made: Artifact, shared: Lab, tmp_path: Path
) -> None:
    with struck(two, two.kill):
        found = run(node, shared, tmp_path / "one", on(two))
    assert len(two.workers) == 1 and found.record["outputs"] == made.record["outputs"]
    with two.client() as client:
        client.run_on_scheduler(give_up_at_once)
    with struck(two, two.kill), pytest.raises(UserError, match="was lost with its worker again and again") as error:
        run(node, shared, tmp_path / "both", on(two))
    assert two.workers == [] and "run the same command again" in error.value.fix
    with two.client() as client:
        assert client.run_on_scheduler(state)["tasks"] == []  # nothing is left behind
    two.have(worker1=())
    found = run(node, shared, tmp_path / "both", on(two))
    assert found.state == "resumed" and found.record["outputs"] == made.record["outputs"]


def test_shards_go_where_their_resources_are(
    cluster: Cluster, node: Node, made: Artifact, shared: Lab, tmp_path: Path
) -> None:
    cluster.have(worker1=())
    with pytest.raises(UserError, match=r"has no worker with \{'GPU': 1"):
        run(node, shared, tmp_path, on(cluster, resources={"GPU": 1}))
    cluster.have(worker1=(), worker2=("--resources", "GPU=1"))
    seen: set[str] = set()
    with cluster.client() as client:

        def look(_: Event) -> None:
            seen.update(name for name, tasks in client.run_on_scheduler(state)["processing"].items() if tasks)

        found = run(node, shared, tmp_path, on(cluster, resources={"GPU": 1}), look)
    assert found.record["outputs"] == made.record["outputs"] and seen == {"worker2"}


def test_the_cluster_goes_away(
    cluster: Cluster, node: Node, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.have(worker1=())
    with struck(cluster, cluster.kill), pytest.raises(UserError, match="has no worker left"):
        with cluster.client() as client:
            client.run_on_scheduler(keep_trying)
        run(node, shared, tmp_path, on(cluster, timeout_s=4))
    cluster.have(worker1=())
    started = time.monotonic()
    hang = threading.Timer(1, cluster.hold, ["scheduler"])
    with monkeypatch.context() as patch, pytest.raises(UserError, match="did not come back from 3 workers"):
        patch.setattr("facegan.runtime.engines.dask.CONNECT_S", 3.0)
        with struck(cluster, lambda _: hang.start()):
            run(node, shared, tmp_path, on(cluster, timeout_s=3))
    assert time.monotonic() - started < 90
    for name in ("scheduler", "worker1"):
        cluster.release(name)
    started = time.monotonic()
    with struck(cluster, lambda _: cluster.kill("scheduler")), pytest.raises(UserError, match=r"scheduler .* was lost"):
        run(node, shared, tmp_path, on(cluster))
    assert time.monotonic() - started < 60


def test_encrypted(tmp_path: Path) -> None:
    ours, others = (authority(tmp_path / name) for name in ("ours", "others"))
    options = ["--tls-ca-file", ours["tls_ca"], "--tls-cert", ours["tls_cert"], "--tls-key", ours["tls_key"]]
    cluster = Cluster(tmp_path, *options, "--protocol", "tls")
    try:
        assert cluster.address.startswith("tls://")
        cluster.have_worker()
        with Dask(address=cluster.address, **ours).open(print) as engine:
            engine.submit("x", binascii.hexlify, b"1")
            assert engine.next() == ("x", b"31")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("facegan.runtime.engines.dask.CONNECT_S", 3.0)
            plain = cluster.address.replace("tls", "tcp")
            for config in (Dask(address=cluster.address, **others), Dask(address=plain)):
                with pytest.raises(UserError, match="no Dask scheduler answers"), config.open(print):
                    pass
    finally:
        cluster.stop()


def authority(folder: Path) -> dict[str, str]:
    """A new authority and a certificate of it, as options of the engine."""
    folder.mkdir(mode=0o700)

    def certify(name: str, by: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = by or (subject, key)
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        certificate = builder.sign(signer, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        data = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(data)
        return subject, key

    certify("node", certify("ca", None))
    return {name: str(folder / file) for name, file in TLS.items()}
