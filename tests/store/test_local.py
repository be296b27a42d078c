"""The store: keys, commits, hits that are verified, locks that death releases, disks that are full."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from drawn import RUNTIME, Lab, pick
from facegan.core.digests import canonical, file_sha256
from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from facegan.store.local import WORK, Artifact, Store, fingerprint, verify
from facegan.training.checkpoints import Checkpoints

CHILD = """
import os, sys, time
from pathlib import Path
from facegan.store.local import Store, WORK
mode, root, mark = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])


def work(out):
    seen = (out / WORK / "half").exists()
    (out / WORK / "half").write_text("half")
    (mark / f"working-{mode}").write_text(str(seen))
    while mode != "quick" and not (mark / "go").exists():
        time.sleep(0.01)
    (out / "data.bin").write_bytes(b"made")


def say(text):
    (mark / f"said-{mode}").write_text(text)
artifact = Store(root).produce("stage", 1, {"a": 1}, {}, {}, work, dict, say)
print(artifact.state, flush=True)
"""


def produce(
    store: Store,
    data: bytes = b"made",
    config: dict[str, Any] | None = None,
    inputs: dict[str, Artifact] | None = None,
    stage: str = "stage",
    messages: list[str] | None = None,
    work: Callable[[Path], None] | None = None,
) -> Artifact:
    def write(out: Path) -> None:
        (out / "sub").mkdir(exist_ok=True)
        (out / "data.bin").write_bytes(data)
        (out / "sub" / "more.bin").write_bytes(data * 2)

    say = messages.append if messages is not None else lambda _: None
    return store.produce(stage, 1, config or {"a": 1}, inputs or {}, {}, work or write, dict, say)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# Keys.


@pytest.mark.parametrize(
    "value",
    [{1, 2}, float("nan"), float("inf"), object(), b"bytes", Path("."), {"deep": [{"er": {3}}]}, {(1, 2): 3}],
)
def test_what_has_no_single_form_raises(value: Any) -> None:
    with pytest.raises(TypeError, match="canonical"):
        canonical(value)
    with pytest.raises(TypeError):
        fingerprint("stage", 1, {"value": value}, {})


def test_every_part_of_a_key_counts() -> None:
    base = fingerprint("stage", 1, {"a": 1}, {"x": "1"})
    others = [
        fingerprint("other", 1, {"a": 1}, {"x": "1"}),
        fingerprint("stage", 2, {"a": 1}, {"x": "1"}),
        fingerprint("stage", 1, {"a": 2}, {"x": "1"}),
        fingerprint("stage", 1, {"a": 1, "b": None}, {"x": "1"}),
        fingerprint("stage", 1, {"a": 1}, {"x": "2"}),
        fingerprint("stage", 1, {"a": 1}, {"y": "1"}),
    ]
    assert len({base, *others}) == 7
    assert base == fingerprint("stage", 1, {"a": 1}, {"x": "1"})


def test_which_keys_of_a_recipe_change(recipe: Recipe, faces: Path, tmp_path: Path) -> None:
    def keys(changed: Recipe) -> dict[str, str]:
        return {node.title: node.key for node in graph.build(changed)}

    def differing(**changes: Any) -> set[str]:
        data = recipe.model_dump()
        for path, value in changes.items():
            *above, last = path.split("__")
            section = data
            for key in above:
                section = section[key]
            section[last] = value
        new_keys = keys(Recipe.model_validate(data))
        assert new_keys.keys() == keys(recipe).keys()
        return {title.split(" ")[0] + (" real" if " real" in title and "+" not in title else "")
                for title, key in keys(recipe).items() if key != new_keys[title]}  # fmt: skip

    assert differing(runtime__threads=7, runtime__device="cuda:3", runtime__log_interval_s=9.0) == set()
    gan = {"train_gan", "synthesize", "audit", "merge", "train_recognizer", "fit_recognizer", "benchmark", "report"}
    assert differing(train_gan__kimg=1.0) == gan  # the arm `real`, the guide and the judge stay
    assert differing(train_recognizer__lr=0.5) >= {"train_recognizer real", "train_recognizer", "synthesize"}
    assert differing(benchmark__batch_size=3) == {"benchmark", "benchmark real", "report"}
    assert "prepare" in differing(prepare__size_px=48)

    elsewhere = shutil.copytree(faces, tmp_path / "elsewhere")
    assert differing(prepare__source__root=str(elsewhere)) == set()
    (elsewhere / "p00" / "0.png").write_bytes((elsewhere / "p00" / "1.png").read_bytes())
    assert "prepare" in differing(prepare__source__root=str(elsewhere))


# Commits and hits.


def test_the_record_is_written_last_and_says_it_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import facegan.store.local as module

    files_at_record: list[list[str]] = []

    def spy(path: Path, data: bytes) -> None:
        if path.name == "record.json":
            assert path.parent.name.endswith(".incomplete")
            files_at_record.append(sorted(p.name for p in path.parent.rglob("*") if p.is_file()))
        write_atomic(path, data)

    monkeypatch.setattr(module, "write_atomic", spy)
    artifact = produce(store)
    assert files_at_record == [["data.bin", "more.bin"]]
    record = json.loads((artifact.path / "record.json").read_text())
    assert record["outputs"]["sub/more.bin"] == {
        "bytes": 8,
        "sha256": file_sha256(artifact.path / "sub" / "more.bin"),
    }
    assert set(record["outputs"]) == {"data.bin", "sub/more.bin"}
    assert record["fingerprint"] == artifact.fingerprint == artifact.path.name
    assert record["config"] == {"a": 1} and record["stage"] == "stage" and record["stage_version"] == 1
    assert not list(artifact.path.parent.glob("*.incomplete")) and not (artifact.path / WORK).exists()


def test_the_record_names_inputs_and_environment(recipe: Recipe, lab: Lab) -> None:
    merge = lab.stage(recipe, "merge", "real")
    prepare = lab.done[pick(graph.build(recipe), "prepare").key]
    assert merge.record["inputs"]["real"]["fingerprint"] == prepare.fingerprint
    assert merge.record["inputs"]["real"]["outputs_sha256"] == prepare.output_digest()
    torch.set_num_threads(2)  # what an earlier stage may have left behind
    gan = lab.stage(recipe, "train_gan")
    assert gan.record["threads"] == RUNTIME.threads == 1  # those that it ran with, not those before it
    assert gan.record["device"] == "cpu" and gan.record["packages"]["torch"] == version("torch")


def test_a_hit_is_not_made_again(store: Store) -> None:
    assert produce(store).state == "ran"
    again = produce(store, work=lambda _: pytest.fail("made again"))
    assert again.state == "cached" and again.note == ""


def damage_flip(path: Path) -> None:
    data = bytearray((path / "data.bin").read_bytes())
    data[1] ^= 1
    (path / "data.bin").write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped": (damage_flip, "data.bin was changed"),
    "deleted": (lambda p: (p / "sub" / "more.bin").unlink(), "sub/more.bin is missing"),
    "truncated": (lambda p: os.truncate(p / "data.bin", 2), "data.bin was changed"),
    "emptied": (lambda p: os.truncate(p / "data.bin", 0), "data.bin was changed"),
    "longer": (lambda p: (p / "data.bin").write_bytes(b"made!"), "data.bin was changed"),
    "no record": (lambda p: (p / "record.json").unlink(), "record.json is missing"),
    "torn record": (lambda p: os.truncate(p / "record.json", 40), "record.json cannot be read"),
    "strange record": (lambda p: (p / "record.json").write_text("[1]"), "record.json cannot be read"),
    "bare record": (
        lambda p: (p / "record.json").write_text('{"outputs": {"a": {}}}'),
        "record.json cannot be read",
    ),
    "a folder": (lambda p: ((p / "data.bin").unlink(), (p / "data.bin").mkdir()), "data.bin is missing"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_output_is_made_again_and_reported(store: Store, how: str) -> None:
    first = produce(store)
    damage, reason = DAMAGE[how]
    damage(first.path)
    messages: list[str] = []
    again = produce(store, messages=messages)
    assert again.state == "ran" and reason in again.note
    assert len(messages) == 1 and reason in messages[0] and "made again" in messages[0]
    assert (again.path / "data.bin").read_bytes() == b"made"
    assert produce(store).state == "cached"


def test_no_flipped_byte_of_a_record_breaks_the_store(store: Store) -> None:
    source = produce(store, stage="source")
    first = produce(store, inputs={"source": source})
    path = first.path / "record.json"
    content = path.read_bytes()
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 0x04]) + content[index + 1 :])
        artifact, reason = store.lookup("stage", first.fingerprint, {"source": source})
        assert artifact is not None or reason


def test_a_changed_input_is_made_again(store: Store) -> None:
    source = produce(store, b"one", stage="source")
    assert produce(store, inputs={"source": source}).state == "ran"
    assert produce(store, inputs={"source": source}).state == "cached"
    shutil.rmtree(source.path)
    source = produce(store, b"two", stage="source")  # same fingerprint, other bytes
    again = produce(store, inputs={"source": source})
    assert again.state == "ran" and "its input source is not the one" in again.note


def test_interrupted_work_is_gone_on_from(store: Store) -> None:
    def broken(out: Path) -> None:
        (out / WORK / "checkpoint").write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        produce(store, work=broken)
    key = fingerprint("stage", 1, {"a": 1}, {})
    assert store.lookup("stage", key, {})[1] == "never made"

    def rest(out: Path) -> None:
        (out / "data.bin").write_text((out / WORK / "checkpoint").read_text() + " whole")

    artifact = produce(store, work=rest)
    assert artifact.state == "resumed" and (artifact.path / "data.bin").read_text() == "half whole"
    assert verify(artifact.path)[0] is not None and set(artifact.record["outputs"]) == {"data.bin"}


# Two at once.


def start(mode: str, root: Path, mark: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, mode, str(root), str(mark)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, child: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline and (child.poll() in (None, 0)), f"{path.name} never came"
        time.sleep(0.01)
    return path.read_text()


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()


def test_a_second_process_waits_and_then_hits(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    first = start("first", tmp_path / "store", tmp_path)
    children.append(first)
    wait_for(tmp_path / "working-first", first)
    second = start("second", tmp_path / "store", tmp_path)
    children.append(second)
    assert "waiting" in wait_for(tmp_path / "said-second", second)
    (tmp_path / "go").touch()
    assert first.communicate(timeout=60)[0].strip() == "ran"
    assert second.communicate(timeout=60)[0].strip() == "cached"
    assert not (tmp_path / "working-second").exists()


def test_a_killed_holder_lets_go_and_its_work_is_kept(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    first = start("first", tmp_path / "store", tmp_path)
    children.append(first)
    wait_for(tmp_path / "working-first", first)
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=60)
    second = start("quick", tmp_path / "store", tmp_path)
    children.append(second)
    assert second.communicate(timeout=60)[0].strip() == "resumed"
    assert (tmp_path / "working-quick").read_text() == "True"  # found what the first had left


@pytest.mark.parametrize("torn", ["record.json", "made", "figures/curve.png"])
def test_a_file_that_a_killed_writer_had_begun_is_no_output(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    undisturbed = produce(Store(tmp_path / "undisturbed"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def dies(out: Path) -> None:
        monkeypatch.setattr("facegan.store.local.os.replace", killed)
        monkeypatch.setattr(Path, "unlink", killed)
        write_atomic(out / torn, b"half")

    with pytest.raises(KeyboardInterrupt):
        produce(store, work=dies)
    monkeypatch.undo()
    assert list(store.root.glob("stage/*.incomplete/**/.*.tmp"))
    assert produce(store).record["outputs"] == undisturbed.record["outputs"]


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    try:
        process = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if process.returncode:
        pytest.skip("this user may not mount a small tmpfs")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_full_disk_leaves_the_checkpoint_before(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk)
    checkpoints.save(8, {"w": torch.ones(1000)})
    with pytest.raises(UserError, match=r"No space left on device.*MB free") as error:
        checkpoints.save(16, {"w": torch.ones(400_000)})
    assert "free some space" in error.value.fix and str(small_disk) in str(error.value)
    assert names(small_disk) == ["checkpoint-000000000008.pt"]  # and no temporary file
    latest = checkpoints.load_latest()
    assert latest is not None and latest[0] == 8 and torch.equal(latest[1]["w"], torch.ones(1000))


def test_a_stage_on_a_full_disk_says_so_and_goes_on_later(small_disk: Path) -> None:
    store, ballast = Store(small_disk / "store"), small_disk / "ballast"
    Checkpoints(store.folder("stage", fingerprint("stage", 1, {"a": 1}, {})).with_suffix(".incomplete") / WORK).save(
        8, {"w": torch.ones(10)}
    )

    def plain(out: Path) -> None:  # a library's own write, not ours
        (out / "data.bin").write_bytes(b"x" * 400_000)

    ballast.write_bytes(b"0" * 700_000)
    with pytest.raises(UserError, match="No space left on device"):
        produce(store, work=plain)
    ballast.unlink()
    assert produce(store, work=plain).state == "resumed"


@pytest.mark.parametrize("what", ["manifest", "picture"])
def test_what_libraries_write_to_a_full_disk(small_disk: Path, what: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    noise = os.urandom(3_000_000)

    def work(out: Path) -> None:
        if what == "manifest":
            pq.write_table(pa.table({"a": [noise]}), out / "a.parquet", compression="none")
        else:
            Image.frombytes("L", (1500, 2000), noise).save(out / "a.png")

    with pytest.raises(UserError, match="No space left on device"):
        produce(Store(small_disk / "store"), work=work)
