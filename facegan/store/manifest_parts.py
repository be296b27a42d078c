"""A stage's manifest on object storage: a small file in the stage's local folder points to its parts.

`manifest.remote.json` takes the place of `manifest/`; `facegan.data.manifest` follows it. Parts are read remotely, a
row group at a time, or from a bounded cache of whole parts, each verified by its sha256.
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
from facegan.core.files import disk_error, evict
from facegan.store.bucket import Bucket, BucketObject

POINTER = "manifest.remote.json"
CACHE = "parts"


@dataclass(frozen=True)
class RemotePart:
    """One part: object `name` below `url`, as it was when it was listed. `str()` of it is its URL.

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
        """Open the part. Raises UserError where it has changed or cannot be reached."""
        if not self.cache_bytes:
            return Bucket(self.url).open(self.name, self.etag)
        path = self.cache / f"{self.sha256}.parquet"
        with contextlib.suppress(FileNotFoundError):
            if file_sha256(path) == self.sha256:
                os.utime(path)  # most recently used: `evict` takes others first
                return path.open("rb")
        fetch(Bucket(self.url), self.name, path, self.sha256)
        file = path.open("rb")
        evict(self.cache.glob("*.parquet"), self.cache_bytes, path)
        return file


def fetch(bucket: Bucket, name: str, path: Path, sha256: str) -> None:
    """Download an object to `path`, atomically; raises UserError where its sha256 is not that of the record, or the
    disk is full."""
    with _replacing(path) as temporary:
        bucket.download(name, temporary)
        if file_sha256(temporary) != sha256:
            fix = "run the same command again: what was changed is made anew"
            raise UserError(f"{bucket.path(name)} was changed: its sha256 is not that of its record", fix=fix)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` at the end; several processes may. Raises UserError when the disk is
    full."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise disk_error(path, error) from error


def write_pointer(
    folder: Path, url: str, outputs: dict[str, dict[str, Any]], listing: dict[str, BucketObject], cache_bytes: int
) -> None:
    """Let `folder` point to its manifest below `url`: `outputs` as in a record, `listing` as in the bucket now."""
    parts = {
        name: {"sha256": entry["sha256"], "bytes": entry["bytes"], "etag": listing[name].etag}
        for name, entry in sorted(outputs.items())
    }
    total_bytes = sum(int(entry["bytes"]) for entry in outputs.values())
    pointer = {"url": url, "parts": parts, "cache_bytes": cache_bytes if total_bytes <= cache_bytes else 0}
    write(folder / POINTER, json.dumps(pointer, indent=1).encode())


def write(path: Path, data: bytes) -> None:
    """Write a small file atomically, unless it is there; several processes may. Raises UserError on a full disk."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def remote_parts(folder: Path) -> list[RemotePart]:
    """The parts that a folder points to, in order; none where it has no pointer."""
    try:
        pointer = json.loads((folder / POINTER).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return []
    cache = folder.parent.parent / CACHE
    return [
        RemotePart(pointer["url"], name, part["sha256"], part["bytes"], part["etag"], cache, pointer["cache_bytes"])
        for name, part in pointer["parts"].items()
    ]


FOLDER = "manifest"
