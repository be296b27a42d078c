"""The store on a real S3 server: commits, leases, what is verified when, what the network does to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from facegan.cli.commands.benchmark import images_of
from facegan.cli.commands.import_export import source
from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png
from facegan.data.sources import guess
from facegan.store import lease, manifest_parts
from facegan.store.bucket import Bucket, Unreachable
from facegan.store.local import WORK, Artifact, fingerprint
from facegan.store.object_storage import RemoteStore, store_of_cached
from manifests import summarise
from s3 import NAME, SETTINGS, Proxy, Server, running
from upkeep import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
URL = f"s3://{NAME}/some/stages"
KEY = fingerprint("stage", 1, {"a": 1}, {})
BASE = f"some/stages/stage/{KEY}"

CHILD = """
import sys, time
from pathlib import Path
from facegan.store import lease
from facegan.store.object_storage import RemoteStore
from facegan.store.local import WORK
mode, workdir, mark = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
lease.LEASE_S, lease.BEAT_S, lease.POLL_S = float(sys.argv[4]), 0.3, 0.1
def work(out):
    (out / WORK / "half").write_text("half")
    (mark / f"working-{mode}").write_text("")
    while mode != "quick" and not (mark / "go").exists():
        time.sleep(0.01)
    (out / "data.bin").write_bytes(b"made")
def say(text):
    (mark / f"said-{mode}").write_text(text)
