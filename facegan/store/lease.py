"""A lease instead of a lock: an object that its holder rewrites every few seconds; a waiting process watches its ETag.

It only avoids duplicate work: the conditional PUT of record.json decides. No clocks are compared: a lease whose ETag
one waiter has seen unchanged for LEASE_S is taken over.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable

from facegan.core.errors import UserError
from facegan.store.bucket import Bucket, Unreachable

LEASE_S, BEAT_S, POLL_S = 60.0, 10.0, 1.0


class Lease:
    """A context manager that waits for the lease `name`, holds it and releases it.

    `owner` identifies the working directory, by a random text: a process that holds its OS lock takes over at once the
    lease of a killed process of it. `what` names in messages what is being made.
    """

    def __init__(self, bucket: Bucket, name: str, owner: str, what: str, say: Callable[[str], None]) -> None:
        self.bucket, self.name, self.owner, self.what, self.say = bucket, name, owner, what, say
        self.lost = False
        self._etag, self._session = "", uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Raises Unreachable where S3 cannot be asked."""
        has_reported, last_etag, seen_at = False, "", 0.0
        while True:
            current = self.bucket.read(self.name)
            if current is None:
                etag = self.bucket.create(self.name, self._body(self.owner))
            else:
                etag = None
                if current[1] != last_etag:
                    last_etag, seen_at = current[1], time.monotonic()
                holder, expired = _field(current[0], "owner"), time.monotonic() - seen_at >= LEASE_S
                if expired:
                    self.say(f"{self.what}: the run that was making it has not been heard of for {LEASE_S:g} s")
                if expired or holder in ("", self.owner):
                    etag = self.bucket.replace(self.name, self._body(self.owner), last_etag)
                elif not has_reported:
                    self.say(f"{self.what} is being made by another run: waiting for it")
                    has_reported = True
            if etag:
                self._check()
                self._etag = etag
                self._thread.start()
                return self
            if current is not None:
                time.sleep(POLL_S)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is None or not issubclass(kind, Unreachable):  # otherwise the lease cannot be released
            self._thread.join()
            if not self.lost:
                try:
                    self._write("")
                except UserError:
                    self.say(f"{self.what}: its lease could not be given back; it ends after {LEASE_S:g} s")

    def _renew(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                etag = self._write(self.owner)
            except UserError:  # the network: try again until another process has the lease
                continue
            if etag is None:
                self.lost = True
                self.say(f"{self.what}: another run has taken it over meanwhile; what is committed first stands")
                return
            self._etag = etag

    def _write(self, owner: str) -> str | None:
        """Overwrite our last write; None where another process has written since."""
        etag = self.bucket.replace(self.name, self._body(owner), self._etag)
        if etag is None and (current := self.bucket.read(self.name)) and _field(current[0], "session") == self._session:
            # The response to the last beat was lost.
            etag = self.bucket.replace(self.name, self._body(owner), current[1])
        return etag

    def _check(self) -> None:
        """Raise UserError where the server ignores If-None-Match and overwrites an existing object."""
        if self.bucket.create(self.name, self._body(self.owner)) is not None:
            fix = "use a server that honours it: Amazon S3 does"
            raise UserError(f"the server of {self.bucket.url} takes no notice of If-None-Match", fix=fix)

    def _body(self, owner: str) -> bytes:
        """The content: who holds the lease ('': nobody), and a random text, so that each write has its own ETag."""
        return json.dumps({"owner": owner, "session": self._session, "beat": uuid.uuid4().hex}).encode()


def _field(data: bytes, name: str) -> str:
    try:
        return str(json.loads(data)[name])
    except (ValueError, KeyError, TypeError):
        return ""  # no lease of ours: free
