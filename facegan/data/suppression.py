"""People who asked to be erased: a private list in the working directory that runs and imports consult.

A source is then read as though it did not hold them, so that its fingerprint is that of a source without them, and
a list that names nobody in it changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from facegan.core.errors import UserError
from facegan.core.files import user_path, write_private
from facegan.data.names import forms
from facegan.data.sources import SourceConfig, SourceImage, SourceNotes

LIST, COPIES = "forgotten.json", "copies.json"
ABOUT = "Salted hashes of people (names, sha256 of photos) who were erased by `facegan forget` and stay out. Keep it."


@dataclass(frozen=True)
class SuppressionList:
    """Salted hashes of names and of photos' sha256: HMAC-SHA256 (RFC 2104), so that neither stands in the file."""

    salt: str = ""
    digests: frozenset[str] = frozenset()

    @classmethod
    def read(cls, workdir: Path) -> SuppressionList:
        """The list of a working directory, empty where there is none; raises UserError when it cannot be read."""
        path = workdir / "data" / LIST
        if not path.exists():
            return cls()
        try:
            record = json.loads(path.read_bytes())
            salt, digests = record["salt"], frozenset(record["digests"])
            if not (isinstance(salt, str) and salt and all(isinstance(value, str) for value in digests)):
                raise ValueError("no salt, or a hash that is no text")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the list of people who were erased, {path}, cannot be read: {error}",
                fix="restore it from a backup: without it they would come back",
            ) from error
        return cls(salt, digests)

    def knows(self, word: str) -> bool:
        """Whether an identity's name, in any of its forms, or a photo's sha256 is on the list."""
        return any(self._hash(form) in self.digests for form in forms(word))

    def _hash(self, word: str) -> str:
        return hmac.new(self.salt.encode(), word.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def add(self, words: Iterable[str], workdir: Path) -> SuppressionList:
        """The list with more names and sha256s, written to `workdir/data` for its owner alone."""
        extended = self if self.salt else SuppressionList(secrets.token_hex(16))
        extended = replace(extended, digests=self.digests | {extended._hash(word) for word in words})
        record = {"about": ABOUT, "salt": extended.salt, "digests": sorted(extended.digests)}
        write_private(workdir / "data" / LIST, json.dumps(record, indent=1).encode())
        return extended

    def without(self, source: SourceConfig) -> SourceConfig:
        """The source as though it did not hold them; itself where the list is empty."""
        if not self.digests:
            return source
        return WithoutSuppressed(kind=source.kind, source=source, salt=self.salt, digests=self.digests)


class WithoutSuppressed(SourceConfig):
    """A source less the people of a list, by the name and by the bytes of their photos. No member of the family."""

    source: SourceConfig
    salt: str
    digests: frozenset[str]

    @property
    def root(self) -> str:
        """Where the source is, for a message."""
        return str(getattr(self.source, "root", self.kind))

    @cached_property
    def _suppressed(self) -> SuppressionList:
        return SuppressionList(self.salt, self.digests)

    def knows(self, identity: str) -> bool:
        """Whether an identity was erased."""
        return self._suppressed.knows(identity)

    @property
    def notes(self) -> SourceNotes:
        """See SourceConfig."""
        return self.source.notes

    def identifying(self) -> dict[str, object]:
        """See SourceConfig."""
        return self.source.identifying()

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig; raises UserError when nobody else is left."""
        any_left = False
        for row in self.source.rows():
            words = (row.identity, *row.parents, *filter(None, (row.written, row.source_sha256)))
            if any(map(self._suppressed.knows, words)):
                continue
            try:
                row = replace(row, sha256_hex=row.sha256())
            except OSError:  # it goes to the quarantine with the reason
                yield row
                any_left = True
                continue
            if not self._suppressed.knows(str(row.sha256_hex)):
                yield row
                any_left = True
        if not any_left:
            raise UserError(
                f"'{self.root}' holds nobody but people who were erased by `facegan forget`",
                fix="give a source with others",
            )


def recorded_copies(workdir: Path) -> list[Path]:
    """Paths that `facegan import` and `facegan export` wrote outside the store, as the working directory has them."""
    path = workdir / "data" / COPIES
    try:
        return [Path(str(name)) for name in json.loads(path.read_bytes())] if path.exists() else []
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the list of imports and exports, {path}, cannot be read: {error}", fix="delete it") from error


def record_copy(workdir: Path, out: Path) -> None:
    """Note that `out` holds faces, for a later `facegan forget`; only where the working directory has a store."""
    if (workdir / "data" / "store").is_dir():
        write_copies(workdir, {*recorded_copies(workdir), user_path(out).absolute()})


def write_copies(workdir: Path, paths: Iterable[Path]) -> None:
    """Write the list of imports and exports."""
    write_private(workdir / "data" / COPIES, json.dumps(sorted(map(str, paths)), indent=1).encode())
