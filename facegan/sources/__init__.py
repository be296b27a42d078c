"""Where real faces come from. One file adds a member."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from facegan.frozen import Frozen
from facegan.registry import Registry
from facegan.store import file_sha256

SOURCES = Registry("source", __name__)


LARGEST_BYTES = 500_000_000

Side = Literal["develop", "test"]
"""What a source's own protocol says of a person: for train and val, or for test."""


@dataclass(frozen=True)
class SourceImage:
    """One image file of a source: `identity` is `dataset/name`, `relative` its path below the source's root.

    `landmarks` are five points x, y in px (eyes, nose, corners of the mouth). `side` is None where the source leaves
    it to prepare.split who trains and who tests.
    """

    identity: str
    relative: str
    path: Path
    license: str | None = None
    group: str | None = None
    side: Side | None = None
    landmarks: tuple[float, ...] | None = None

    def read(self) -> bytes:
        """The file's bytes; raises OSError when it cannot be read or is larger than 500 MB."""
        check_size(self.path.stat().st_size)
        return self.path.read_bytes()

    def sha256(self) -> str:
        """Of the file's bytes; raises OSError as `read`."""
        return file_sha256(self.path)


def check_size(size: int) -> None:
    """Raise OSError for a file that is larger than any photo."""
    if size > LARGEST_BYTES:
        raise OSError(errno.EFBIG, f"larger than {LARGEST_BYTES / 1e6:.0f} MB")


class SourceConfig(Frozen):
    """What every source has: a literal `kind` and `rows`. Its `paths` are where it lies, not what it is."""

    paths: ClassVar[tuple[str, ...]] = ("root",)
    kind: str

    def rows(self) -> Iterator[SourceImage]:
        """The images, sorted by (identity, relative path); raises UserError when there are none."""
        raise TypeError(f"{type(self).__name__} must define rows()")

    def fingerprint(self) -> str:
        """sha256 of the sorted (relative path, file sha256) list: the same faces elsewhere are the same source.

        Where the source says who is for test, each entry says it too.
        """
        digests = sorted((row.relative, _sha256(row), *([row.side] if row.side else [])) for row in self.rows())
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def identifying(self) -> dict[str, object]:
        """The part of the config that is hashed: everything but where the files lie."""
        return self.model_dump(mode="json", exclude=set(self.paths))


def _sha256(row: SourceImage) -> str:
    """Of a file's bytes; "unreadable" for one that cannot be read, which then goes to the quarantine."""
    try:
        return row.sha256()
    except OSError:
        return "unreadable"
