"""Shards: the same bytes whatever their size and order, kept over a kill -9, made again where they are not whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drawn import RUNTIME, Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.shard_worker import (
    SynthesizerJob,
    digest,
    is_whole,
    make_people,
    pack_results,
    synthesizer_of,
    unpack_results,
    versions,
    write_job,
)
from facegan.generation.synthesizer import PersonRequest, PersonResult, Synthesizer
from facegan.generation.thresholds import prepared
from facegan.pipeline import execute, graph
from facegan.pipeline.graph import Node
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.runtime.engines import ENGINES, Engine
from facegan.runtime.engines.dask import Dask
from facegan.runtime.engines.local import Local
from facegan.runtime.options import Runtime
from facegan.runtime.shards import ShardQueue, Span, attempts_to_begin
from facegan.store.local import WORK, Artifact, Store

# Spans, handed out and taken in.


class Backwards:
    """An engine of four workers who finish in the wrong order."""

    remote = False

    def __init__(self) -> None:
        self.out: list[tuple[str, Callable[..., bytes], tuple[Any, ...]]] = []
        self.done: list[str] = []

    def workers(self) -> int:
        return 4

    def free(self) -> int:
        return 8 - len(self.out)

    def submit(self, name: str, work: Callable[..., bytes], *arguments: Any) -> None:
        self.out.append((name, work, arguments))

    def next(self) -> tuple[str, bytes]:
        name, work, arguments = self.out.pop()
        self.done.append(name)
        return name, work(*arguments)


def double(number: int) -> bytes:
    return str(2 * number).encode()


def spans(count: int, kind: str = "x") -> Callable[[], tuple[Span, tuple[Any, ...]] | None]:
    left = iter(range(count))

    def plan() -> tuple[Span, tuple[Any, ...]] | None:
        number = next(left, None)
        return None if number is None else (Span(kind, number, number + 1), (number,))

    return plan


def test_shards_are_taken_in_in_order(tmp_path: Path) -> None:
    engine = Backwards()
    found = list(ShardQueue(tmp_path / "a", engine, double, bytes.isdigit).run(spans(100)))
    assert [span.start for span, _ in found] == list(range(100))
    assert [data for _, data in found] == [double(number) for number in range(100)]
    assert engine.done != sorted(engine.done) and len(engine.done) == 100


def test_what_is_stored_is_not_worked_on_again(tmp_path: Path) -> None:
    (tmp_path / "of-another-digest").mkdir()
    list(ShardQueue(tmp_path / "a", Backwards(), double, bytes.isdigit).run(spans(20)))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    for number, damaged in ((3, b""), (0, b"half of it"), (19, None)):
        path = tmp_path / "a" / Span("x", number, number + 1).name
        path.unlink() if damaged is None else path.write_bytes(damaged)
    desk, engine = ShardQueue(tmp_path / "a", again := Backwards(), double, bytes.isdigit), again
    assert len(desk.stored) == 19
    assert [data for _, data in desk.run(spans(20))] == [double(number) for number in range(20)]
    assert sorted(engine.done) == [Span("x", number, number + 1).name for number in (0, 3, 19)]


def test_a_span_ends_where_a_stored_one_does(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for span in (Span("x", 0, 7), Span("x", 20, 22), Span("y", 9, 10)):
        (tmp_path / "a" / span.name).write_bytes(b"1")
    (tmp_path / "a" / ".x-000000030-000000040.tmp").write_bytes(b"1")  # of a write that was stopped
    desk = ShardQueue(tmp_path / "a", Backwards(), double, bytes.isdigit)
    assert [desk.stop("x", start, stop) for start, stop in ((0, 100), (7, 12), (7, 100), (20, 21), (22, 90))] == [
        7, 12, 20, 22, 90,
    ]  # fmt: skip


def test_no_attempt_too_many_by_one_worker() -> None:
    assert [attempts_to_begin(10, unknown, 0.1, 1, 4) for unknown in (0, 7, 10)] == [4, 3, 0]
    assert attempts_to_begin(0, 0, 0.5, 1, 4) == attempts_to_begin(0, 0, 0.5, 8, 4) == 0
    assert (
        attempts_to_begin(10, 0, 0.5, 2, 50) == 10
        and attempts_to_begin(10, 10, 0.5, 2, 50) == 10
        and attempts_to_begin(10, 20, 0.5, 2, 50) == 0
    )
    assert attempts_to_begin(10, 0, 0.5, 2, 4) == 4 and attempts_to_begin(10, 18, 0.5, 2, 50) == 2


def test_shots_are_packed_exactly() -> None:
    rng = np.random.default_rng(0)
    shots = [
        PersonResult([(b"one", '{"w": 1}'), (b"", "")], [("filter", 3, 1, "ü")], rng.normal(size=9).astype(np.float32)),
        PersonResult(near=True),
        PersonResult(),
    ]
    data = pack_results(shots)
    assert is_whole(data) and not is_whole(data[:-1]) and not is_whole(data[:40]) and not is_whole(b"")
    for one, other in zip(shots, unpack_results(data), strict=True):
        assert (one.images, one.removed, one.near) == (other.images, other.removed, other.near)
        assert one.centre.dtype == other.centre.dtype and np.array_equal(one.centre, other.centre)


# The stage.


@pytest.fixture(scope="module")
def node(faces: Path) -> Node:
    """New people of whom some are turned down, and a parent of whom weighs half now and then."""
    mixture = {"kind": "mixture", "concentration": 0.5}
    changes = {"new_identities": 3, "max_attempts": 10, "oversample": 1.5, "seed": 1, "identities": mixture}
    return pick(graph.build(tiny(faces, synthesize=changes)), "synthesize")


@pytest.fixture(scope="module")
def made(node: Node, shared: Lab) -> Artifact:
    """With the default size of a shard."""
    artifact = shared.make(node)
    report = json.loads((artifact.path / "filters.json").read_bytes())
    removed = {entry["filter"]: entry["removed"] for entry in report["counts"]}
    assert report["made"]["new people"] > 1 and removed["new people too close to each other"] > 1, removed
    return artifact


def again(
    node: Node, shared: Lab, root: Path, runtime: Runtime, on_event: Callable[[Event], None] = lambda _: None
) -> Artifact:
    """The stage once more, in a store of its own."""
    return execute.execute(node, Store(root), shared.done, runtime, on_event)


@pytest.mark.parametrize("size", [1, 9, 14, 10_000])
def test_the_size_of_a_shard_does_not_matter(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, size: int
) -> None:
    found = again(node, shared, tmp_path, RUNTIME.model_copy(update={"shard_images": size}))
    assert found.state == "ran" and found.record["outputs"] == made.record["outputs"]
    assert not (found.path / WORK).exists()


def test_nor_do_workers_who_begin_too_much(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def backwards(*_: Any) -> Iterator[Engine]:
        yield Backwards()

    monkeypatch.setattr(Local, "open", backwards)
    found = again(node, shared, tmp_path, RUNTIME.model_copy(update={"shard_images": 5}))
    assert found.record["outputs"] == made.record["outputs"]


def kill_at(number: int, take: Callable[..., PersonResult] = Synthesizer.take) -> Callable[..., PersonResult]:
    """`Synthesizer.take` that dies with its process in the middle of a person."""
    left = iter(range(number))

    def dying(studio: Synthesizer, *arguments: Any) -> PersonResult:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(studio, *arguments)

    return dying


@pytest.mark.parametrize("size", [9, 5])
def test_a_kill_in_mid_shard_costs_one_shard(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    runtime = RUNTIME.model_copy(update={"shard_images": 9})
    with monkeypatch.context() as patch:
        patch.setattr(Synthesizer, "take", kill_at(7))  # at the fourth shard of two people
        process = multiprocessing.get_context("fork").Process(target=again, args=(node, shared, tmp_path, runtime))
        process.start()
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (folder,) = (tmp_path / "synthesize" / f"{made.fingerprint}.incomplete" / WORK / "shards").iterdir()
    stored = sorted(path.name for path in folder.iterdir())
    assert stored == [
        "new-000000000-000000002",
        "train-000000000-000000002",
        "train-000000002-000000004",
    ]
    (folder / stored[0]).write_bytes((folder / stored[0]).read_bytes()[:-1])  # and a disk that forgets
    taken, said = [], []
    monkeypatch.setattr(
        Synthesizer, "take", lambda *given, take=Synthesizer.take: taken.append(given[1]) or take(*given)
    )
    runtime = runtime.model_copy(update={"shard_images": size})
    found = again(node, shared, tmp_path, runtime, lambda event: said.append(event.text))
    assert found.state == "resumed" and found.record["outputs"] == made.record["outputs"]
    assert "goes on from 3 finished shards" in said
    assert all(order.train is None for order in taken)  # no train person was drawn again


def test_images_of_who_is_turned_down_are_not_kept(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "synthesize" / f"{made.fingerprint}.incomplete" / WORK / "shards"
    bytes_of: list[int] = []
    runtime, drop = RUNTIME.model_copy(update={"shard_images": 1}), shutil.rmtree

    def look(path: Any, **options: Any) -> None:
        shards = [unpack_results(file.read_bytes()) for file in sorted(folder.glob("*/new-*"))]
        bytes_of.append(sum(len(png) for shots in shards for shot in shots for png, _ in shot.images))
        drop(path, **options)

    monkeypatch.setattr("facegan.store.local.shutil.rmtree", look)
    found = again(node, shared, tmp_path, runtime)
    assert found.record["outputs"] == made.record["outputs"]
    rows = manifest.read(found.path, ["image", "identity"]).to_pylist()
    assert bytes_of == [sum(len(row["image"]["bytes"]) for row in rows if row["identity"].startswith(manifest.NEW))]


def test_shards_of_other_options_are_not_gone_on_from(
    node: Node, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of one fingerprint, in which other packages began."""
    with monkeypatch.context() as patch:
        patch.setattr("facegan.generation.shard_worker.package_versions", lambda: {"torch": "0.1"})
        patch.setattr(Synthesizer, "take", fail_at(5))
        with pytest.raises(RuntimeError, match="at 5"):
            again(node, shared, tmp_path, RUNTIME.model_copy(update={"shard_images": 1}))
    said: list[str] = []
    found = again(node, shared, tmp_path, RUNTIME, lambda event: said.append(event.text))
    assert found.state == "resumed" and not any("finished shards" in text for text in said)


