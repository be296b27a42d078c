"""The stage store on object storage, where there is no rename and no lock: a conditional PUT of record.json commits.

    <prefix>/<stage>/<fingerprint>/record.json           written last, under a condition; names an attempt
    <prefix>/<stage>/<fingerprint>/lease                 who makes it now (`facegan.store.lease`)
    <prefix>/<stage>/<fingerprint>/<attempt>/<output>    each writer has its own attempt: nobody overwrites it

On this machine `data/store` holds unfinished work and OS locks, as for a local store, and
`data/cache/<URL>/<stage>/<fingerprint>/` what was fetched: everything but the manifest, to which it points. The cache
may be deleted whenever no run is active.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import Timeout

from facegan.core.digests import digest, file_sha256
from facegan.core.errors import UserError
from facegan.store import manifest_parts
from facegan.store.bucket import AGAIN, Bucket, BucketObject
from facegan.store.lease import Lease
from facegan.store.local import Artifact, Store, other_input, read_record, verify

RECORD, LEASE, OBJECTS = "record.json", "lease", "objects"
MANIFEST = f"{manifest_parts.FOLDER}/"
REMOTES = "remotes"  # in the local store: the buckets used by its runs
ATTEMPT = re.compile(r"[0-9a-f]{32}")


class RemoteStore(Store):
    """The stages below `url` (`s3://bucket/prefix`); `workdir` holds unfinished work and the cache.

    Manifests of up to `cache_bytes` are kept on this disk once they were read, `cache_bytes` in all; 0: none.
    """

    keeps = False

    def __init__(self, workdir: Path, url: str, cache_bytes: int = 0) -> None:
        super().__init__(workdir / "data" / "store")
        self.bucket, self.cache_bytes = Bucket(url), cache_bytes
        self.finished = workdir / "data" / "cache" / digest(self.bucket.url)[:12]

    @property
    def place(self) -> str:
        """Where finished stages lie, for people."""
        return self.bucket.url

    def has(self, stage: str, key: str) -> bool:
        """Whether a stage was finished; nothing is verified."""
        return self.bucket.read(f"{stage}/{key}/{RECORD}") is not None

    @contextlib.contextmanager
    def in_use(self, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """As in a local store: commands on this machine do not erase meanwhile; those on other machines may."""
        with super().in_use(say):
            private(self.finished)
            manifest_parts.write(self.root / REMOTES / digest(self.bucket.url)[:12], self.bucket.url.encode())
            yield

    def lookup(self, stage: str, key: str, inputs: dict[str, Artifact]) -> tuple[Artifact | None, str]:
        """As in a local store."""
        hit, reason = super().lookup(stage, key, inputs)
        if hit is not None and self.unfinished(stage, key).exists():
            with contextlib.suppress(Timeout), self._lock(stage, key).acquire(timeout=0):  # else a process works on it
                self._tidy(stage, key)
        return hit, reason

    def _tidy(self, stage: str, key: str) -> None:
        """Remove local work: of a writer that died after it had committed, or checkpoints of a stage that another
        machine has finished meanwhile."""
        shutil.rmtree(self.unfinished(stage, key), ignore_errors=True)

    def _find(self, stage: str, key: str, inputs: dict[str, Artifact]) -> tuple[Artifact | None, str, str]:
        """See Store. Verified by one listing: each output has its size and the ETag of its upload. Where the ETag
        differs (a bucket that was copied), the object is read and its sha256 decides."""
        base = f"{stage}/{key}"
        stored = self.bucket.read(f"{base}/{RECORD}")
        if stored is None:
            return None, "never made", ""
        data, etag = stored
        record, reason = _safe_record(data)
        if record is None:
            return None, reason, etag
        attempt = f"{base}/{record[OBJECTS]['attempt']}"
        objects = self.bucket.entries(attempt)
        for name, entry in record["outputs"].items():
            if name not in objects:
                return None, f"{name} is missing", etag
            is_unchanged = objects[name].size == entry["bytes"] and (
                objects[name].etag == record[OBJECTS]["etags"].get(name)
                or self.bucket.sha256(f"{attempt}/{name}") == entry["sha256"]
            )
            if not is_unchanged:
                return None, f"{name} was changed", etag
        if reason := other_input(record, inputs):
            return None, reason, etag
        record[OBJECTS]["etags"] = {name: objects[name].etag for name in record["outputs"]}
        private(self.finished)
        self._point(stage, key, record)  # for readers of the folder in the cache
        manifest_parts.write(
            self.folder(stage, key) / RECORD, data
        )  # for `facegan plan`: how long it took, how large it is
        return Artifact(stage, key, self.folder(stage, key), "cached", record=record), "", etag

    def fetch(self, artifact: Artifact) -> Path:
        """A local folder with all outputs, each checked by its sha256; the manifest stays in the bucket."""
        folder, outputs = self.folder(artifact.stage, artifact.fingerprint), artifact.record["outputs"]
        attempt = f"{artifact.stage}/{artifact.fingerprint}/{artifact.record[OBJECTS]['attempt']}"
        for name, entry in outputs.items():
            path = folder / name
            if not name.startswith(MANIFEST) and not (path.is_file() and file_sha256(path) == entry["sha256"]):
                manifest_parts.fetch(self.bucket, f"{attempt}/{name}", path, entry["sha256"])
        self._point(artifact.stage, artifact.fingerprint, artifact.record)
        return folder

    def _point(self, stage: str, key: str, record: dict[str, Any]) -> None:
        """Let the folder in the cache point to the stage's manifest, where it has one."""
        parts = {n.removeprefix(MANIFEST): e for n, e in record["outputs"].items() if n.startswith(MANIFEST)}
        if parts:
            etags = record[OBJECTS]["etags"]
            objects = {name: BucketObject(int(e["bytes"]), etags[MANIFEST + name]) for name, e in parts.items()}
            url = self.bucket.path(f"{stage}/{key}/{record[OBJECTS]['attempt']}/{manifest_parts.FOLDER}")
            manifest_parts.write_pointer(self.folder(stage, key), url, parts, objects, self.cache_bytes)

    @contextlib.contextmanager
    def _turn(self, stage: str, key: str, say: Callable[[str], None]) -> Iterator[None]:
        """The OS lock against others in this working directory, the lease against other machines."""
        with super()._turn(stage, key, say):
            name, what = f"{stage}/{key}/{LEASE}", f"{stage} {key[:12]}"
            with Lease(self.bucket, name, self._owner(), what, say):
                yield

    def _owner(self) -> str:
        """A random text that stands for this working directory."""
        path = self.root / "owner"
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                temporary = path.with_name(f".owner-{uuid.uuid4().hex}")
                temporary.write_text(uuid.uuid4().hex)
                try:
                    os.link(temporary, path)  # atomic
                finally:
                    temporary.unlink()
        return path.read_text()

    def _clear(self, stage: str, key: str) -> None:
        """Remove the cached files; the commit replaces what is in the bucket."""
        shutil.rmtree(self.folder(stage, key), ignore_errors=True)

    def _sealed_record(self, incomplete: Path, inputs: dict[str, Artifact]) -> dict[str, Any] | None:
        """See Store: work made here whose upload failed."""
        record, _ = verify(incomplete)
        return None if record is None or other_input(record, inputs) else record

    def _commit(
        self, stage: str, key: str, record: dict[str, Any], standing: str, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Upload to a new attempt, then write record.json on the condition that it is still as `_find` saw it."""
        base, attempt, folder = f"{stage}/{key}", uuid.uuid4().hex, self.unfinished(stage, key)
        # Attempts of writers that cannot commit any more after us: their condition is the present record.json.
        others = [name for name in self.bucket.entries(base) if ATTEMPT.fullmatch(name.partition("/")[0])]
        for name in record["outputs"]:
            self.bucket.upload(folder / name, f"{base}/{attempt}/{name}")
        uploaded = self.bucket.entries(f"{base}/{attempt}")
        if odd := [n for n, e in record["outputs"].items() if n not in uploaded or uploaded[n].size != e["bytes"]]:
            raise UserError(f"{self.bucket.path(f'{base}/{attempt}/{odd[0]}')} did not arrive whole", fix=AGAIN)
        etags = {name: uploaded[name].etag for name in record["outputs"]}
        remote_record = {**record, OBJECTS: {"attempt": attempt, "etags": etags}}
        data = json.dumps(remote_record, indent=1, sort_keys=True).encode()
        name = f"{base}/{RECORD}"
        etag = self.bucket.replace(name, data, standing) if standing else self.bucket.create(name, data)
        if etag is None:
            self.bucket.delete([f"{base}/{attempt}/{output}" for output in uploaded])
            remote_record = self._adopt_other(stage, key, remote_record, say)
        else:
            self.bucket.delete([f"{base}/{other}" for other in others])
        self._keep(stage, key, remote_record)
        return remote_record

    def _adopt_other(
        self, stage: str, key: str, own_record: dict[str, Any], say: Callable[[str], None]
    ) -> dict[str, Any]:
        """The record of the writer that committed first."""
        other_artifact, reason, _ = self._find(stage, key, {})
        if other_artifact is None:
            fix = "run the same command again"
            raise UserError(f"{self.bucket.path(f'{stage}/{key}')}: another run committed it, but {reason}", fix=fix)
        is_same = other_artifact.record["outputs"] == own_record["outputs"]
        comparison = (
            "with the same bytes" if is_same else "with OTHER bytes than were made here: those stand, these are dropped"
        )
        say(f"{stage} {key[:12]} was committed by another run meanwhile, {comparison}")
        return other_artifact.record

    def _keep(self, stage: str, key: str, record: dict[str, Any]) -> None:
        """Move local outputs to the cache, where `fetch` looks for them; drop the rest."""
        unfinished, folder = self.unfinished(stage, key), self.folder(stage, key)
        (unfinished / RECORD).unlink()
        for name, entry in record["outputs"].items():
            path = unfinished / name
            if not name.startswith(MANIFEST) and path.is_file() and file_sha256(path) == entry["sha256"]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.replace(path, folder / name)
        self._point(stage, key, record)
        manifest_parts.write(folder / RECORD, json.dumps(record, indent=1, sort_keys=True).encode())
        shutil.rmtree(unfinished)


def _safe_record(data: bytes) -> tuple[dict[str, Any] | None, str]:
    """A record all of whose names stay below the stage's folder, or None and the reason."""
    record, reason = read_record(data)
    if record is None:
        return None, reason
    try:
        is_valid = bool(ATTEMPT.fullmatch(record[OBJECTS]["attempt"])) and isinstance(record[OBJECTS]["etags"], dict)
    except (KeyError, TypeError):
        is_valid = False
    names = map(PurePosixPath, record["outputs"])
    if not is_valid or any(name.is_absolute() or ".." in name.parts for name in names):
        return None, "record.json is none of this store"
    return record, ""


def private(folder: Path) -> None:
    """Make a folder, and the one above it, for their owner alone."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def remotes(workdir: Path) -> dict[str, str]:
    """The buckets used by runs in a working directory: {name of their folder in data/cache: URL}."""
    return {path.name: path.read_text() for path in sorted((workdir / "data" / "store" / REMOTES).glob("*"))}


def store_of_cached(folder: Path) -> RemoteStore | None:
    """The store that a folder in `data/cache` was fetched from; None for any other folder."""
    for parent in folder.absolute().parents:
        workdir = parent.parents[2] if parent.parent.name == "cache" and parent.parent.parent.name == "data" else None
        if workdir is not None and (url := remotes(workdir).get(parent.name)):
            return RemoteStore(workdir, url)
    return None
