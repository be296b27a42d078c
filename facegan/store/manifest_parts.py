"""A stage's manifest where it lies on object storage: a small file in the stage's local folder points to its parts.

`manifest.remote.json` stands in the place of `manifest/`; `facegan.data.manifest` follows it. Parts are read where they
lie, a row group at a time, or from a bounded cache of whole parts, each verified by its sha256.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.core.files import disk_error
from facegan.store.bucket import Bucket, BucketObject

POINTER = "manifest.remote.json"
CACHE = "parts"


@dataclass(frozen=True)
class RemotePart:
    """One part: object `name` below `url`, as it was when it was found. `str()` of it is its URL.

    Where the whole manifest is not larger than `cache_bytes`, its parts are kept in the folder `cache`.
    """

    url: str
    name: str
    sha256: str
    size: int
    etag: str
    cache: Path
    cache_bytes: int

    def __str__(self) -> str:
        return f"{self.url}/{self.name}"

    @property
    def record(self) -> str:
        """The URL of the record by which the stage counts as finished."""
        return (
            f"{self.url.rsplit('/', 2)[0]}/record.json"  # that of the part is <stage>/<fingerprint>/<attempt>/manifest
        )

    def open(self) -> IO[bytes]:
        """The part to read from. Raises UserError where it is another by now or cannot be reached."""
        if not self.cache_bytes:
            return Bucket(self.url).open(self.name, self.etag)
        path = self.cache / f"{self.sha256}.parquet"
        with contextlib.suppress(FileNotFoundError):
            if file_sha256(path) == self.sha256:
                os.utime(path)  # used last: `_bound` takes others first
                return path.open("rb")
        fetch(Bucket(self.url), self.name, path, self.sha256)
        file = path.open("rb")
        _bound(self.cache, self.cache_bytes, path)
        return file


def fetch(bucket: Bucket, name: str, path: Path, sha256: str) -> None:
    """Bring an object to `path`, at once or not at all; raises UserError where its bytes are others than those of the
    record, or the disk is full."""
    with _replacing(path) as fresh:
        bucket.download(name, fresh)
        if file_sha256(fresh) != sha256:
            fix = "run the same command again: what was changed is made anew"
            raise UserError(f"{bucket.path(name)} was changed: its sha256 is not that of its record", fix=fix)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end, for several processes at once; raises UserError when the disk
    is full."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            fresh = Path(folder) / path.name
            yield fresh
            os.replace(fresh, path)
    except OSError as error:
        raise disk_error(path, error) from error


def _bound(folder: Path, most_bytes: int, keep: Path) -> None:
    """Delete the parts used longest ago until the folder holds `most_bytes` or less; readers keep theirs open."""
    found = []
    for path in folder.glob("*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    held = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if held <= most_bytes:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            held -= size


def write_pointer(
    folder: Path, url: str, outputs: dict[str, dict[str, Any]], there: dict[str, BucketObject], cache_bytes: int
) -> None:
    """Let `folder` point to its manifest below `url`: `outputs` as in a record, `there` as they are listed now."""
    parts = {
        name: {"sha256": entry["sha256"], "bytes": entry["bytes"], "etag": there[name].etag}
        for name, entry in sorted(outputs.items())
    }
    whole = sum(int(entry["bytes"]) for entry in outputs.values())
    told = {"url": url, "parts": parts, "cache_bytes": cache_bytes if whole <= cache_bytes else 0}
    write(folder / POINTER, json.dumps(told, indent=1).encode())


def write(path: Path, data: bytes) -> None:
    """Write a small file at once, unless it is there; several processes may. Raises UserError when the disk is full."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return
    with _replacing(path) as fresh:
        fresh.write_bytes(data)


def pointed(folder: Path) -> list[RemotePart]:
    """The parts that a folder points to, in order; none where it has no pointer."""
    try:
        told = json.loads((folder / POINTER).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return []
    cache = folder.parent.parent / CACHE
    return [
        RemotePart(told["url"], name, part["sha256"], part["bytes"], part["etag"], cache, told["cache_bytes"])
        for name, part in told["parts"].items()
    ]


FOLDER = "manifest"