def fail_at(number: int, take: Callable[..., PersonResult] = Synthesizer.take) -> Callable[..., PersonResult]:
    left = iter(range(number))

    def failing(studio: Synthesizer, *arguments: Any) -> PersonResult:
        if next(left, None) is None:
            raise RuntimeError(f"at {number}")
        return take(studio, *arguments)

    return failing


def test_a_studio_is_the_same_where_it_is_opened(faces: Path, shared: Lab, tmp_path: Path) -> None:
    recipe = tiny(faces)
    needs = pick(graph.build(recipe), "synthesize").needs
    inputs = {name: shared.make(needed).path for name, needed in needs.items()}
    G, spec = load_generator(inputs["generator"], torch.device("cpu"))
    studio, _ = prepared(recipe.synthesize, inputs, G, spec["identities"], torch.device("cpu"))
    order = PersonRequest(G.codes()[1].detach().numpy(), (1,), np.ones(1), 5, train=1)
    job = write_job(studio, tmp_path / "basis.safetensors", inputs)
    assert make_people(job, 1, [order]) == make_people(studio, 1, [order])
    other = replace(studio, image=studio.image + 0.5)
    assert make_people(other, 1, [order]) != make_people(studio, 1, [order])
    digests = {digest(one, {name: path.name for name, path in inputs.items()}, 1) for one in (studio, other)}
    assert len(digests) == 2


