"""Where real faces come from. One file adds a member."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facegan.frozen import Frozen
from facegan.registry import Registry
from facegan.store import file_sha256

SOURCES = Registry("source", __name__)


@dataclass(frozen=True)
class SourceImage:
    """One image file of a source: `identity` is `dataset/name`, `relative` its path below the source's root."""

    identity: str
    relative: str
    path: Path
    license: str | None = None
    group: str | None = None


class SourceConfig(Frozen):
    """What every source has: a literal `kind` and `rows`. Its root path is where it lies, not what it is."""

    kind: str

    def rows(self) -> Iterator[SourceImage]:
        """The images, sorted by (identity, relative path); raises UserError when there are none."""
        raise TypeError(f"{type(self).__name__} must define rows()")

    def fingerprint(self) -> str:
        """sha256 of the sorted (relative path, file sha256) list: the same faces elsewhere are the same source."""
        digests = sorted((row.relative, _sha256(row.path)) for row in self.rows())
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def identifying(self) -> dict[str, object]:
        """The part of the config that is hashed: everything but where the files lie."""
        return self.model_dump(mode="json", exclude={"root"})


def _sha256(path: Path) -> str:
    """Of a file's bytes; "unreadable" for one that cannot be read, which then goes to the quarantine."""
    try:
        return file_sha256(path)
    except OSError:
        return "unreadable"
