"""The files of a folder: each is given, or counted with what it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from facegan.core.errors import UserError
from facegan.data.names import decoded_name
from facegan.data.sources import SourceNotes
from facegan.data.sources import _people as people


def files_on_disk(root: Path, notes: SourceNotes, used: Collection[Path] = ()) -> Iterator[tuple[str, Path]]:
    """(name below the root, file), folder by folder and sorted, without those in `used`.

    What is no photo (hidden files, links that lead out or to folders, pipes, films, folders that may not be read) goes
    to the notes, counted. Raises UserError where the root itself may not be read.
    """
    inside = root.resolve()

    def walk(folder: Path, below: str) -> Iterator[tuple[str, Path]]:
        try:
            entries = _sorted_entries(folder) if below else entries_of(folder)
        except OSError:
            notes.leave_out(people.LOCKED, below)
            return
        for entry in entries:
            path, name = folder / entry.name, f"{below}{decoded_name(entry.name)}"
            if path in used:
                continue
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from walk(path, f"{name}/")
            elif (kind := _passed_over(path, name, inside)) is not None:
                notes.leave_out(kind, name)
            else:
                yield name, path

    yield from walk(root, "")


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """What lies directly in a folder, sorted; raises UserError where it may not be read."""
    try:
        return _sorted_entries(folder)
    except OSError as error:
        fix = "let this user read it (chmod u+rx)"
        raise UserError(f"the folder '{folder}' cannot be read: {error.strerror}", fix=fix) from error


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))


def count_others(root: Path, used: Iterable[Path], notes: SourceNotes) -> None:
    """Count what else is in the folder of a source: every file that is not `used`."""
    for name, _ in files_on_disk(root, notes, set(used)):
        notes.leave_out(people.OTHER, name)


def _passed_over(path: Path, name: str, inside: Path) -> tuple[str, str] | None:
    """What an entry is that is passed over, or None."""
    if path.name.startswith("."):
        return people.HIDDEN
    kind = _link(path, inside) if path.is_symlink() else None
    if kind is None and not path.is_file():
        return people.SPECIAL
    return kind or people.passed_over(name)


def _link(path: Path, inside: Path) -> tuple[str, str] | None:
    """What a link is that is passed over; None for one to a file of the folder."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # nothing there, may not be read, or a circle
        return people.LINK_NOWHERE
    if inside != target and inside not in target.parents:
        return people.LINK_OUT
    return people.LINK_INSIDE if target.is_dir() else None