artifact = RemoteStore(workdir, sys.argv[5]).produce("stage", 1, {"a": 1}, {}, {}, work, dict, say)
print(artifact.state, flush=True)
"""


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(running_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An empty bucket, and an environment that leads to it."""
    for name, value in {**SETTINGS, "AWS_ENDPOINT_URL": running_server.url}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # the endpoint of an earlier test
    running_server.empty()
    yield running_server
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server."""
    proxy = Proxy(server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.stop()


def store_in(workdir: Path, cache_bytes: int = 0) -> RemoteStore:
    return RemoteStore(workdir, URL, cache_bytes)


def rows(count: int = 30, side: int = 40) -> list[dict[str, Any]]:
    """Pictures of noise, which no codec makes smaller."""
    rng = np.random.default_rng(0)
    return [
        manifest.row(
            encode_png(rng.integers(0, 256, (side, side), np.uint8)), identity=f"d/p{n % 3}", source="real",
            dataset="d", split="train", height=side, width=side,
        )
        for n in range(count)
    ]  # fmt: skip


def make(
    store: RemoteStore,
    data: bytes = b"made",
    said: list[str] | None = None,
    before: Callable[[], None] = lambda: None,
    inputs: dict[str, Artifact] | None = None,
    stage: str = "stage",
) -> Artifact:
    """A stage with a manifest, a file and one in a folder."""

    def work(out: Path) -> None:
        before()
        manifest.write(out, rows(), stage, {})
        (out / "sub").mkdir(exist_ok=True)
        (out / "data.bin").write_bytes(data)
        (out / "sub" / "more.bin").write_bytes(data * 2)

    say = said.append if said is not None else lambda _: None
    return store.produce(stage, 1, {"a": 1}, inputs or {}, {}, work, dict, say)


def never() -> None:
    pytest.fail("the stage was made again")


def attempts(server: Server) -> set[str]:
    """The folders of writers that lie in the bucket."""
    return {name.split("/")[4] for name in server.names(f"{BASE}/") if name.count("/") > 4}


# Commit and hit.


def test_another_machine_finds_what_one_has_made_and_keeps_no_manifest(server: Server, tmp_path: Path) -> None:
    one, other = store_in(tmp_path / "one"), store_in(tmp_path / "other")
    made = make(one)
    assert made.state == "ran" and one.lookup("stage", KEY, {})[1] == ""
    record = json.loads(server.read(f"{BASE}/record.json"))
    assert attempts(server) == {record["objects"]["attempt"]}
    assert json.loads(server.read(f"{BASE}/lease"))["owner"] == ""  # given back
    hit = make(other, before=never)
    assert hit.state == "cached" and hit.output_digest() == made.output_digest()
    for store, artifact in ((one, made), (other, hit)):
        folder = store.fetch(artifact)
        assert folder.name == KEY and (folder / "data.bin").read_bytes() == b"made"
        assert (folder / "sub" / "more.bin").read_bytes() == b"mademade"
        assert not (folder / manifest_parts.FOLDER).exists()
        assert manifest.read(folder, ["identity"])["identity"].to_pylist()[:3] == ["d/p0", "d/p1", "d/p2"]
    assert not list(tmp_path.rglob("part-*.parquet")) and not list(tmp_path.rglob("*.incomplete"))


def test_every_reader_of_a_manifest_follows_the_pointer(server: Server, tmp_path: Path) -> None:
    store, wanted = store_in(tmp_path), rows()
    folder = store.fetch(make(store))
    assert [r["image_id"] for r in manifest.iterate(folder)] == [r["image_id"] for r in wanted]
    assert [r["image_id"] for r in manifest.at(folder, np.array([3, 29, 3]))] == [
        wanted[n]["image_id"] for n in (3, 29, 3)
    ]
    assert manifest.validate(folder) == [] and summarise(folder)["identities"] == 3
    assert ManifestImages(folder, "train").pixels.shape == (30, 40, 40, 1)
    assert store_of_cached(folder).bucket.url == URL and store_of_cached(tmp_path) is None
    with pytest.raises(UserError, match="lies on object storage"):
        manifest.local_parts(folder)
    pq.write_table(pa.table({"file": ["x"]}), folder / "quarantine.parquet")  # as prepare's folder has one
    assert manifest.is_manifest(folder) and guess(folder) == "manifest"
    with pytest.raises(UserError, match="lies on object storage"):
        list(source(str(folder), {}).rows())
    found, _, _ = images_of(str(folder), "train", {})
    assert [entry.identity for entry in found] == [r["identity"] for r in wanted]


@pytest.mark.parametrize("by", ["lookup", "produce"])
def test_a_commit_that_dies_after_its_record_is_tidied_up_by_the_next_run(
    by: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "_keep", dies)
        make(store)
    left = store.unfinished("stage", KEY)
    assert (left / manifest_parts.FOLDER).exists()
    with store._turn("stage", KEY, print):
        assert store.lookup("stage", KEY, {})[0] and left.exists()  # who holds the lock may be using it
    hit = store.lookup("stage", KEY, {})[0] if by == "lookup" else make(store, before=never)
    assert not left.exists() and (store.fetch(hit) / "data.bin").read_bytes() == b"made"


def test_a_hit_is_pointed_to_before_anything_is_fetched(server: Server, tmp_path: Path) -> None:
    make(store_in(tmp_path / "one"))
    make(store_in(tmp_path / "other"), before=never)
    for workdir in ("one", "other"):
        assert summarise(store_in(tmp_path / workdir).folder("stage", KEY))["images"] == 30


def test_a_part_that_was_bad_from_the_beginning_goes_with_its_record(server: Server, tmp_path: Path) -> None:
    store = store_in(tmp_path)

    def work(out: Path) -> None:
        (out / manifest_parts.FOLDER).mkdir()
        (out / manifest_parts.FOLDER / "part-00000.parquet").write_bytes(b"no Parquet, but what the record says")

    made = store.produce("stage", 1, {"a": 1}, {}, {}, work, dict)
    with pytest.raises(UserError, match="cannot be read") as error:
        manifest.read(store.fetch(made))
    assert make(store, before=never).state == "cached"  # to run again is no help
    assert f"delete {URL}/stage/{KEY}/record.json: the next run" in str(error.value)
    server.client.delete_object(Bucket=NAME, Key=f"{BASE}/record.json")
    assert manifest.validate(store.fetch(make(store))) == []


def test_a_stage_whose_input_is_another_by_now_is_made_again_in_its_place(server: Server, tmp_path: Path) -> None:
    store, said = store_in(tmp_path), list[str]()
    first = make(store, stage="first")
    make(store, inputs={"x": first})
    key = fingerprint("stage", 1, {"a": 1}, {"x": first.fingerprint})
    before = json.loads(server.read(f"some/stages/stage/{key}/record.json"))["objects"]["attempt"]
    other = Artifact("first", first.fingerprint, first.path, "cached", record={"outputs": {"f": {"sha256": "0"}}})
    again = make(store, inputs={"x": other}, said=said)
    assert again.state == "ran" and "its input x is not the one" in said[0]
    names = server.names(f"some/stages/stage/{key}/")
    assert len(names) == 2 + 3 and not any(before in name for name in names)


def test_bytes_that_were_changed_are_noticed_and_made_again(server: Server, tmp_path: Path) -> None:
    store, said = store_in(tmp_path), list[str]()
    made = make(store)
    (attempt,) = attempts(server)
    server.write(f"{BASE}/{attempt}/data.bin", b"MADE")
    assert store.lookup("stage", KEY, {}) == (None, "data.bin was changed")
    again = make(store, said=said)
    assert said == [f"stage {KEY[:12]} is made again: data.bin was changed"]
    assert again.output_digest() == made.output_digest() and (store.fetch(again) / "data.bin").read_bytes() == b"made"
    assert attempts(server) == {again.record["objects"]["attempt"]} != {attempt}
    server.client.delete_object(
        Bucket=NAME, Key=f"{BASE}/{again.record['objects']['attempt']}/manifest/part-00000.parquet"
    )
    assert store.lookup("stage", KEY, {})[1] == "manifest/part-00000.parquet is missing"


def test_a_file_that_is_changed_after_the_listing_is_not_taken(server: Server, tmp_path: Path) -> None:
    made = make(store_in(tmp_path / "one"))
    store, (attempt,) = store_in(tmp_path / "two"), attempts(server)
    hit, _ = store.lookup("stage", KEY, {})
    server.write(f"{BASE}/{attempt}/data.bin", b"MADE")
    with pytest.raises(UserError, match=r"data\.bin was changed: its sha256"):
        store.fetch(hit)
    assert not (store.folder("stage", KEY) / "data.bin").exists()
    folder = store_in(tmp_path / "one").fetch(made)  # all at hand here, but for the manifest
    part = f"{BASE}/{attempt}/manifest/part-00000.parquet"
    server.write(part, server.read(part)[:-1] + b"?")
    with pytest.raises(UserError, match=r"part-00000\.parquet was changed"):
        manifest.read(folder)


def test_the_same_bytes_under_another_etag_are_a_hit(server: Server, tmp_path: Path) -> None:
    store, data = store_in(tmp_path), os.urandom(33 * 2**20)
    make(store, data)  # in several parts, whose ETag is no digest of the whole
    (attempt,) = attempts(server)
    before = store.bucket.entries(f"stage/{KEY}/{attempt}")["data.bin"].etag
    server.write(f"{BASE}/{attempt}/data.bin", data)
    assert store.bucket.entries(f"stage/{KEY}/{attempt}")["data.bin"].etag != before
    assert make(store_in(tmp_path / "b"), before=never).state == "cached"


@pytest.mark.parametrize("theirs", [b"made", b"OTHER"])
def test_of_two_writers_the_first_stands(
    theirs: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast, said = store_in(tmp_path / "slow"), store_in(tmp_path / "fast"), list[str]()
    monkeypatch.setattr(fast, "_turn", lambda *_: nullcontext())  # as after a lease that was lost
    mine = make(slow, said=said, before=lambda: make(fast, theirs) and None)
    first = fast.lookup("stage", KEY, {})[0]
    assert mine.output_digest() == first.output_digest()
    assert attempts(server) == {first.record["objects"]["attempt"]}
    assert (slow.fetch(mine) / "data.bin").read_bytes() == theirs
    assert ("with the same bytes" in said[0]) == (theirs == b"made") and "committed by another run meanwhile" in said[0]
    assert ("OTHER bytes" in said[0]) == (theirs == b"OTHER")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"no json", "record.json cannot be read"),
        (b'{"outputs": {}}', "record.json is none of this store"),
        (b'{"outputs": {"../../evil": {"bytes": 1, "sha256": "0"}}, "objects": {"attempt": "%s", "etags": {}}}'
         % (b"0" * 32), "record.json is none of this store"),
        (b'{"outputs": {}, "objects": {"attempt": "../../..", "etags": {}}}', "record.json is none of this store"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_trusted_is_no_hit(record: bytes, why: str, server: Server, tmp_path: Path) -> None:
    store, said = store_in(tmp_path), list[str]()
    server.write(f"{BASE}/record.json", record)
    assert store.lookup("stage", KEY, {})[1].startswith(why)
    assert make(store, said=said).state == "ran" and why in said[0]
    assert make(store, before=never).state == "cached"


def test_writes_under_a_condition(server: Server) -> None:
    bucket = Bucket(URL)
    etag = bucket.create("x", b"one")
    assert etag and bucket.create("x", b"two") is None and bucket.read("x") == (b"one", etag)
    assert bucket.create("x", b"one") == etag  # sent again since its answer was lost
    assert bucket.replace("x", b"two", '"other"') is None and bucket.replace("gone", b"two", etag) is None
    after = bucket.replace("x", b"two", etag)
    assert after not in (None, etag) and bucket.read("x") == (b"two", after) and bucket.read("gone") is None
    assert list(bucket.entries("")) == ["x"]
    bucket.delete(["x", "gone"])
    assert bucket.entries("") == {}


# Leases.


class Children:
    """Runs of CHILD, each on a machine of its own, as far as the store can tell."""

    def __init__(self, folder: Path) -> None:
        self.mark, self.processes = folder / "mark", list[subprocess.Popen[str]]()
        self.mark.mkdir()
        self.folder = folder

    def start(self, mode: str, workdir: str, lease_s: float) -> subprocess.Popen[str]:
        arguments = [mode, str(self.folder / workdir), str(self.mark), str(lease_s), URL]
        process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def has(self, name: str) -> Callable[[], bool]:
        return (self.mark / name).exists

    def said(self, mode: str) -> str:
        return (self.mark / f"said-{mode}").read_text()


@pytest.fixture
def children(server: Server, tmp_path: Path) -> Iterator[Children]:
    found = Children(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def test_of_two_machines_one_works_and_the_other_waits_for_it(children: Children) -> None:
    slow = children.start("slow", "one", 2)
    wait_for(children.has("working-slow"), "work")
    quick = children.start("quick", "two", 2)
    wait_for(children.has("said-quick"), "the wait")
    time.sleep(4)  # twice what a lease lives without a beat
    assert "is being made by another run: waiting for it" in children.said("quick")
    (children.mark / "go").touch()
    assert [p.communicate(timeout=60)[0].strip() for p in (slow, quick)] == ["ran", "cached"]
    assert not children.has("working-quick")() and not children.has("said-slow")()


def test_the_lease_of_a_machine_that_died_is_taken_over(children: Children) -> None:
    children.start("slow", "one", 3)
    wait_for(children.has("working-slow"), "work")
    children.processes[0].send_signal(signal.SIGKILL)
    children.processes[0].wait()
    started = time.monotonic()
    quick = children.start("quick", "two", 3)
    assert quick.communicate(timeout=60)[0].strip() == "ran" and time.monotonic() - started > 3
    assert "has not been heard of for 3 s" in children.said("quick")


def test_the_same_working_directory_goes_on_at_once_after_kill_9(children: Children) -> None:
    children.start("slow", "one", 600)
    wait_for(children.has("working-slow"), "work")
    children.processes[0].send_signal(signal.SIGKILL)
    children.processes[0].wait()
    assert children.start("quick", "one", 600).communicate(timeout=60)[0].strip() == "resumed"


def test_who_has_lost_the_lease_says_so_and_commits_all_the_same(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    said: list[str] = []

    def lose() -> None:
        server.write(f"{BASE}/lease", b'{"owner": "somebody else"}')
        wait_for(lambda: said, "the loss", 20)

    assert make(store_in(tmp_path), said=said, before=lose).state == "ran"
    assert "another run has taken it over meanwhile" in said[0] and len(said) == 1
    assert json.loads(server.read(f"{BASE}/lease"))["owner"] == "somebody else"  # not ours to give back


# The network.


def test_an_upload_that_breaks_off_is_no_hit_and_goes_on_without_the_work(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    store, data = store_in(tmp_path), os.urandom(20 * 2**20)
    with pytest.raises(Unreachable) as error:
        make(store, data, before=lambda: proxy.cut(after=2**20))
    assert proxy.is_cut and URL in str(error.value) and "run the same command again" in str(error.value)
    for secret in (SETTINGS["AWS_ACCESS_KEY_ID"], SETTINGS["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in str(error.value)
    assert f"{BASE}/record.json" not in server.names() and not server.names(f"{BASE}/")[1:]
    with pytest.raises(Unreachable):
        store.lookup("stage", KEY, {})
    proxy.mend()
    assert store.lookup("stage", KEY, {}) == (None, "never made")
    made = make(store, data, before=never)
    assert made.state == "resumed" and (store.fetch(made) / "data.bin").read_bytes() == data
    assert len(attempts(server)) == 1 and not store.unfinished("stage", KEY).exists()


def test_what_an_upload_left_behind_goes_with_the_next_commit(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    store, data = store_in(tmp_path), os.urandom(2**20)
    with pytest.raises(Unreachable):
        make(store, data, before=lambda: proxy.cut(after=2**20 + 2**19))  # in the middle of the second file
    assert len(attempts(server)) == 1
    proxy.mend()
    make(store, data)
    assert attempts(server) == {json.loads(server.read(f"{BASE}/record.json"))["objects"]["attempt"]}


def test_a_manifest_that_cannot_be_reached_is_said(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    folder = store.fetch(make(store))
    batches = manifest.batches(folder, ["identity"])
    proxy.cut()
    with pytest.raises(Unreachable, match="cannot be reached"):
        list(batches)
    proxy.mend()
    assert sum(batch.num_rows for batch in manifest.batches(folder, ["identity"])) == 30


def test_a_short_break_is_bridged(
    server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
    proxy.cut()
    threading.Timer(1.0, proxy.mend).start()
    assert make(store_in(tmp_path)).state == "ran"


def test_columns_travel_and_not_the_images(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    work = lambda out: manifest.write(out, rows(400, 64), "stage", {}) and None  # noqa: E731
    made = store.fetch(store.produce("stage", 1, {"a": 1}, {}, {}, work, dict))
    size = sum(part.size for part in manifest_parts.remote_parts(made))
    before = proxy.received
    manifest.read(made, ["identity", "split"])
    assert 0 < proxy.received - before < size / 8
    before = proxy.received
    assert sum(1 for _ in manifest.iterate(made)) == 400
    assert size * 0.9 <= proxy.received - before < size * 1.2  # once


def test_the_cache_of_parts_spares_the_network_and_keeps_to_its_bound(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    made = make(store_in(tmp_path))
    part = manifest_parts.remote_parts(store_in(tmp_path).fetch(made))[0]
    size = part.size
    store = store_in(tmp_path, cache_bytes=size + 1)
    folder = store.fetch(made)
    first = manifest.read(folder)
    proxy.cut()
    assert manifest.read(folder).equals(first)  # from this disk
    proxy.mend()
    (kept,) = tmp_path.rglob("cache/*/parts/*.parquet")
    assert kept.stem == file_sha256(kept) == part.sha256
    kept.write_bytes(b"?" * size)
    assert manifest.read(folder).equals(first) and file_sha256(kept) == part.sha256  # fetched anew
    old = kept.with_name("0" * 64 + ".parquet")
    shutil.copy(kept, old)
    os.utime(old, (1, 1))
    kept.unlink()
    manifest.read(folder)
    assert list(tmp_path.rglob("cache/*/parts/*.parquet")) == [kept]  # the older one made room
    larger = store_in(tmp_path, cache_bytes=size - 1).fetch(made)
    assert manifest_parts.remote_parts(larger)[0].cache_bytes == 0  # a manifest that does not fit would push itself out


def test_no_credentials_and_no_bucket_are_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        make(RemoteStore(tmp_path, "s3://nowhere/x"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(Unreachable, match="look at the credentials"):
        make(store_in(tmp_path))


def test_a_server_that_knows_no_conditions_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.app, "deaf", True)
    with pytest.raises(UserError, match="takes no notice of If-None-Match"):
        make(store_in(tmp_path), before=never)


def test_a_beat_whose_answer_was_lost_is_no_loss(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    said: list[str] = []

    def beat() -> None:
        body = json.loads(server.read(f"{BASE}/lease"))
        server.write(f"{BASE}/lease", json.dumps({**body, "beat": "ours, but its ETag is not known"}).encode())
        time.sleep(1)

    assert make(store_in(tmp_path), said=said, before=beat).state == "ran" and said == []
    assert json.loads(server.read(f"{BASE}/lease"))["owner"] == ""


def test_a_stage_that_fails_gives_its_lease_back(server: Server, tmp_path: Path) -> None:
    store = store_in(tmp_path)

    def fail() -> None:
        (store.unfinished("stage", KEY) / WORK / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        make(store, before=fail)
    assert json.loads(server.read(f"{BASE}/lease"))["owner"] == "" and server.names() == [f"{BASE}/lease"]
    assert make(store_in(tmp_path / "other")).state == "ran"
