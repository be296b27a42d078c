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
from facegan.data.sources._facts import IDENTITY, parse_json, refused_image, source_image

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pnm", "tif", "tiff", "gif")
LABEL_KINDS = ("json", "cls", "txt")
LARGEST_LABEL_BYTES = 1_000_000
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
                name = f"{shard.name}/{key}"
                name = f"{name}#{number}" if name in seen else name
                seen.add(name)
                for row in self._sample(shard, name, key, list(group)):
                    empty = False
                    yield row
        if empty:
            raise UserError(f"no sample is in '{root}' ({len(shards)} .tar files)", fix=FIX)

    def _sample(self, shard: Path, sample: str, key: str, group: list[tarfile.TarInfo]) -> Iterator[SourceImage]:
        by_kind = {_suffix(member.name): member for member in group}
        image_kinds = [kind for kind in by_kind if kind.rsplit(".", 1)[-1] in IMAGES]
        try:
            if not image_kinds:
                raise ValueError(f"no image among {', '.join(member.name for member in group)}"[:300])
            if special := [member.name for member in group if not member.isreg() or member.issparse()]:
                raise ValueError(f"'{special[0]}' is a link, a device or sparse, not a plain file"[:300])
            person, facts = self._person_and_facts(shard, key, by_kind)
        except (ValueError, OSError) as error:
            yield refused_image(self, sample, shard, str(error))
            return
        for kind in image_kinds:
            member = by_kind[kind]
            reader = partial(read_slice, shard, member.offset_data, member.size)
            yield source_image(self, facts, person, f"{sample}.{kind}", shard, reader)

    def _person_and_facts(
        self, shard: Path, key: str, by_kind: dict[str, tarfile.TarInfo]
    ) -> tuple[object, dict[str, Any]]:
        """The person of a sample, and what its .json says."""
        labels = {}
        for kind in LABEL_KINDS:
            if kind in by_kind:
                member = by_kind[kind]
                if member.size > LARGEST_LABEL_BYTES:
                    raise ValueError(f"'{member.name}' has {member.size} bytes")
                labels[kind] = read_slice(shard, member.offset_data, member.size)
        facts = parse_json(labels.pop("json")) if "json" in labels else {}
        if self.identity_column is not None:
            return facts.get(self.identity_column), facts
        if (column := next((name for name in IDENTITY if name in facts), None)) is not None:
            return facts[column], facts
        for data in labels.values():
            return data.decode(), facts
        folder = key.rpartition("/")[0]
        return folder or None, facts


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
        full_block = len(rest) == 512
        while rest and not any(rest):
            rest = file.read(1 << 20)
    if rest or not full_block:
        raise UserError(f"'{shard}' is damaged or cut short at byte {end}", fix=FIX)


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()
