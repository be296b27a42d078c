"""The models of a working directory: versions, which of them is current, and the history of every decision.

`DIR/data/models/` holds `v1/`, `v2/` ... (written beside and renamed in, never changed), `current` (a link to one
of them), `history.jsonl` (a line each decision) and `looks.json` (for how many comparisons each person was used). The
history is written first and is what counts: after a stop between the line and the link the old model is current, and
the next decision moves the link (`settle`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from facegan.core.errors import ConfigError, UserError
from facegan.core.files import fsync, new_folder, replace_link, write_private
from facegan.recognition.saved_model import CURRENT, current_model, models_of, read_spec

HISTORY, LOOKS, LOCK = "history.jsonl", "looks.json", "lock"
CHOSEN = ("promoted", "rollback")
"""The events after which another version is current."""


@dataclass(frozen=True)
class TestSetLooks:
    """How often models were compared on some people before: `seen` of them at all, `most` times at most."""

    people: int
    seen: int
    most: int


class Models:
    """The registry of a working directory; what changes it is called within `locked`."""

    def __init__(self, workdir: Path) -> None:
        self.root = models_of(workdir)

    def folder(self, version: str) -> Path:
        """The folder of a version."""
        return self.root / version

    def versions(self) -> list[str]:
        """All versions that are there, oldest first."""
        names = (path.name for path in self.root.glob("v*") if path.is_dir() and re.fullmatch(r"v[1-9]\d*", path.name))
        return sorted(names, key=_number)

    def current(self) -> str | None:
        """The version that `current` leads to; None where there is none."""
        folder = current_model(self.root)
        return None if folder is None else folder.name

    def find(self, version: str | None = None) -> Path:
        """The folder of a version, or of the current one; raises ConfigError where it is not there."""
        versions = self.versions()
        if version is None and (version := self.current()) is None:
            hint = f"choose one of {', '.join(versions)}, " if versions else ""
            raise ConfigError(f"there is no current model in '{self.root}'", fix=f"{hint}promote one or give --workdir")
        if version not in versions:
            raise ConfigError(f"there is no model '{version}'", fix=f"the models are: {', '.join(versions) or 'none'}")
        return self.folder(version)

    def spec(self, version: str) -> dict[str, Any]:
        """`model.json` of a version; raises UserError where it cannot be read."""
        return read_spec(self.folder(version))

    def history(self) -> list[dict[str, Any]]:
        """Every decision, oldest first; a line that was torn by a kill is left out."""
        lines = []
        with contextlib.suppress(FileNotFoundError):
            for text in (self.root / HISTORY).read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict) and "event" in line and "version" in line:
                        lines.append(line)
        return lines

    def champions(self) -> list[str]:
        """The versions that rollback leads back through, the current one last."""
        stack: list[str] = []
        for line in self.history():
            version = line["version"]
            if line["event"] == "erased":
                stack = [earlier for earlier in stack if earlier != version]
            elif line["event"] == "rollback" and version in stack:
                stack = stack[: len(stack) - stack[::-1].index(version)]
            elif line["event"] in CHOSEN:
                stack.append(version)
        return stack

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process changes the registry at a time: an OS lock, released when it dies. Settles the link first."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.root / LOCK, mode=0o600):
            self.settle()
            yield

    def add(self, write: Callable[[Path, str], None]) -> str:
        """Add a version, all or nothing: `write(folder, version)` fills it. No number is used twice."""
        numbers = [_number(name) for name in (*self.versions(), *(line["version"] for line in self.history()))]
        version = f"v{max(numbers, default=0) + 1}"
        with new_folder(self.folder(version)) as folder:
            write(folder, version)
            for path in folder.iterdir():
                fsync(path)
        fsync(self.root)
        return version

    def decide(self, event: str, version: str, why: str, **more: Any) -> None:
        """Write a decision to the history, then let `current` follow it."""
        previous = self.current()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._append({"at": now, "event": event, "version": version, "before": previous, "why": why, **more})
        self.settle()

    def settle(self) -> None:
        """Let `current` lead where the history says: a decision counts as soon as its line is written."""
        champions, link = self.champions(), self.root / CURRENT
        if champions and champions[-1] in self.versions():
            replace_link(link, champions[-1])
        elif link.is_symlink() and (self.history() or not link.exists()):
            link.unlink()

    def _append(self, line: dict[str, Any]) -> None:
        """Append a line, on the disk before this returns; a line torn by a kill before it is closed first."""
        text = json.dumps(line, allow_nan=False) + "\n"
        descriptor = os.open(self.root / HISTORY, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        fsync(self.root)

    def looks(self) -> dict[str, int]:
        """{identity: for how many comparisons they were used}."""
        try:
            path = self.root / LOOKS
            return {str(name): int(n) for name, n in json.loads(path.read_bytes()).items()} if path.exists() else {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            fix = "restore it from a backup; deleting it forgets how often people were looked at"
            raise UserError(f"{self.root / LOOKS} cannot be read: {error}", fix=fix) from error

    def look(self, people: Iterable[str]) -> TestSetLooks:
        """Count one more comparison on some people, before it is made; return how many there were before."""
        counts, names = self.looks(), sorted(set(people))
        counts_before = [counts.get(name, 0) for name in names]
        self._write_looks({**counts, **{name: n + 1 for name, n in zip(names, counts_before, strict=True)}})
        return TestSetLooks(len(names), sum(n > 0 for n in counts_before), max(counts_before, default=0))

    def _write_looks(self, counts: dict[str, int]) -> None:
        write_private(self.root / LOOKS, json.dumps(counts, indent=1, sort_keys=True).encode())

    def forget(self, names: set[str], versions: list[str]) -> None:
        """Drop `names` from the looks, and record that `versions` are erased, before they are; none stays current."""
        counts = self.looks()
        if names & counts.keys():
            self._write_looks({name: n for name, n in counts.items() if name not in names})
        for version in versions:
            self.decide("erased", version, "descends from a person who was erased")


def _number(version: str) -> int:
    return int(version.removeprefix("v"))
