"""A manifest of facegan's own, such as `facegan import` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.data import manifest
from facegan.data.sources import SOURCES, Side, SourceConfig, SourceImage
from facegan.data.sources._facts import source_image
from facegan.data.sources._table import Table
from facegan.data.sources.parquet import all_named_once

COLUMNS = [
    *("image.path", "identity", "dataset", "source", "split", "license", "group", "landmarks", "source_sha256"),
    *("parents", "parent_weights", "generator"),
]
SIDES: dict[str, Side] = {"train": "develop", "val": "develop", "test": "test"}


@SOURCES.register
class Manifest(SourceConfig):
    """A manifest of facegan's own: what its rows say of person, licence, group, landmarks and test people is kept."""

    kind: Literal["manifest"] = "manifest"
    root: str = Field(min_length=1, description="a folder that `facegan import` or a stage wrote")

    @property
    def dataset(self) -> str:
        """Each row names its own; this is that of a row that cannot be used."""
        return "manifest"

    @property
    def license(self) -> str | None:
        """Each row names its own."""
        return None

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return manifest.is_manifest(path)

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. Rows of people who do not exist go to the quarantine, unless it is read for them."""
        tables = [Table(part) for part in manifest.local_parts(user_path(self.root))]
        for table in tables:
            manifest.check_schema(table.schema, table.path)
        by_name = all_named_once(tables, ["image"] * len(tables))
        empty = True
        for table in tables:
            there = [name for name in COLUMNS if name not in manifest.ADDED or name in table.schema.names]
            for number, row in enumerate(table.rows([*there, "image_id"])):
                relative = row["image.path"] if by_name else f"{table.path.name}/{number:08d}"
                reader = partial(_bytes, table.reader("image", number))
                side = SIDES.get(row["split"])
                yield source_image(self, row, row["identity"], relative, table.path, reader,
                            side=side, sha256_hex=row["image_id"])  # fmt: skip
                empty = False
        if empty:
            raise UserError(f"the manifest '{self.root}' has no row", fix="import some faces")


def _bytes(value_of: Callable[[], Any]) -> bytes:
    """The stored bytes of a row; no bytes where it has none, which is an empty file to whoever decodes it."""
    return (value_of() or {}).get("bytes") or b""
