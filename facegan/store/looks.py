"""The ledger of looks: how often the same test people have been judged in a working directory.

`data/looks.jsonl` has one line for each report or study that was handed out: when, a digest of the test people of each
split, the recipe, the comparison, and the fingerprint of the report. It is only ever added to, under an OS lock, and
holds no names; `facegan gc` and `facegan forget` leave it. Each look lies beside its report too (`look.json`), from
where a ledger that was deleted is filled again. Nothing here ends a run: what cannot be read or written is said.

It belongs to the working directory, also where stages lie on object storage: S3 cannot add to an object, and several
working directories may share a bucket. Looks from elsewhere are then not counted, which is said.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facegan.core.files import fsync, write_atomic

LEDGER, BESIDE = "looks.jsonl", "look.json"
KEYS = ("time", "test_people", "recipe", "comparison", "fingerprint")
Entry = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """A report's place among the looks at its test people: `number` from 1; `earlier` are their entries, oldest first.

    unreadable: lines of the ledger that nobody can read any more. remarks: what makes the number uncertain, a sentence
    each.
    """

    entry: Entry
    number: int
    earlier: tuple[Entry, ...]
    unreadable: int
    remarks: tuple[str, ...]

    @property
    def text(self) -> str:
        """The number in a sentence."""
        before = f"; before it: {', '.join(dict.fromkeys(e['recipe'] for e in self.earlier))}" if self.earlier else ""
        remarks = "".join(f" ({remark})" for remark in self.remarks)
        return f"look {self.number} at these test people{before}{remarks}"

    def answer(self) -> dict[str, Any]:
        """As in the JSON answer."""
        return {
            "number": self.number,
            "earlier": list(self.earlier),
            "unreadable": self.unreadable,
            "text": self.text,
        }


def entry_of(test_people: list[str], recipe: str, comparison: dict[str, Any], fingerprint: str) -> Entry:
    """A line of the ledger, of now; test_people: one digest for each split."""
    named = {key: comparison[key] for key in ("metric", "baseline", "arm", "variant") if key in comparison}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return dict(zip(KEYS, (now, sorted(set(test_people)), recipe, named, fingerprint), strict=True))


def record(workdir: Path, entry: Entry) -> Look:
    """Count a look, unless its report is in the ledger already, and say which one it is.

    Looks are at the same people where they have the test people of any split in common. Never raises for what is
    wrong with the ledger: a file that cannot be read is kept under another name, a line that cannot be read stays where
    it is and is counted, a torn one (a process that was killed) is ended first.
    """
    path = workdir / "data" / LEDGER
    handed_out, unknown = _beside_reports(workdir, entry["fingerprint"])
    remarks = [f"not counted: {_count(unknown, 'report')} here from before the ledger"] if unknown else []
    entries, unreadable = handed_out, 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, remarks) as ledger:
            entries, unreadable, torn = _read(ledger)
            known = {e["fingerprint"] for e in entries}
            lost = [e for e in handed_out if e["fingerprint"] not in known]
            if lost:
                remarks.append(f"found again beside {_count(len(lost), 'report')}, since the ledger had lost them")
            new = lost + [entry] * (entry["fingerprint"] not in {*known, *(e["fingerprint"] for e in lost)})
            text = b"\n" * torn + b"".join(json.dumps(e).encode() + b"\n" for e in new)
            entries = entries + new
            if text:
                _append(ledger, text)
                fsync(path.parent)
    except OSError as error:
        remarks.append(f"the ledger {path} cannot be written: {error.strerror or error}")
    if unreadable:
        remarks.append(f"{_count(unreadable, 'line')} of the ledger cannot be read and may be looks too")
    if entry["fingerprint"] not in {e["fingerprint"] for e in entries}:
        entries = [*entries, entry]
    same = [e for e in entries if set(e["test_people"]) & set(entry["test_people"])]
    place = next(i for i, e in enumerate(same) if e["fingerprint"] == entry["fingerprint"])
    return Look(same[place], place + 1, tuple(same[:place]), unreadable, tuple(remarks))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def write_beside(folder: Path, look: Look) -> None:
    """Write `look.json` beside the report's page, where it says something else."""
    data = json.dumps({**look.entry, **look.answer()}, indent=1).encode()
    path = folder / BESIDE
    if not path.is_file() or path.read_bytes() != data:
        write_atomic(path, data)


def _beside_reports(workdir: Path, but: str) -> tuple[list[Entry], int]:
    """The looks beside the reports that were handed out here, oldest first; how many reports, `but` one, have none."""
    entries, without = [], 0
    for results in (workdir / "reports").glob("*/*/results.json"):
        if results.parent.is_symlink() or results.parent.parent.name == "published":
            continue
        try:
            entry = _entry(results.with_name(BESIDE).read_bytes())
        except OSError:
            entry = None
        if entry is not None:
            entries.append(entry)
        elif results.parent.name != but:
            without += 1
    return sorted(entries, key=lambda e: (e["time"], e["fingerprint"])), without


def _entry(line: bytes) -> Entry | None:
    """The entry that a line holds; None where it cannot be read."""
    try:
        found = json.loads(line)
        entry = {key: found[key] for key in KEYS}
        texts = [entry["time"], entry["recipe"], entry["fingerprint"], *entry["test_people"]]
        return entry if all(isinstance(text, str) for text in texts) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(ledger: int) -> tuple[list[Entry], int, bool]:
    """The entries, each report once; how many lines cannot be read; whether the last line is torn."""
    data = b""
    while piece := os.pread(ledger, 1 << 20, len(data)):
        data += piece
    parsed = [_entry(line) for line in data.splitlines() if line.strip()]
    entries: dict[str, Entry] = {}
    for entry in parsed:
        if entry is not None:
            entries.setdefault(entry["fingerprint"], entry)
    return list(entries.values()), parsed.count(None), bool(data) and not data.endswith(b"\n")


def _append(ledger: int, data: bytes) -> None:
    while data:
        data = data[os.write(ledger, data) :]
    os.fsync(ledger)


@contextlib.contextmanager
def _locked(path: Path, remarks: list[str]) -> Iterator[int]:
    """The ledger to add to, for its owner alone, locked; one that cannot be opened is kept under another name."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    while True:
        try:
            ledger = os.open(path, flags, 0o600)
        except (PermissionError, IsADirectoryError) as error:
            aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{LEDGER}.unreadable-{n}")).exists())
            os.rename(path, aside)
            remarks.append(f"the ledger could not be read ({error.strerror}) and is kept as {aside.name}, not counted")
            continue
        try:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            if _is_at(ledger, path):  # else another run has set it aside meanwhile
                yield ledger
                return
        finally:
            os.close(ledger)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
