"""The members of a zip archive, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import errno
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from facegan.core.errors import UserError
from facegan.data.sources import SourceNotes, check_size
from facegan.data.sources._people import REPLACED

Reader = Callable[[], bytes]


def members(path: Path, fix: str, notes: SourceNotes) -> Iterator[tuple[str, Reader]]:
    """(name, reader) of every file in the archive, sorted by name; earlier ones of the same name go to the notes.

    Raises UserError for a file that is no zip archive and for a member whose name leads out of it.
    """
    try:
        archive = zipfile.ZipFile(path)
        counts = Counter(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:  # ValueError: names, sizes
        raise UserError(f"'{path}' is no zip archive that can be read: {error}", fix=fix) from error
    for name in sorted(counts):
        for _ in range(counts[name] - 1 if not name.endswith("/") else 0):
            notes.leave_out(REPLACED, name)
        _check_inside(path, name)
        if not name.endswith("/"):
            yield name, partial(_read, archive, name)


def turned(path: Path, found: dict[str, Reader]) -> dict[str, Reader]:
    """Members by name; with slashes where none has one and some have the backslashes of programs for Windows.

    Raises UserError for a name that so leads out of the archive.
    """
    if any("/" in name for name in found) or not any("\\" in name for name in found):
        return found
    files = {name.replace("\\", "/"): reader for name, reader in found.items()}
    for name in files:
        _check_inside(path, name)
        if re.match("[A-Za-z]:", name):
            raise UserError(f"'{path}' holds '{name}', which names a drive", fix="make it anew, of a folder")
    return {name: reader for name, reader in files.items() if not name.endswith("/")}


def _check_inside(path: Path, name: str) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"'{path}' holds '{name}', which leads out of it", fix="do not use this archive: make it anew")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; raises OSError when it is broken, encrypted or larger than 500 MB."""
    check_size(archive.getinfo(name).file_size)
    try:
        return archive.read(name)
    except OSError:
        raise
    except Exception as error:  # BadZipFile, RuntimeError (encrypted), and each packing method has errors of its own
        raise OSError(errno.EIO, f"broken in the archive ({error or type(error).__name__})") from error
