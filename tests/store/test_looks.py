"""The ledger of looks: counted once, by whoever runs, and kept whatever happens to the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from facegan.store import looks

COMPARISON = {"metric": "eer", "baseline": "real", "arm": "real+synthetic", "delta": -0.1, "variant": "few"}


def look(workdir: Path, name: str, *people: str, recipe: str = "orl-quick", beside: bool = False) -> looks.Look:
    """A run that ends with a report; `beside`: which it hands out, with the look beside it."""
    found = looks.record(workdir, looks.entry_of(list(people), recipe, COMPARISON, name))
    if beside:
        folder = workdir / "reports" / recipe / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text("{}")
        looks.write_beside(folder, found)
    return found


def ledger(workdir: Path) -> Path:
    return workdir / "data" / "looks.jsonl"


def lines(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger(workdir).read_bytes().splitlines()]


def test_looks_at_people_in_common_are_counted_and_a_report_only_once(tmp_path: Path) -> None:
    assert look(tmp_path, "a", "split 0").number == 1
    assert look(tmp_path, "b", "split 0", "split 1", recipe="orl-study").number == 2
    assert look(tmp_path, "c", "others").number == 1
    third = look(tmp_path, "d", "split 1")
    assert third.number == 2 and [e["fingerprint"] for e in third.earlier] == ["b"]
    written = ledger(tmp_path).read_bytes()
    again = look(tmp_path, "b", "split 0", "split 1", recipe="orl-study")
    assert again.number == 2 and again.text == "look 2 at these test people; before it: orl-quick"
    assert ledger(tmp_path).read_bytes() == written
    assert [list(line) for line in lines(tmp_path)] == [list(looks.KEYS)] * 4
    assert lines(tmp_path)[0]["comparison"] == {k: v for k, v in COMPARISON.items() if k != "delta"}


def test_it_is_private_and_only_ever_added_to(tmp_path: Path) -> None:
    written = b""
    for number in range(4):
        look(tmp_path, str(number), "x")
        data = ledger(tmp_path).read_bytes()
        assert data.startswith(written) and len(data) > len(written) and data.endswith(b"\n")
        written = data
    assert ledger(tmp_path).stat().st_mode & 0o777 == 0o600


WRITER = """
import sys
from pathlib import Path
from facegan.store import looks
workdir, who = Path(sys.argv[1]), sys.argv[2]
for n in range(int(sys.argv[3])):
    entry = looks.entry_of(["x"], "r", {"metric": "eer"}, f"{who}{n}")
    print(looks.record(workdir, entry).number, flush=True)
"""


def writer(workdir: Path, who: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(workdir), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [writer(tmp_path, who, 50) for who in ("a", "b")]
    numbers = [int(word) for process in processes for word in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 101)) and len(lines(tmp_path)) == 100


def test_a_killed_process_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    process = writer(tmp_path, "a", 10**6)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    found = look(tmp_path, "after", "x")
    assert time.monotonic() - started < 5, "the lock ended with the process"
    assert found.number >= 6 and not found.unreadable and lines(tmp_path)[-1]["fingerprint"] == "after"


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_torn_line_is_kept_counted_and_restored_from_its_report(tmp_path: Path, kept: float) -> None:
    look(tmp_path, "first", "x")
    whole = ledger(tmp_path).stat().st_size
    look(tmp_path, "torn", "x", beside=True)
    size = ledger(tmp_path).stat().st_size
    os.truncate(ledger(tmp_path), whole + max(1, int(kept * (size - whole))))
    torn = ledger(tmp_path).read_bytes()
    found = look(tmp_path, "next", "x")
    assert ledger(tmp_path).read_bytes().startswith(torn + b"\n"), "nothing is taken away"
    assert (found.number, found.unreadable) == (3, 1)
    assert [e["fingerprint"] for e in found.earlier] == ["first", "torn"]
    assert "1 line of the ledger cannot be read" in found.text and "found again beside 1 report" in found.text
    assert look(tmp_path, "last", "x").number == 4


def test_a_line_without_its_newline_is_whole(tmp_path: Path) -> None:
    look(tmp_path, "a", "x")
    os.truncate(ledger(tmp_path), ledger(tmp_path).stat().st_size - 1)
    found = look(tmp_path, "b", "x")
    assert (found.number, found.unreadable, len(lines(tmp_path))) == (2, 0, 2)


def test_a_deleted_ledger_is_filled_again_from_the_reports(tmp_path: Path) -> None:
    for name in ("a", "b"):
        look(tmp_path, name, "x", beside=True)
    ledger(tmp_path).unlink()
    found = look(tmp_path, "c", "x")
    assert found.number == 3 and "found again beside 2 reports, since the ledger had lost them" in found.text
    assert [line["fingerprint"] for line in lines(tmp_path)] == ["a", "b", "c"]
    assert look(tmp_path, "d", "x").text == "look 4 at these test people; before it: orl-quick"
    ledger(tmp_path).unlink()
    assert look(tmp_path, "a", "x").number == 1 and look(tmp_path, "b", "x").number == 2, "as they were"


def test_reports_from_before_the_ledger_are_told(tmp_path: Path) -> None:
    for name in ("old", "older"):
        (tmp_path / "reports" / "r" / name).mkdir(parents=True)
        (tmp_path / "reports" / "r" / name / "results.json").write_text("{}")
    (tmp_path / "reports" / "r" / "latest").symlink_to("old")
    assert "not counted: 2 reports here from before the ledger" in look(tmp_path, "a", "x").text


@pytest.mark.parametrize("what", [b"\xff\xfe\x00 no text\n{}\n[1]\n", None])
def test_a_ledger_that_cannot_be_read_stops_nothing(tmp_path: Path, what: bytes | None) -> None:
    ledger(tmp_path).parent.mkdir()
    if what is None:
        ledger(tmp_path).mkdir()  # as root everything else can be opened
        found = look(tmp_path, "a", "x")
        assert "kept as looks.jsonl.unreadable-1" in found.text
        assert (tmp_path / "data" / "looks.jsonl.unreadable-1").is_dir()
    else:
        ledger(tmp_path).write_bytes(what)
        found = look(tmp_path, "a", "x")
        assert found.unreadable == 3 and ledger(tmp_path).read_bytes().startswith(what)
    assert found.number == 1 and look(tmp_path, "b", "x").number == 2


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    found = look(tmp_path, "a", "x")
    assert found.number == 1 and "cannot be written" in found.text