# The family of engines.


@pytest.mark.parametrize("kind", sorted(ENGINES.load()))
def test_each_engine_is_in_no_fingerprint(recipe: Recipe, kind: str) -> None:
    other = recipe.model_copy(update={"runtime": RUNTIME.model_copy(update={"engine": ENGINES.get(kind)()})})
    assert [item.key for item in graph.build(other)] == [item.key for item in graph.build(recipe)]
    assert Recipe.model_validate(other.model_dump(mode="json")) == other


def test_no_cluster_is_imported_unasked() -> None:
    code = (
        "import sys, facegan.stages.synthesize, facegan.pipeline.preload, flows.pipeline; "
        "print('distributed' in sys.modules, flush=True)"  # who preloads ends without tidying up
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["False"]


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("facegan.runtime.engines.dask.CONNECT_S", 1.0)
    said = r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: "
    with pytest.raises(UserError, match=said) as error, Dask(address="tcp://127.0.0.1:9").open(print):
        pass
    assert "dask scheduler" in error.value.fix


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="needs the package distributed") as error, Dask().open(print):
        pass
    assert "facegan[dask]" in error.value.fix


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tls_ca": "ca.pem"}, "go together"),
        ({"address": "tls://host:1"}, "needs tls_ca"),
        ({"tls_ca": "a", "tls_cert": "b", "tls_key": "c"}, "needs tls_ca"),
        ({"address": "host:1"}, "pattern"),
    ],
)
def test_options_of_a_cluster(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Dask.model_validate(options)
    assert Dask(address="tls://h:1", tls_ca="a", tls_cert="b", tls_key="c").timeout_s == 900


def test_a_worker_that_is_not_like_the_stage(tmp_path: Path) -> None:
    job = SynthesizerJob(str(tmp_path / "generator"), "guide", "basis", "{}", "cpu", tuple(versions().items()))
    with pytest.raises(UserError, match=r"does not see .*generator") as error:
        synthesizer_of(job)
    assert "--workdir" in error.value.fix
    with pytest.raises(UserError, match=r"does not have torch 0\.1: its images would have other bytes"):
        synthesizer_of(replace(job, versions=(("torch", "0.1"),)))
