"""A CSV or TSV file that names image files and who is on them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from facegan.errors import UserError
from facegan.sources import SOURCES, OwnFaces, SourceImage
from facegan.sources._facts import IDENTITY, IMAGE, column, image, inside, refused


@SOURCES.register
class Csv(OwnFaces):
    """A CSV or TSV file: a column of paths, one of identities; `license`, `group`, `landmarks` where it has them."""

    paths: ClassVar[tuple[str, ...]] = ("root", "images")
    kind: Literal["csv"] = "csv"
    root: str = Field(min_length=1, description="the .csv or .tsv file (UTF-8, with a line of column names)")
    dataset: str = Field("csv", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    images: str | None = Field(None, description="folder that the paths start from; null: that of the file")
    image_column: str | None = Field(None, description="holds the path of an image; null: guessed by its name")
    identity_column: str | None = Field(None, description="holds the person; null: guessed by its name")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return path.suffix.lower() in (".csv", ".tsv") and path.is_file()

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. A path that leads out of the folder of images goes to the quarantine."""
        path = Path(self.root).expanduser()
        images = Path(self.images).expanduser() if self.images else path.parent
        fix = "give a CSV file in UTF-8 whose first line names its columns"
        seen: set[str] = set()
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
                names = [name for name in reader.fieldnames or [] if name]
                where = column(self.image_column, names, IMAGE, "image", path)
                who = column(self.identity_column, names, IDENTITY, "identity", path)
                for said in reader:
                    yield self._row(said, said[where], said[who], images, f"line {reader.line_num}", seen)
        except FileNotFoundError as error:
            raise UserError(f"the list of faces '{path}' is not there", fix=fix) from error
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise UserError(f"'{path}' cannot be read as CSV: {error}", fix=fix) from error
        if not seen:
            raise UserError(f"'{path}' names no image", fix=fix)

    def _row(
        self, said: dict[str, str], name: str | None, who: str | None, images: Path, line: str, seen: set[str]
    ) -> SourceImage:
        try:
            if not name:
                raise ValueError("names no image")
            path, relative = inside(images, name)
            if relative in seen:
                raise ValueError(f"names '{relative}' once more"[:300])
        except ValueError as error:
            seen.add(line)
            return refused(self, line, images, str(error))
        seen.add(relative)
        return image(self, said, who, relative, path)
