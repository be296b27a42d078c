"""A folder of your own, or a zip of it: one directory for each identity, in any image format that Pillow reads."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.options import unhashed_default
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, SourceNotes, printable
from facegan.data.sources import _people as people
from facegan.data.sources._disk import files_on_disk
from facegan.data.sources._facts import (
    BACKSLASHES,
    FACTS,
    IDENTITY,
    NO_LABELS,
    as_there,
    find_columns,
    parse_json,
    refused_image,
    source_image,
)
from facegan.data.sources._people import Labels, Layout, common_folders, find_layout, label_fix
from facegan.data.sources._zip import Reader, members, turned

METADATA, METADATA_CSV = "metadata.jsonl", "metadata.csv"
FIX = "put the images of each person in a directory of their own: FOLDER/PERSON/IMAGE"
Files = dict[str, tuple[Path, Reader | None]]


@SOURCES.register
class Folder(OwnFaces):
    """`root/<identity>/<image>`, in a folder or a .zip: every file below an identity's directory is an image of theirs.

    Where a `metadata.jsonl` or `metadata.csv` has a line for a file (`file_name`, as in an imagefolder of Hugging Face
    datasets), its license, group and landmarks count; where it says who is on the images, it alone says so.
    """

    kind: Literal["folder"] = "folder"
    root: str = Field(min_length=1, description="holds one directory for each identity; or a .zip of it")
    dataset: str = Field("folder", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    level: int | None = unhashed_default(
        None, ge=1, le=9, description="level of folders that is the people (1: the top); null: found out, or asked"
    )
    identity_column: str | None = unhashed_default(
        None, description="holds the person in the metadata; null: guessed by its name"
    )

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        if path.is_file():
            return path.suffix.lower() == ".zip"
        if any((path / name).is_file() for name in (METADATA, METADATA_CSV)):
            return True
        depth = len(path.parts) + 1
        files = (name for top, _, names in os.walk(path) if len(Path(top).parts) >= depth for name in names)
        return any(map(people.is_picture, files)) or any(
            item.is_symlink() and item.is_dir() for item in (path.iterdir() if path.is_dir() else ())
        )

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. Links that lead out of the folder, hidden files and films are passed over, and counted."""
        root, notes = user_path(self.root), self.new_notes()
        remarks: tuple[str, ...] = ()
        if root.is_file():
            files, remarks = _zipped(root, notes)
        elif root.is_dir():
            files = {name: (path, None) for name, path in files_on_disk(root, notes)}
        else:
            raise UserError(
                f"the folder of faces '{root}' is not there",
                fix="set the root (prepare.source.root) to a directory that holds one directory for each identity",
            )
        metadata, most_wrapped = _all_metadata(files, root)
        most_wrapped = (
            most_wrapped if root.is_file() else 0
        )  # an archive has a folder of its own around all, a folder not
        by_file = {as_there(name, files.__contains__): (name, row) for name, row in metadata.items()}
        if self.session_column is not None:
            keys = dict.fromkeys(key for _, facts in by_file.values() for key in facts)
            find_columns(self.session_column, keys, (), "session", root)
        column = None if self.level is not None else self._label(by_file, root, notes)
        layout = None if column is not None else self._layout(files, most_wrapped, notes, root)
        cut = len(common_folders(map(_folders, files))[:most_wrapped]) if layout is None else len(layout.wrapper)
        for name, (path, reader) in files.items():
            parts = name.split("/")
            person = layout.person(parts) if layout is not None else None
            relative = "/".join(parts[cut:])
            if name in by_file:
                written, facts = by_file[name]
                said = (BACKSLASHES,) if "\\" in written and written != name else remarks
                who = person if column is None else facts.get(column)
                yield source_image(self, facts, who, relative, path, reader, remarks=said)
            elif column is not None and ("/" in name or people.is_picture(name)):
                yield refused_image(self, relative, path, f"no line of the metadata says who it is ({column})")
            elif person is not None:
                identity = f"{self.dataset}/{person}"
                yield SourceImage(identity, relative, path, self.license, reader=reader, remarks=remarks)
            else:
                notes.leave_out(people.LOOSE, relative)
        for name in sorted(by_file.keys() - files.keys() - notes.names):
            yield refused_image(self, name, root, "the metadata names it, but it is not there")

    def _label(self, by_file: dict[str, tuple[str, dict[str, Any]]], root: Path, notes: SourceNotes) -> str | None:
        """The key of the metadata that says who is on an image; None where none does."""
        keys = list(dict.fromkeys(key for _, facts in by_file.values() for key in facts))
        unknown = [key for key in keys if key not in (*FACTS, *NO_LABELS, self.session_column)]
        if not by_file or (self.identity_column is None and not any(key in IDENTITY for key in keys)):
            if unknown:
                raise UserError(
                    f"the metadata in '{root}' has {', '.join(unknown)[:300]}: does one say who is on an image?",
                    fix=f"{label_fix(unknown)}; where the folders are the people, say so with --level 1",
                )
            return None
        names = find_columns(self.identity_column, keys, IDENTITY, "identity", root)
        labels = Labels(names)
        for file, (_, facts) in by_file.items():
            labels.add([facts.get(name) for name in names], file)
        if self.identity_column is None:
            column, others = labels.choose(root, label_fix(names), "keys of the metadata")
        else:
            column, others = self.identity_column, ""
        notes.taken.append(f"people: '{column}' in the metadata{others}; folders' names say nothing")
        return column

    def _layout(self, files: Files, most_wrapped: int, notes: SourceNotes, root: Path) -> Layout:
        """Which folders are the people; raises UserError where there are none."""
        in_folders = [name for name in files if "/" in name]
        pictures = [name for name in in_folders if people.is_picture(name)] or in_folders
        if not pictures:
            left = f"; {notes.left_out_line()}" if notes.left_out else ""
            links = notes.left_out[people.LINK_OUT] + notes.left_out[people.LINK_NOWHERE]
            fix = "give the folder that they lead to, or copy their files here (cp -rL)" if links else FIX
            raise UserError(
                f"no identity found in '{root}': it holds no directories ({len(files)} files directly in it){left}",
                fix=fix,
            )
        layout = find_layout(Counter(map(_folders, pictures)), self.level, most_wrapped, root)
        notes.taken.append(layout.note)
        return layout


