"""A folder of your own, or a zip of it: one directory for each identity, in any image format that Pillow reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from facegan.core.errors import UserError
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, printable
from facegan.data.sources._facts import BACKSLASHES, parse_json, refused_image, source_image, with_slashes
from facegan.data.sources._zip import Reader, members, turned

METADATA = "metadata.jsonl"
FIX = "put the images of each person in a directory of their own: FOLDER/PERSON/IMAGE"


@SOURCES.register
class Folder(OwnFaces):
    """`root/<identity>/<image>`, in a folder or a .zip: every file below an identity's directory is an image of theirs.

    Where `root/metadata.jsonl` has a line for a file (`file_name`, as in an imagefolder of Hugging Face datasets),
    its identity, license, group and landmarks count.
    """

    kind: Literal["folder"] = "folder"
    root: str = Field(min_length=1, description="holds one directory for each identity; or a .zip of it")
    dataset: str = Field("folder", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        if path.is_file():
            return path.suffix.lower() == ".zip"
        kinds, depth = set(Image.registered_extensions()), len(path.parts) + 1
        files = (Path(top) / name for top, _, names in os.walk(path) if len(Path(top).parts) >= depth for name in names)
        return any(name.suffix.lower() in kinds for name in files)

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. Links that lead out of the folder and hidden files are passed over."""
        root = Path(self.root).expanduser()
        remarks: tuple[str, ...] = ()
        if root.is_file():
            files, remarks = _zipped(root)
        elif root.is_dir():
            files = _on_disk(root)
        else:
            raise UserError(
                f"the folder of faces '{root}' is not there",
                fix="set the root (prepare.source.root) to a directory that holds one directory for each identity",
            )
        metadata = _metadata(files.pop(METADATA, None), root)
        turned_names = {name: with_slashes(name, files.__contains__) for name in metadata}
        turned_lines = {read for name, read in turned_names.items() if read != name}
        metadata = {turned_names[name]: row for name, row in metadata.items()}
        images = {name: (path, reader) for name, (path, reader) in files.items() if "/" in name or name in metadata}
        if not images and not metadata:
            raise UserError(
                f"no identity found in '{root}': it holds no directories ({len(files)} files directly in it)", fix=FIX
            )
        for name, (path, reader) in images.items():
            person, _, _ = name.partition("/")
            if name in metadata:
                said = (BACKSLASHES,) if name in turned_lines else remarks
                name_in_row = metadata[name].get("identity", person if person != name else None)
                yield source_image(self, metadata[name], name_in_row, name, path, reader, remarks=said)
            else:
                identity = f"{self.dataset}/{person}"
                yield SourceImage(identity, name, path, self.license, reader=reader, remarks=remarks)
        for name in sorted(metadata.keys() - images.keys()):
            yield refused_image(self, name, root, f"{METADATA} names it, but it is not there")


def _on_disk(root: Path) -> dict[str, tuple[Path, Reader | None]]:
    """{name below the root: (file, None)}, person by person."""
    inside = root.resolve()
    files: dict[str, tuple[Path, Reader | None]] = {}
    for top in sorted(p for p in root.iterdir() if not p.name.startswith(".")):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            relative = path.relative_to(root)
            hidden = any(part.startswith(".") for part in relative.parts)
            if not hidden and path.is_file() and inside in path.resolve().parents:
                files[printable(relative.as_posix())] = path, None
    return files


def _zipped(path: Path) -> tuple[dict[str, tuple[Path, Reader | None]], tuple[str, ...]]:
    """({name below the root: (archive, reader)}, remarks); the root is the directory in which all directories lie.

    Names with backslashes are read as with slashes, unless metadata of the archive names its members so.
    """
    found = dict(members(path, fix=FIX))
    as_named = METADATA in found and bool(_metadata((path, found[METADATA]), path).keys() & found.keys())
    in_archive = found if as_named else turned(path, found)
    files = {}
    for name, reader in in_archive.items():
        parts = PurePosixPath(name).parts
        if not any(part.startswith(".") or part == "__MACOSX" for part in parts):
            files[parts] = path, reader
    tops = {parts[0] for parts in files}
    wrapped = len(tops) == 1 and all(len(parts) > 2 or parts[1:] == (METADATA,) for parts in files)
    listed: dict[str, tuple[Path, Reader | None]] = {
        printable("/".join(parts[wrapped:])): files[parts] for parts in sorted(files)
    }
    return listed, (BACKSLASHES,) if in_archive is not found else ()


def _metadata(file: tuple[Path, Reader | None] | None, root: Path) -> dict[str, dict[str, Any]]:
    """{file name: what its line of metadata.jsonl says}; raises UserError for a line that cannot be read."""
    by_name: dict[str, dict[str, Any]] = {}
    if file is None:
        return by_name
    path, reader = file
    number = 0
    try:
        for line in (reader() if reader else path.read_bytes()).split(b"\n"):
            number += 1
            if line.strip():
                row = parse_json(line)
                name = row.pop("file_name", None)
                if not isinstance(name, str):
                    raise ValueError("it has no file_name")
                by_name[name] = row
    except (ValueError, OSError) as error:
        fix = "mend the line, or take the file away"
        raise UserError(f"'{root}', line {number} of {METADATA}, cannot be read: {error}", fix=fix) from error
    return by_name
