"""The content-addressed stage store: fingerprint, lock, verify, commit.

`root/<stage>/<fingerprint>/` holds a stage's outputs and `record.json`, which is written last; a rename commits all.
Unfinished work lies in `<fingerprint>.incomplete/`; its `work/` folder (checkpoints) is dropped at the commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from facegan.core import locks
from facegan.core.digests import digest, file_sha256
from facegan.core.files import TEMPORARY, disk_error, fsync, write_atomic

State = Literal["ran", "resumed", "cached"]
WORK = "work"


@dataclass(frozen=True)
class Artifact:
    """A finished stage: the path of its outputs, how they came about (`state`), `seconds` in this run."""

    stage: str
    fingerprint: str
    path: Path
    state: State
    seconds: float = 0.0
    note: str = ""
    record: dict[str, Any] = field(default_factory=dict, repr=False)

    def output_digest(self) -> str:
        """sha256 over the sorted (relative path, sha256) of all outputs."""
        outputs = self.record["outputs"]
        return digest({name: entry["sha256"] for name, entry in outputs.items()})


def fingerprint(stage: str, version: int, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """The key of a stage's outputs: sha256 over {stage, version, resolved config, input fingerprints}."""
    return digest({"stage": stage, "stage_version": version, "config": config, "inputs": inputs})


