"""synthesize in shards: the same bytes whatever their size and order, and stored ones used after a kill -9."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backwards_engine import Backwards
from drawn import RUNTIME, Lab, pick, tiny
from facegan.data import manifest
from facegan.generation.shard_worker import (
    unpack_results,
)
from facegan.generation.synthesizer import PersonResult, Synthesizer
from facegan.pipeline import execute, graph
from facegan.pipeline.graph import Node
from facegan.runtime.context import Event
from facegan.runtime.engines import Engine
from facegan.runtime.engines.local import Local
from facegan.runtime.options import Runtime
from facegan.store.local import WORK, Artifact, Store


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


def run_again(
    node: Node, shared: Lab, root: Path, runtime: Runtime, on_event: Callable[[Event], None] = lambda _: None
) -> Artifact:
    """The stage once more, in a store of its own."""
    return execute.execute(node, Store(root), shared.done, runtime, on_event)


@pytest.mark.parametrize("size", [1, 9, 14, 10_000])
def test_the_size_of_a_shard_does_not_matter(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, size: int
) -> None:
    artifact = run_again(node, shared, tmp_path, RUNTIME.model_copy(update={"shard_images": size}))
    assert artifact.state == "ran" and artifact.record["outputs"] == made.record["outputs"]
    assert not (artifact.path / WORK).exists()


def test_nor_do_workers_who_begin_too_much(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def backwards(*_: Any) -> Iterator[Engine]:
        yield Backwards()

    monkeypatch.setattr(Local, "open", backwards)
    artifact = run_again(node, shared, tmp_path, RUNTIME.model_copy(update={"shard_images": 5}))
    assert artifact.record["outputs"] == made.record["outputs"]


def kill_at(
    number: int, make_person: Callable[..., PersonResult] = Synthesizer.make_person
) -> Callable[..., PersonResult]:
    """`Synthesizer.make_person` that dies with its process in the middle of a person."""
    calls = iter(range(number))

    def dying(synthesizer: Synthesizer, *arguments: Any) -> PersonResult:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return make_person(synthesizer, *arguments)

    return dying


@pytest.mark.parametrize("size", [9, 5])
def test_a_kill_in_mid_shard_costs_one_shard(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    runtime = RUNTIME.model_copy(update={"shard_images": 9})
    with monkeypatch.context() as patch:
        patch.setattr(Synthesizer, "make_person", kill_at(7))  # at the fourth shard of two people
        process = multiprocessing.get_context("fork").Process(target=run_again, args=(node, shared, tmp_path, runtime))
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
    requests, messages = [], []
    monkeypatch.setattr(
        Synthesizer,
        "make_person",
        lambda *arguments, make_person=Synthesizer.make_person: (
            requests.append(arguments[1]) or make_person(*arguments)
        ),
    )
    runtime = runtime.model_copy(update={"shard_images": size})
    artifact = run_again(node, shared, tmp_path, runtime, lambda event: messages.append(event.text))
    assert artifact.state == "resumed" and artifact.record["outputs"] == made.record["outputs"]
    assert "goes on from 3 finished shards" in messages
    assert all(request.train is None for request in requests)  # no train person was drawn again


def test_images_of_rejected_people_are_not_kept(
    node: Node, made: Artifact, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "synthesize" / f"{made.fingerprint}.incomplete" / WORK / "shards"
    stored_bytes: list[int] = []
    runtime, rmtree = RUNTIME.model_copy(update={"shard_images": 1}), shutil.rmtree

    def count_and_remove(path: Any, **options: Any) -> None:
        shards = [unpack_results(file.read_bytes()) for file in sorted(folder.glob("*/new-*"))]
        stored_bytes.append(sum(len(png) for results in shards for result in results for png, *_ in result.images))
        rmtree(path, **options)

    monkeypatch.setattr("facegan.store.local.shutil.rmtree", count_and_remove)
    artifact = run_again(node, shared, tmp_path, runtime)
    assert artifact.record["outputs"] == made.record["outputs"]
    rows = manifest.read(artifact.path, ["image", "identity"]).to_pylist()
    assert stored_bytes == [sum(len(row["image"]["bytes"]) for row in rows if row["identity"].startswith(manifest.NEW))]


def test_shards_of_other_versions_are_not_used(
    node: Node, shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of one fingerprint, in which other packages began."""
    with monkeypatch.context() as patch:
        patch.setattr("facegan.generation.shard_worker.package_versions", lambda: {"torch": "0.1"})
        patch.setattr(Synthesizer, "make_person", fail_at(5))
        with pytest.raises(RuntimeError, match="at 5"):
            run_again(node, shared, tmp_path, RUNTIME.model_copy(update={"shard_images": 1}))
    messages: list[str] = []
    artifact = run_again(node, shared, tmp_path, RUNTIME, lambda event: messages.append(event.text))
    assert artifact.state == "resumed" and not any("finished shards" in text for text in messages)


def fail_at(
    number: int, make_person: Callable[..., PersonResult] = Synthesizer.make_person
) -> Callable[..., PersonResult]:
    calls = iter(range(number))

    def failing(synthesizer: Synthesizer, *arguments: Any) -> PersonResult:
        if next(calls, None) is None:
            raise RuntimeError(f"at {number}")
        return make_person(synthesizer, *arguments)

    return failing
