"""Parquet files with images in them (bytes or base64), or with paths of images; a Hugging Face datasets folder too."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.types as pt
from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.data.manifest import is_manifest
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, refuse
from facegan.data.sources._disk import count_others
from facegan.data.sources._facts import (
    FACTS,
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
from facegan.data.sources._table import Table, class_names, table_files

SEEN_ROWS = 200
"""Rows by which the only column of people is told from one of files' names."""


@SOURCES.register
class Parquet(OwnFaces):
    """Parquet files, or a Hugging Face datasets folder: columns of images (bytes, path, both) and of identities."""

    paths: ClassVar[tuple[str, ...]] = ("root", "images")
    kind: Literal["parquet"] = "parquet"
    root: str = Field(min_length=1, description="a .parquet file, or a folder with .parquet or .arrow files in it")
    dataset: str = Field("parquet", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    images: str | None = Field(None, description="folder that paths start from; null: that of the file")
    image_column: str | None = Field(None, description="holds the image; null: guessed by its name")
    identity_column: str | None = Field(None, description="holds the person; null: guessed by its name")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        if path.is_file():
            return path.suffix == ".parquet" and not is_manifest(path)
        shards = [*path.glob("*.parquet"), *path.glob("*/*.parquet"), *path.glob("*.arrow"), *path.glob("*/*.arrow")]
        return bool(shards) and not any(map(is_manifest, (path, *shards)))

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig; a path in a table that leads out of the folder of images goes to the quarantine."""
        root, notes = user_path(self.root), self.new_notes()
        tables = [Table(path) for path in table_files(root)]
        if root.is_dir():
            count_others(root, (table.path for table in tables), notes)
        image_columns = [
            find_column(self.image_column, table.schema.names, IMAGE, "image", table.path) for table in tables
        ]
        by_name = all_named_once(tables, image_columns)
        label, others = self._label(tables, image_columns, root)
        notes.taken.append(f"{root.name}: image: {image_columns[0]}, person: {label}{others}")
        empty = True
        for table, image_column in zip(tables, image_columns, strict=True):
            shard = table.path.name if root.is_file() else table.path.relative_to(root).as_posix()
            for row in self._rows(table, image_column, label, shard, by_name):
                empty = False
                yield row
        if empty:
            raise UserError(f"'{root}' has no row", fix="give a table with an image and a person in each row")

    def _label(self, tables: list[Table], image_columns: list[str], root: Path) -> tuple[str, str]:
        """(the column that says who it is, the others in words): columns that may are read once for it."""
        found: list[str] = []
        for table, image_column in zip(tables, image_columns, strict=True):
            schema = table.schema
            columns = find_columns(
                self.identity_column, (n for n in schema.names if n != image_column), IDENTITY, "identity", table.path
            )
            fitting = [name for name in columns if _is_name(schema.field(name).type)]
            expected = "text or whole numbers"
            _check_type(schema.field((fitting or columns)[0]).type, _is_name, columns[0], expected, table.path)
            found = [name for name in found or fitting if name in fitting]
            if not found:
                raise UserError(
                    f"'{table.path}' and the tables before it name people in columns of other names",
                    fix="read them one by one, or give all one name",
                )
        if self.identity_column is not None:
            return self.identity_column, ""
        labels = Labels(found)
        for table, image_column in zip(tables, image_columns, strict=True):
            path_column = _path_column(table.schema, image_column, table.path)
            for row in table.rows([*found, *([path_column] if path_column else [])]):
                path = row[path_column] if path_column else None
                labels.add([row[name] for name in found], None if is_base64(path) else path)
                if len(found) == 1 and labels.rows >= SEEN_ROWS:
                    break
        return labels.choose(root, label_fix(found))

    def _rows(
        self, table: Table, image_column: str, identity_column: str, shard: str, by_name: bool
    ) -> Iterator[SourceImage]:
        schema = table.schema
        path_column = _path_column(schema, image_column, table.path) if by_name else None
        columns = [
            identity_column,
            *(name for name in FACTS if name in schema.names and name not in (identity_column, image_column)),
        ]
        if self.session_column is not None:
            session = find_column(self.session_column, schema.names, (), "session", table.path)
            columns += [session] if session not in columns else []
        images = user_path(self.images) if self.images else table.path.parent
        names = class_names(schema, identity_column)
        for number, row in enumerate(table.rows([*columns, *([path_column] if path_column else [])])):
            person, path = row[identity_column], row.get(path_column) if path_column else None
            relative = path or f"{shard}/{number:08d}"
            if names is not None and isinstance(person, int):
                if not 0 <= person < len(names):
                    reason = f"its label {person} names nobody (there are {len(names)} names)"
                    yield refused_image(self, relative, table.path, reason)
                    continue
                person = names[person]
            reader = partial(_read, table.reader(image_column, number), images)
            remarks = _remarks(images, path) if path and path_column == image_column else ()
            yield source_image(self, row, person, relative, table.path, reader, remarks=remarks)


def _remarks(images: Path, name: str) -> tuple[str, ...]:
    try:
        return path_remarks(images, name, resolve_inside(images, name)[0])
    except ValueError:  # reading it says so
        return ()


def all_named_once(tables: list[Table], image_columns: list[str]) -> bool:
    """Whether every image has a path of its own: then this is its name, else its row number in the table."""
    seen: set[str] = set()
    for table, image_column in zip(tables, image_columns, strict=True):
        path_column = _path_column(table.schema, image_column, table.path)
        if path_column is None:
            return False
        for row in table.rows([path_column]):
            path = row[path_column]
            if not path or path in seen or is_base64(path):
                return False
            seen.add(path)
    return True


def _path_column(schema: pa.Schema, name: str, path: Path) -> str | None:
    """The column that names images: the image column itself where it is text, `path` in it where it is a struct."""
    kind = schema.field(name).type
    _check_type(kind, _is_image, name, "bytes, text (a path) or a struct of bytes and path", path)
    if pt.is_struct(kind):
        return f"{name}.path" if _is_text(kind.field("path").type) else None
    return name if _is_text(kind) else None


def _check_type(kind: pa.DataType, fits: Callable[[pa.DataType], bool], name: str, expected: str, path: Path) -> None:
    if not fits(kind):
        raise UserError(f"'{path}': column '{name}' is {kind}, expected {expected}"[:500], fix="name another column")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _is_name(kind: pa.DataType) -> bool:
    return _is_text(kind) or pt.is_integer(kind) or (pt.is_dictionary(kind) and _is_text(kind.value_type))


def _is_image(kind: pa.DataType) -> bool:
    if pt.is_struct(kind):
        members = {field.name: field.type for field in kind}
        return members.keys() == {"bytes", "path"} and (pt.is_null(members["bytes"]) or _is_image(members["bytes"]))
    return _is_text(kind) or pt.is_binary(kind) or pt.is_large_binary(kind)


def _read(value_of: Callable[[], Any], images: Path) -> bytes:
    """The bytes that a table holds, in base64 too, or those of the file that it names; raises OSError."""
    value: Any = value_of()
    path = value if isinstance(value, str) else None
    if isinstance(value, dict):
        value, path = value["bytes"], value["path"]
    if isinstance(value, bytes):
        return value
    if is_base64(value):
        return decode_base64(value)
    if not path:
        refuse("the table holds no image there")
    try:
        file, _ = resolve_inside(images, path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error
    return SourceImage("", "", file).read()
