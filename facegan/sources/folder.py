"""A folder of your own: one directory for each identity, in any image format that Pillow reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from facegan.errors import UserError
from facegan.sources import SOURCES, SourceConfig, SourceImage


@SOURCES.register
class Folder(SourceConfig):
    """`root/<identity>/<image>`: every file below an identity's directory counts as an image of theirs."""

    kind: Literal["folder"] = "folder"
    root: str = Field(min_length=1, title="Folder", description="holds one directory for each identity")
    dataset: str = Field("folder", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    license: str | None = Field(None, description="kept with every row")

    @field_validator("dataset")
    @classmethod
    def _is_real(cls, dataset: str) -> str:
        if dataset == "synthetic":
            raise ValueError("'synthetic' is the dataset of people who do not exist: choose another name")
        return dataset

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. Links that lead out of the folder and hidden files are passed over."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError(
                f"the folder of faces '{root}' is not there",
                fix="set prepare.source.root to a directory that holds one directory for each identity",
            )
        inside = root.resolve()
        people = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not people:
            files = sum(1 for p in root.iterdir() if p.is_file())
            raise UserError(
                f"no identity found in '{root}': it holds no directories ({files} files directly in it)",
                fix="put the images of each person in a directory of their own: FOLDER/PERSON/IMAGE",
            )
        for person in people:
            for path in sorted(person.rglob("*")):
                hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
                if hidden or not path.is_file() or inside not in path.resolve().parents:
                    continue
                relative = _text(path.relative_to(root).as_posix())
                yield SourceImage(f"{self.dataset}/{_text(person.name)}", relative, path, self.license)


def _text(name: str) -> str:
    """A file name as text that can be written: bytes that are no UTF-8 become `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
