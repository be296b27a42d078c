"""A CSV or TSV file that names image files, or holds them in base64, and who is on them."""

from __future__ import annotations

import csv
import errno
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.data.separated import Form, find_form
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, read_slice
from facegan.data.sources._facts import (
    IDENTITY,
    IMAGE,
    decode_base64,
    find_column,
    find_columns,
    is_base64,
    path_remarks,
    refused_image,
    resolve_inside,
    source_image,
)
from facegan.data.sources._people import Labels, label_fix

LONGEST = 64_000_000
"""Bytes of the longest line: an image of 48 MB."""

SEEN_ROWS = 200
"""Rows by which the only column of people is told from one of files' names."""


@SOURCES.register
class Csv(OwnFaces):
    """A CSV or TSV file: a column of paths, or of images in base64, and one of identities.

    `license`, `group`, `landmarks` count where it has them. Semicolons or tabs separate its cells where only so the
    columns are found.
    """

    paths: ClassVar[tuple[str, ...]] = ("root", "images")
    kind: Literal["csv"] = "csv"
    root: str = Field(min_length=1, description="the .csv or .tsv file (UTF-8, with a line of column names)")
    dataset: str = Field("csv", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    images: str | None = Field(None, description="folder that the paths start from; null: that of the file")
    image_column: str | None = Field(None, description="holds the image or its path; null: guessed by its name")
    identity_column: str | None = Field(None, description="holds the person; null: guessed by its name")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return path.suffix.lower() in (".csv", ".tsv") and path.is_file()

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. A path that leads out of the folder of images goes to the quarantine."""
        path, notes = user_path(self.root), self.new_notes()
        images = user_path(self.images) if self.images else path.parent
        fix = "give a CSV file in UTF-8 whose first line names its columns"
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        seen: set[str] = set()
        csv.field_size_limit(LONGEST)
        try:
            form = find_form(partial(_first_row, path), usual, partial(self._fits, path), path)
            with open(path, "rb") as file:
                lines = _Lines(file)
                reader = csv.DictReader(lines, delimiter=form.separator, skipinitialspace=form.blanks)
                header = form.names(list(reader.fieldnames or []))
                reader.fieldnames = header
                image_key, labels = self._keys(path, header)
                identity_key, others = self._label(path, form, header, image_key, labels)
                notes.taken.append(f"{path.name}: image: {image_key}, person: {identity_key}{others}")
                start, index = lines.end, header.index(image_key)
                remark = form.remark(usual)
                remark = f"{path.name}: {remark}" if remark else ""
                for number, row in enumerate(reader):
                    if form.blanks:
                        row = {key: cell.strip() if isinstance(cell, str) else cell for key, cell in row.items()}
                    if is_base64(row[image_key]):
                        reread = partial(_image, path, start, lines.end - start, form, index)
                        seen.add(relative := f"{path.name}/{number:08d}")
                        item = source_image(self, row, row[identity_key], relative, path, reread)
                    else:
                        line = f"line {reader.line_num}"
                        item = self._row(row, row[image_key], row[identity_key], images, line, seen)
                    yield replace(item, remarks=(remark, *item.remarks)) if remark else item
                    start = lines.end
        except FileNotFoundError as error:
            raise UserError(f"the list of faces '{path}' is not there", fix=fix) from error
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise UserError(f"'{path}' cannot be read as CSV: {error}", fix=fix) from error
        if not seen:
            raise UserError(f"'{path}' names no image", fix=fix)

    def _keys(self, path: Path, header: list[str]) -> tuple[str, list[str]]:
        """The column of images and those that may name people; raises UserError where one is not found."""
        names = [name for name in header if name]
        image_key = find_column(self.image_column, names, IMAGE, "image", path)
        if self.session_column is not None:
            find_column(self.session_column, names, (), "session", path)
        labels = find_columns(self.identity_column, names, IDENTITY, "identity", path)
        return image_key, [name for name in labels if name != image_key] or labels

    def _label(self, path: Path, form: Form, header: list[str], image_key: str, names: list[str]) -> tuple[str, str]:
        """(the column that says who it is, the others in words): the table is read once for it."""
        if self.identity_column is not None:
            return self.identity_column, ""
        labels = Labels(names)
        with open(path, "rb") as file:
            reader = csv.reader(_Lines(file), delimiter=form.separator, skipinitialspace=form.blanks)
            next(reader)
            places, image = [header.index(name) for name in names], header.index(image_key)
            for row in reader:
                if len(row) > max(image, *places):
                    cell = row[image].strip()
                    labels.add([row[place].strip() for place in places], None if is_base64(cell) else cell)
                if len(names) == 1 and labels.rows >= SEEN_ROWS:
                    break
        return labels.choose(path, label_fix(names))

    def _fits(self, path: Path, header: list[str]) -> bool:
        try:
            return bool(self._keys(path, header))
        except UserError:
            return False

    def _row(
        self, facts: dict[str, str], name: str | None, person: str | None, images: Path, line: str, seen: set[str]
    ) -> SourceImage:
        try:
            if not name:
                raise ValueError("names no image")
            path, relative = resolve_inside(images, name)
            remarks = path_remarks(images, name, path)
            if relative in seen:
                raise ValueError(f"names '{relative}' once more"[:300])
        except ValueError as error:
            seen.add(line)
            return refused_image(self, line, images, str(error))
        seen.add(relative)
        return source_image(self, facts, person, relative, path, remarks=remarks)


class _Lines:
    """The lines of a file as text, as csv wants them; `end` is where the last one ended, in bytes.

    Raises csv.Error for a line that is longer than LONGEST, UnicodeDecodeError for one that is no UTF-8.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.end = file, 0

    def __iter__(self) -> Iterator[str]:
        while raw := self.file.readline(LONGEST + 1):
            if len(raw) > LONGEST:
                raise csv.Error(f"a line is longer than {LONGEST / 1e6:.0f} MB")
            text = raw.decode("utf-8")
            for line in _ENDED.findall(text) if "\r" in text[:-2] else [text]:
                first, self.end = self.end == 0, self.end + len(line.encode())
                yield line.removeprefix("\ufeff") if first else line


_ENDED = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def _first_row(path: Path, form: Form) -> list[str]:
    with open(path, "rb") as file:
        return next(csv.reader(_Lines(file), delimiter=form.separator, skipinitialspace=form.blanks), [])


def _image(path: Path, start: int, size: int, form: Form, index: int) -> bytes:
    """The image in a row that was seen before; raises OSError where the file is no longer what it was."""
    try:
        text = read_slice(path, start, size).decode("utf-8")
        lines = io.StringIO(text, newline="")
        rows = csv.reader(lines, delimiter=form.separator, skipinitialspace=form.blanks)
        return decode_base64(next(row for row in rows if row)[index].strip())
    except (csv.Error, UnicodeDecodeError, StopIteration, IndexError) as error:
        raise OSError(errno.EIO, "its table has changed") from error
