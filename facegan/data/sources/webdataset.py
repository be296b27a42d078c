"""WebDataset: tar shards whose files belong together where they have the same name up to the first dot."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, read_slice
from facegan.data.sources._facts import IDENTITY, image, parse, refused

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pnm", "tif", "tiff", "gif")
SAYS = ("json", "cls", "txt")
LARGEST_SAID_BYTES = 1_000_000
FIX = "give a .tar that is whole and not packed (gunzip it first), or a folder of such shards"


@SOURCES.register
class WebDataset(OwnFaces):
    """WebDataset tar shards: the person is in the sample's .json, .cls or .txt, or else is the folder of its key."""

    kind: Literal["webdataset"] = "webdataset"
    root: str = Field(min_length=1, description="a .tar, or a folder of .tar shards")
    dataset: str = Field("webdataset", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    identity_column: str | None = Field(None, description="holds the person in each .json; null: guessed by its name")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return path.is_file() if path.suffix == ".tar" else any(path.glob("*.tar"))

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. Nothing is unpacked; links and names that lead out are never followed."""
        root = Path(self.root).expanduser()
        shards = [root] if root.is_file() else sorted(root.glob("*.tar"))
        empty = True
        for shard in shards:
            samples = itertools.groupby(members(shard), lambda member: _key(member.name))
            seen: set[str] = set()
            for number, (key, group) in enumerate(samples):
                place = f"{shard.name}/{key}"
                place = f"{place}#{number}" if place in seen else place
                seen.add(place)
                for row in self._sample(shard, place, key, list(group)):
                    empty = False
                    yield row
        if empty:
            raise UserError(f"no sample is in '{root}' ({len(shards)} .tar files)", fix=FIX)

    def _sample(self, shard: Path, place: str, key: str, group: list[tarfile.TarInfo]) -> Iterator[SourceImage]:
        by_kind = {_suffix(member.name): member for member in group}
        found = [kind for kind in by_kind if kind.rsplit(".", 1)[-1] in IMAGES]
        try:
            if not found:
                raise ValueError(f"no image among {', '.join(member.name for member in group)}"[:300])
            if odd := [member.name for member in group if not member.isreg() or member.issparse()]:
                raise ValueError(f"'{odd[0]}' is a link, a device or sparse, not a plain file"[:300])
            name, said = self._who(shard, key, by_kind)
        except (ValueError, OSError) as error:
            yield refused(self, place, shard, str(error))
            return
        for kind in found:
            member = by_kind[kind]
            reader = partial(read_slice, shard, member.offset_data, member.size)
            yield image(self, said, name, f"{place}.{kind}", shard, reader)

    def _who(self, shard: Path, key: str, by_kind: dict[str, tarfile.TarInfo]) -> tuple[object, dict[str, Any]]:
        """The person of a sample, and what its .json says."""
        told = {}
        for kind in SAYS:
            if kind in by_kind:
                member = by_kind[kind]
                if member.size > LARGEST_SAID_BYTES:
                    raise ValueError(f"'{member.name}' has {member.size} bytes")
                told[kind] = read_slice(shard, member.offset_data, member.size)
        said = parse(told.pop("json")) if "json" in told else {}
        if self.identity_column is not None:
            return said.get(self.identity_column), said
        if (column := next((name for name in IDENTITY if name in said), None)) is not None:
            return said[column], said
        for data in told.values():
            return data.decode(), said
        folder = key.rpartition("/")[0]
        return folder or None, said


def members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """The files, links and devices in a tar; raises UserError for one that is damaged, packed or leads out."""
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    fix = "do not use this archive: make it anew"
                    raise UserError(f"'{shard}' holds '{member.name}', which leads out of it", fix=fix)
                if not member.isdir():
                    yield member
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UserError(f"'{shard}' is no tar that can be read: {error}", fix=FIX) from error
    _check_end(shard, end)


def _check_end(shard: Path, end: int) -> None:
    """Raise UserError unless a tar's last member is followed by blocks of zeros alone: else something would be lost."""
    with open(shard, "rb") as file:
        file.seek(end)
        rest = file.read(512)
        whole = len(rest) == 512
        while rest and not any(rest):
            rest = file.read(1 << 20)
    if rest or not whole:
        raise UserError(f"'{shard}' is damaged or cut short at byte {end}", fix=FIX)


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()
