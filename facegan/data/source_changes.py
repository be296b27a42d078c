"""Watch a source for changes: each new content is reported once, when its files have stopped changing.

A look compares names, sizes and times, for which no file is read. Only when these have changed, and have then stayed
the same for a while, is the source read for its fingerprint. The content that was reported last is kept in
`DIR/data/watch/NAME.json` (keyed hashes, no names of files or people), so that nothing is reported twice or lost when
this process ends.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.core.files import user_path, write_private
from facegan.data.sources import SourceConfig
from facegan.data.suppression import LIST, SuppressionList

FOLDER = "watch"  # in data/
QUIET_S = 10.0  # how long nothing may have moved: a photo that is still being copied is not news


@dataclass(frozen=True)
class SourceChange:
    """A content that was not reported yet: how many files are `new` and `gone` since the one that was.

    A photo that was changed or renamed counts as one of each. `id` is unique; `at` is when it was found (UTC).
    """

    id: str
    at: str
    new: int
    gone: int
    fingerprint: str

    def __str__(self) -> str:
        new = f"{self.new} new file{'s' * (self.new != 1)}"
        return f"{new}, {self.gone} gone" if self.gone else new


@dataclass(frozen=True)
class SourceState:
    """A content: `listing`, a digest of its files' names, sizes and times, its `fingerprint`, and a hash of each file's
    name and bytes."""

    listing: str
    fingerprint: str
    files: tuple[str, ...]


class SourceWatch:
    """Watches one source for one process; `clock` counts seconds."""

    def __init__(
        self,
        source: SourceConfig,
        workdir: Path,
        name: str,
        quiet_s: float = QUIET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._workdir, self._quiet_s, self._clock = source, workdir, quiet_s, clock
        self._state = workdir / "data" / FOLDER / f"{name}.json"
        self._source_digest = digest(source.model_dump(mode="json"))
        self._salt, self._reported, self._pending = self._read()
        self._last_listing, self._unchanged_since = "", clock()
        self._fingerprinted_listing = (
            ""  # the listing that was read for its fingerprint: not again before something moves
        )

    @property
    def files(self) -> int | None:
        """How many files the content has that was reported last; None before the first look is done."""
        return None if self._reported is None else len(self._reported.files)

    def begin(self) -> None:
        """Take the present content as known, unless one of this source already is; raises UserError as `rows`."""
        if self._reported is None:
            self._reported = self._read_state(self._listing())
            self._save()

    def look(self) -> SourceChange | None:
        """The change to report, the same until `told` is called; None where there is none (yet).

        The first content ever seen of a source is taken as known. Raises UserError, as the source's `rows`, once for
        each state of its files.
        """
        if self._pending is None:
            self._compare()
        return self._pending and self._pending[0]

    def told(self) -> None:
        """Note that the change of the last `look` was reported."""
        assert self._pending is not None
        self._reported, self._pending = self._pending[1], None
        self._save()

    def _compare(self) -> None:
        now, listing = self._clock(), self._listing()
        if listing != self._last_listing:
            self._last_listing, self._unchanged_since = listing, now
        is_known = self._reported is not None and listing == self._reported.listing
        if is_known or listing == self._fingerprinted_listing or now - self._unchanged_since < self._quiet_s:
            return
        self._fingerprinted_listing = listing
        state = self._read_state(listing)
        if self._listing() != listing:
            self._fingerprinted_listing = ""  # it moved while it was read
            return
        if self._reported is not None and state.fingerprint != self._reported.fingerprint:
            before, after = set(self._reported.files), set(state.files)
            at = datetime.now(UTC).isoformat()
            change = SourceChange(str(uuid.uuid4()), at, len(after - before), len(before - after), state.fingerprint)
            self._pending = change, state
        else:
            self._reported = state
        self._save()

    def _read_state(self, listing: str) -> SourceState:
        """The content, for which every file is read: what a run would find, without people who were erased."""
        source = SuppressionList.read(self._workdir).without(self._source)
        entries = source.entries()
        hashes = (hmac.new(self._salt, json.dumps(entry).encode(), hashlib.sha256).hexdigest() for entry in entries)
        return SourceState(listing, source.fingerprint(entries), tuple(sorted(value[:16] for value in hashes)))

    def _listing(self) -> str:
        """A digest of names, sizes and times of all files that a run would read, and of the suppression list."""
        roots = [path for name in self._source.paths if (path := getattr(self._source, name, None))]
        lines = [line for root in roots for line in _files(user_path(root))]
        return digest([sorted(lines), list(_files(self._workdir / "data" / LIST))])

    def _read(self) -> tuple[bytes, SourceState | None, tuple[SourceChange, SourceState] | None]:
        """(salt, reported state, pending change) that an earlier process saved; new where it watched another source."""
        try:
            record: dict[str, Any] = json.loads(self._state.read_bytes())
            if record["of"] != self._source_digest:
                raise FileNotFoundError
            pending = record["pending"] and (SourceChange(**record["pending"][0]), _state_from(record["pending"][1]))
            return bytes.fromhex(record["salt"]), _state_from(record["told"]), pending
        except FileNotFoundError:
            return secrets.token_bytes(16), None, None
        except (OSError, ValueError, KeyError, TypeError) as error:
            fix = "delete it: what the source holds then is taken as known"
            raise UserError(f"{self._state} cannot be read: {error!r}", fix=fix) from error

    def _save(self) -> None:
        assert self._reported is not None
        pending = self._pending and [asdict(self._pending[0]), asdict(self._pending[1])]
        record = {
            "of": self._source_digest,
            "salt": self._salt.hex(),
            "told": asdict(self._reported),
            "pending": pending,
        }
        self._state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._state, json.dumps(record).encode())


def _state_from(record: dict[str, Any]) -> SourceState:
    return SourceState(record["listing"], record["fingerprint"], tuple(record["files"]))


def _files(root: Path) -> Iterator[list[str | int]]:
    """Name, size and times of a file, or of every file below a folder; nothing where there is none."""
    top = os.fsencode(root)
    below = (os.path.join(folder, path) for folder, _, names in os.walk(top) for path in names)
    for path in [top] if os.path.isfile(top) else below:
        try:
            status = os.stat(path)
        except OSError:  # gone meanwhile, or a link to nowhere
            continue
        # The time of the last change of status too: `cp -p` and rsync set the other one back.
        yield [path.hex(), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