def _folders(name: str) -> tuple[str, ...]:
    return tuple(name.split("/")[:-1])


def _zipped(path: Path, notes: SourceNotes) -> tuple[Files, tuple[str, ...]]:
    """({name in the archive: (archive, reader)}, remarks), person by person.

    Names with backslashes are read as with slashes, unless metadata of the archive names its members so.
    """
    found = dict(members(path, FIX, notes))
    as_named = METADATA in found and bool(_metadata(METADATA, (path, found[METADATA]), path).keys() & found.keys())
    in_archive = found if as_named else turned(path, found)
    files: dict[tuple[str, ...], tuple[Path, Reader | None]] = {}
    for name, reader in in_archive.items():
        parts = PurePosixPath(name).parts
        if (kind := people.passed_over(name)) is not None:
            notes.leave_out(kind, name)
            continue
        if parts in files:  # a/b and a//b
            notes.leave_out(people.REPLACED, name)
        files[parts] = path, reader
    listed = {printable("/".join(parts)): files[parts] for parts in sorted(files)}
    return listed, (BACKSLASHES,) if in_archive is not found else ()


def _all_metadata(files: Files, root: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """({file: what the metadata says of it}, how deep the topmost metadata lies), which are taken out of `files`.

    A file_name starts from the folder of its metadata.
    """
    by_name: dict[str, dict[str, Any]] = {}
    depth = 99
    for name in [name for name in files if PurePosixPath(name).name in (METADATA, METADATA_CSV)]:
        folder, depth = name.rpartition("/")[0], min(depth, name.count("/"))
        for file, facts in _metadata(name, files.pop(name), root).items():
            full = f"{folder}/{file}" if folder else file
            if full in by_name and by_name[full] != facts:
                fix = "take one of the two files away"
                raise UserError(f"two files of metadata in '{root}' say different things of '{full}'", fix=fix)
            by_name[full] = facts
    return by_name, depth


def _metadata(name: str, file: tuple[Path, Reader | None], root: Path) -> dict[str, dict[str, Any]]:
    """{file name: what its line says}; raises UserError for a line that cannot be read."""
    by_name: dict[str, dict[str, Any]] = {}
    path, reader = file
    number = 0
    try:
        data = reader() if reader else path.read_bytes()
        lines = _csv_lines(data) if name.endswith(".csv") else _json_lines(data)
        for number, row in lines:  # noqa: B007 (the error names it)
            file_name = row.pop("file_name", None)
            if not isinstance(file_name, str):
                raise ValueError("it has no file_name")
            by_name[file_name] = row
    except _Line as error:
        number, reason = error.args
        raise UserError(f"'{root}', line {number} of {name}, cannot be read: {reason}", fix=LINE_FIX) from error
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"'{root}', line {number} of {name}, cannot be read: {error}", fix=LINE_FIX) from error
    return by_name


LINE_FIX = "mend the line, or take the file away"


class _Line(Exception):
    """A line that cannot be read: (its number, why)."""


def _json_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                row = parse_json(line)
            except ValueError as error:
                raise _Line(number, error) from error
            yield number, row


def _csv_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    for row in reader:
        cells = {key: value for key, value in row.items() if isinstance(key, str)}
        yield reader.line_num, {key: value for key, value in cells.items() if value not in (None, "")}