def verify(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The record of a finished stage, or None with the reason: sizes and sha256 of all outputs are checked."""
    if not (folder / "record.json").is_file():
        return None, "never made" if not folder.exists() else "record.json is missing"
    record, reason = read_record((folder / "record.json").read_bytes())
    for name, entry in record["outputs"].items() if record is not None else ():
        path = folder / name
        if not path.is_file():
            return None, f"{name} is missing"
        if path.stat().st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:
            return None, f"{name} was changed"
    return record, reason


def read_record(data: bytes) -> tuple[dict[str, Any] | None, str]:
    """The record in the bytes of a record.json, or None with the reason."""
    try:
        record = json.loads(data)
        for name, entry in record["outputs"].items():
            str(name), entry["bytes"], entry["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"record.json cannot be read ({type(error).__name__}: {error})"
    return record, ""


def other_input(record: dict[str, Any], inputs: dict[str, Artifact]) -> str:
    """Why a record does not belong to these inputs; '' where it does."""
    for name, artifact in inputs.items():
        if record.get("inputs", {}).get(name, {}).get("outputs_sha256") != artifact.output_digest():
            return f"its input {name} is not the one that it was made from"
    return ""


class Store:
    """The stages under `root` (`DIR/data/store`).

    `facegan.store.object_storage.RemoteStore` keeps finished ones on object storage, and overrides what differs.
    """

    keeps = True  # whether finished stages stay on this disk

    def __init__(self, root: Path) -> None:
        self.root = root
        self.finished = root  # local folders of finished stages: `<stage>/<fingerprint>/record.json` and more

    def folder(self, stage: str, key: str) -> Path:
        """The folder of the outputs of a stage."""
        return self.finished / stage / key

    def unfinished(self, stage: str, key: str) -> Path:
        """The folder in which a stage is made."""
        return self.root / stage / f"{key}.incomplete"

    @property
    def place(self) -> str:
        """Where finished stages are, for messages."""
        return str(self.root)

    def has(self, stage: str, key: str) -> bool:
        """Whether a stage was finished; nothing is verified."""
        return (self.folder(stage, key) / "record.json").is_file()

    def fetch(self, artifact: Artifact) -> Path:
        """The folder to read an artifact from, complete."""
        return artifact.path

    @contextlib.contextmanager
    def in_use(self, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Keep commands from erasing; waits, and says so, while one erases. A run holds this until it ends."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locks.shared(self.root / "lock", say):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep runs from starting; raises UserError that names a running one."""
        with locks.exclusive(self.root / "lock"):
            yield

    def lookup(self, stage: str, key: str, inputs: dict[str, Artifact]) -> tuple[Artifact | None, str]:
        """A verified hit, or None, and the reason why there is none."""
        hit, reason, _ = self._find(stage, key, inputs)
        return hit, reason

    def _find(self, stage: str, key: str, inputs: dict[str, Artifact]) -> tuple[Artifact | None, str, str]:
        """`lookup`, and what stands there now: a text for the commit, '' where nothing does."""
        record, reason = verify(self.folder(stage, key))
        reason = reason if record is None else other_input(record, inputs)
        standing = "a folder" if self.folder(stage, key).exists() else ""
        if record is None or reason:
            return None, reason, standing
        return Artifact(stage, key, self.folder(stage, key), "cached", record=record), "", standing

    def produce(
        self,
        stage: str,
        version: int,
        config: dict[str, Any],
        inputs: dict[str, Artifact],
        raw: dict[str, str],
        work: Callable[[Path], None],
        environment: Callable[[], dict[str, Any]],
        say: Callable[[str], None] = lambda _: None,
    ) -> Artifact:
        """The stage's artifact: a verified hit, or made by `work(folder)` and committed.

        `raw` are fingerprints of inputs that are no stage (a source, a weights file); `environment` is called when
        the work is done. One process works on a fingerprint at a time; another waits, says so, and then finds
        the hit.
        """
        key = fingerprint(stage, version, config, {**raw, **{n: a.fingerprint for n, a in inputs.items()}})
        started = time.monotonic()
        with self.in_use(say), self._turn(stage, key, say):
            hit, reason, standing = self._find(stage, key, inputs)
            if hit is not None:
                self._tidy(stage, key)
                return hit
            if standing:
                say(f"{stage} {key[:12]} is made again: {reason}")
                self._clear(stage, key)
            incomplete = self.unfinished(stage, key)
            resumed = (incomplete / WORK).is_dir() and any((incomplete / WORK).iterdir())
            record = self._sealed_record(incomplete, inputs)
            if record is None:
                try:
                    (incomplete / WORK).mkdir(parents=True, exist_ok=True)
                    work(incomplete)
                except OSError as error:
                    if error.errno in (28, 122):  # ENOSPC, EDQUOT
                        raise disk_error(incomplete, error) from error
                    raise
                seconds = time.monotonic() - started
                record = {
                    "stage": stage,
                    "stage_version": version,
                    "fingerprint": key,
                    "config": config,
                    "inputs": {
                        **{n: {"sha256": value} for n, value in raw.items()},
                        **{n: _input(a) for n, a in inputs.items()},
                    },
                    "duration_s": round(seconds, 3),
                    **environment(),
                }
                record = self._seal(incomplete, record)
            else:
                resumed, seconds = True, 0.0
            record = self._commit(stage, key, record, standing, say)
        note = reason if reason != "never made" else ""
        state: State = "resumed" if resumed else "ran"
        return Artifact(stage, key, self.folder(stage, key), state, seconds, note, record)

    @contextlib.contextmanager
    def _turn(self, stage: str, key: str, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the OS lock of a stage, which ends with the process."""
        lock = self._lock(stage, key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{stage} {key[:12]} is being made by another run: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _lock(self, stage: str, key: str) -> FileLock:
        """The lock held by a process that works on a stage in this working directory."""
        path = self.root / stage / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(str(path), mode=0o600)

    def _tidy(self, stage: str, key: str) -> None:
        """Remove what a killed commit has left; nothing here, where a rename is the commit."""

    def _clear(self, stage: str, key: str) -> None:
        """Remove a stage that is made again."""
        shutil.rmtree(self.folder(stage, key))

    def _sealed_record(self, incomplete: Path, inputs: dict[str, Artifact]) -> dict[str, Any] | None:
        """The record of work that is done and sealed but not committed yet, if any."""
        return None

    def _seal(self, incomplete: Path, record: dict[str, Any]) -> dict[str, Any]:
        """Drop the checkpoints, hash the outputs, write the record last; returns it."""
        shutil.rmtree(incomplete / WORK, ignore_errors=True)
        for unfinished in incomplete.rglob(TEMPORARY.format("*")):
            unfinished.unlink()  # of a process that was killed while it wrote a file
        outputs = {}
        for path in sorted(p for p in incomplete.rglob("*") if p.is_file()):
            name = path.relative_to(incomplete).as_posix()
            if name != "record.json":
                outputs[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
                fsync(path)
        record = {**record, "outputs": outputs}
        write_atomic(incomplete / "record.json", json.dumps(record, indent=1, sort_keys=True).encode())
        return record

    def _commit(
        self, stage: str, key: str, record: dict[str, Any], standing: str, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Commit sealed work, atomically; returns the record that stands then."""
        final = self.folder(stage, key)
        os.replace(self.unfinished(stage, key), final)
        fsync(final.parent)
        return record


def _input(artifact: Artifact) -> dict[str, Any]:
    outputs = {name: entry["sha256"] for name, entry in artifact.record["outputs"].items()}
    return {
        "stage": artifact.stage,
        "fingerprint": artifact.fingerprint,
        "outputs_sha256": artifact.output_digest(),
        "outputs": outputs,
    }
