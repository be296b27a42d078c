"""Labeled Faces in the Wild, aligned, from a folder or a zip of your own: a source downloads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.options import unhashed_default
from facegan.data.sources import SOURCES, Side, SourceConfig, SourceImage, SourceNotes
from facegan.data.sources._disk import files_on_disk
from facegan.data.sources._facts import BACKSLASHES
from facegan.data.sources._people import OTHER, passed_over
from facegan.data.sources._zip import members, turned

LICENSE = "Labeled Faces in the Wild (Huang et al. 2007), for research; the photos are their owners'"
HERE = (
    "put the aligned LFW there (NAME/NAME_0001.jpg, a folder or a .zip of it), or set prepare.source.root; where there "
    "is internet `facegan fetch lfw` gets it"
)
VIEW1 = (
    "give LFW's own pairsDevTrain.txt (View 1) as prepare.source.pairs, or null and a prepare.split with test people"
)
UNNAMED = ("photo of whom source.pairs does not name", "photos of people whom source.pairs does not name")
LINES = "give a list in LFW's text form, as pairs.txt and pairsDevTrain.txt have it"

_IMAGE = re.compile(r"(?:(?P<top>[^/]+)/)?(?P<file>(?P<name>[!-.0-~]+)/(?P=name)_\d{4}\.jpg)")


@SOURCES.register
class Lfw(SourceConfig):
    """LFW (Huang et al. 2007, UMass Amherst TR 07-49); with `pairs`, View 1's people are for train and val alone, or
    nobody else takes part."""

    paths: ClassVar[tuple[str, ...]] = ("root", "pairs")
    kind: Literal["lfw"] = "lfw"
    root: str = Field("data/lfw", min_length=1, description="folder or .zip of NAME/NAME_0001.jpg")
    pairs: str | None = Field(
        None, description="View 1's pairsDevTrain.txt: its people are for train and val, all others for test"
    )
    others: Literal["test", "left_out"] = unhashed_default(
        "test",
        description="people whom pairs does not name; left_out: they take no part, and prepare.split divides the named "
        "ones into train, val and test, for trials that leave the test people alone",
    )

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig; raises UserError when the files are not there or not what they should be."""
        root, notes = user_path(self.root), self.new_notes()
        develop = read_people(user_path(self.pairs)) if self.pairs else None
        images = list(_zipped(root, notes) if root.is_file() else _folder(root, notes))
        if not images:
            raise UserError(f"no face of LFW found in '{root}'", fix=HERE)
        if len({row.relative for row in images}) < len(images):
            raise UserError(f"'{root}' holds the same faces below several folders", fix="name one of them as root")
        if self.others == "left_out" and develop is None:
            raise UserError(
                "source.others=left_out leaves out whom source.pairs does not name, but pairs is null",
                fix="give View 1's pairsDevTrain.txt as prepare.source.pairs, or leave out prepare.source.others",
            )
        names = {row.identity for row in images}
        if develop is not None and not names & {f"lfw/{name}" for name in develop}:
            raise UserError(f"nobody of '{self.pairs}' is among the {len(names)} people in '{root}'", fix=VIEW1)
        notes.taken.append(f"people: {len(names):,} names of files NAME/NAME_0001.jpg")
        for row in sorted(images, key=lambda row: (row.identity, row.relative)):
            side: Side | None = None
            if develop is not None:
                side = "develop" if row.identity.removeprefix("lfw/") in develop else "test"
            if self.others == "test":
                yield replace(row, side=side)
            elif side == "develop":
                yield row
            else:
                notes.leave_out(UNNAMED, row.relative)


def _folder(root: Path, notes: SourceNotes) -> Iterator[SourceImage]:
    """The images of a folder, or of one folder in it; all else is passed over, and counted."""
    if not root.is_dir():
        raise UserError(f"the LFW faces are not there: '{root}'", fix=HERE)
    for name, path in files_on_disk(root, notes):
        if match := _IMAGE.fullmatch(name):
            yield SourceImage(f"lfw/{match['name']}", match["file"], path, LICENSE)
        else:
            notes.leave_out(OTHER, name)


def _zipped(path: Path, notes: SourceNotes) -> Iterator[SourceImage]:
    """The images of an archive, of which nothing is unpacked."""
    found = dict(members(path, HERE, notes))
    files = turned(path, found)
    remarks = (BACKSLASHES,) if files is not found else ()
    for member, reader in files.items():
        kind = passed_over(member)
        match = _IMAGE.fullmatch(member) if kind is None else None
        if match:
            yield SourceImage(f"lfw/{match['name']}", match["file"], path, LICENSE, reader=reader, remarks=remarks)
        else:
            notes.leave_out(kind or OTHER, member)


def read_people(path: Path) -> set[str]:
    """The people of a View 1 file (see `lfw_lines`); raises UserError."""
    try:
        folds, _, pairs = lfw_lines(path)
    except FileNotFoundError as error:
        raise UserError(f"the pairs file of LFW is not there: '{path}'", fix=VIEW1) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the pairs file '{path}' cannot be read: {error}", fix=VIEW1) from error
    if folds > 1:
        raise UserError(f"'{path}' has {folds} folds: it is View 2's", fix=VIEW1)
    return {name for fields in pairs for name in (fields[:1] if len(fields) == 3 else fields[::2])}


def has_head(lines: list[str]) -> bool:
    """Whether the first line of a list is a count `N` or `FOLDS N`."""
    head = lines[0].split() if lines else []
    return len(head) in (1, 2) and all(part.isdecimal() for part in head)


def lfw_lines(path: Path) -> tuple[int, int, list[list[str]]]:
    """(folds, pairs of each kind in a fold, the pairs' fields) of a file in LFW's text form.

    A first line `N` (View 1: one fold) or `FOLDS N`; then, for each fold, N lines `name i j` of one person and N
    lines `name i other j` of two. Raises UserError for anything else. Source: Huang et al. 2007, README of LFW.
    """
    lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    head = lines[0].split() if lines else []
    folds, count = (1, *map(int, head))[-2:] if has_head(lines) else (0, 0)
    if folds * count == 0 or len(lines) != 2 * folds * count + 1:
        first = f", the first {lines[0][:80]!r}" if lines else ""
        raise UserError(
            f"'{path}' is not a count N and 2 N pairs (of each fold): it has {len(lines)} lines{first}", fix=LINES
        )
    pairs = []
    for number, line in enumerate(lines[1:]):
        fields = line.split("\t") if "\t" in line else line.split()
        width = 3 if number % (2 * count) < count else 4
        if len(fields) != width or not (fields[1].isdecimal() and fields[-1].isdecimal()):
            raise UserError(f"'{path}', line {number + 2}: expected {width} fields, got {line[:80]!r}", fix=LINES)
        pairs.append(fields)
    return folds, count, pairs
