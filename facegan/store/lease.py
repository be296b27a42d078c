"""A lease instead of a lock: an object that its holder writes anew every few seconds; who waits watches its ETag.

It spares work that is done twice, and no more than that: what decides is the conditional PUT of record.json. Clocks
play no part: a lease whose ETag one waiter has seen unchanged for LEASE_S is taken over.
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
    """A context manager that waits for the lease `name`, holds it and gives it back.

    `owner` names the working directory, by a random text: whoever is alone in it (an OS lock) takes over at once what a
    killed process of it left. `what` says in messages what is being made.
    """

    def __init__(self, bucket: Bucket, name: str, owner: str, what: str, say: Callable[[str], None]) -> None:
        self.bucket, self.name, self.owner, self.what, self.say = bucket, name, owner, what, say
        self.lost = False
        self._etag, self._session = "", uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Raises Unreachable where S3 cannot be asked."""
        told, seen, since = False, "", 0.0
        while True:
            there = self.bucket.read(self.name)
            if there is None:
                etag = self.bucket.create(self.name, self._body(self.owner))
            else:
                etag = None
                if there[1] != seen:
                    seen, since = there[1], time.monotonic()
                holder, dead = _told(there[0], "owner"), time.monotonic() - since >= LEASE_S
                if dead:
                    self.say(f"{self.what}: the run that was making it has not been heard of for {LEASE_S:g} s")
                if dead or holder in ("", self.owner):
                    etag = self.bucket.replace(self.name, self._body(self.owner), seen)
                elif not told:
                    self.say(f"{self.what} is being made by another run: waiting for it")
                    told = True
            if etag:
                self._check()
                self._etag = etag
                self._thread.start()
                return self
            if there is not None:
                time.sleep(POLL_S)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is None or not issubclass(kind, Unreachable):  # else nothing can be given back
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
            except UserError:  # the network: try again until somebody else has it
                continue
            if etag is None:
                self.lost = True
                self.say(f"{self.what}: another run has taken it over meanwhile; what is committed first stands")
                return
            self._etag = etag

    def _write(self, owner: str) -> str | None:
        """Write over what we wrote last; None where somebody else has written since."""
        etag = self.bucket.replace(self.name, self._body(owner), self._etag)
        if etag is None and (there := self.bucket.read(self.name)) and _told(there[0], "session") == self._session:
            etag = self.bucket.replace(self.name, self._body(owner), there[1])  # an answer of the last beat was lost
        return etag

    def _check(self) -> None:
        """Raise UserError where the server writes over what is there though it was told not to."""
        if self.bucket.create(self.name, self._body(self.owner)) is not None:
            fix = "use a server that honours it: Amazon S3 does"
            raise UserError(f"the server of {self.bucket.url} takes no notice of If-None-Match", fix=fix)

    def _body(self, owner: str) -> bytes:
        """Who holds it ('': nobody); like no other body, so that each write has an ETag of its own."""
        return json.dumps({"owner": owner, "session": self._session, "beat": uuid.uuid4().hex}).encode()


def _told(data: bytes, what: str) -> str:
    try:
        return str(json.loads(data)[what])
    except (ValueError, KeyError, TypeError):
        return ""  # no lease of ours: free
