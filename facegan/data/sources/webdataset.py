"""WebDataset: tar shards whose files belong together where they have the same name up to the first dot."""

from __future__ import annotations

import itertools
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.options import unhashed_default
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, read_slice
from facegan.data.sources._disk import count_others
from facegan.data.sources._facts import FACTS, IDENTITY, NO_LABELS, parse_json, refused_image, source_image
from facegan.data.sources._people import Labels, Layout, find_layout, label_fix

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pnm", "tif", "tiff", "gif")
LABEL_KINDS = ("json", "cls", "txt")
LARGEST_LABEL_BYTES = 1_000_000
FIX = "give a .tar that is whole and not packed (gunzip it first), or a folder of such shards"


@SOURCES.register
class WebDataset(OwnFaces):
    """WebDataset tar shards: the person is in each sample's .json, .cls or .txt or, where none has one, the folder."""

    kind: Literal["webdataset"] = "webdataset"
    root: str = Field(min_length=1, description="a .tar, or a folder of .tar shards")
    dataset: str = Field("webdataset", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    identity_column: str | None = Field(None, description="holds the person in each .json; null: guessed by its name")
    label: Literal["json", "cls", "txt"] | None = unhashed_default(
        None, description="which label of a sample says who is on it; null: found out, or asked"
    )
    level: int | None = unhashed_default(
        None, ge=1, le=9, description="without labels: level of folders that is the people; null: found out, or asked"
    )

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return path.is_file() if path.suffix == ".tar" else any(path.glob("*.tar"))

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig. Nothing is unpacked; links and names that lead out are never followed."""
        root, notes = user_path(self.root), self.new_notes()
        shards = [root] if root.is_file() else sorted(root.glob("*.tar"))
        if root.is_dir():
            count_others(root, shards, notes)
        evidence = self._evidence(shards, root)
        empty = True
        for shard in shards:
            seen: set[str] = set()
            for number, (key, group) in enumerate(_samples(shard)):
                name = f"{shard.name}/{key}"
                name = f"{name}#{number}" if name in seen else name
                seen.add(name)
                for row in self._sample(shard, name, key, group, evidence):
                    empty = False
                    yield row
        if empty:
            raise UserError(f"no sample is in '{root}' ({len(shards)} .tar files)", fix=FIX)

    def _evidence(self, shards: list[Path], root: Path) -> str | Layout | None:
        """Which label all samples are known by, one of LABEL_KINDS, or else the layout of their folders.

        Raises UserError where two labels part the samples differently, and where a label is there that says nothing.
        """
        labels = Labels([*LABEL_KINDS])
        folders: Counter[tuple[str, ...]] = Counter()
        unread: dict[str, None] = {}
        for shard in shards:
            for _, group in _samples(shard):
                by_kind = {_suffix(member.name): member for member in group}
                for kind in filter(_is_image, by_kind):
                    folders[tuple(by_kind[kind].name.split("/")[:-1])] += 1
                    try:
                        found, facts = self._labels(shard, by_kind, kind)
                    except (ValueError, OSError):  # the sample is refused with the reason
                        continue
                    labels.add([found.get(label) for label in LABEL_KINDS], None)
                    if "json" not in found:
                        unread.update(
                            dict.fromkeys(key for key in facts if key not in (*FACTS, *NO_LABELS, self.session_column))
                        )
        if self.label is not None or self.identity_column is not None:
            self.notes.taken.append(f"people: .{self.label or 'json'} of each sample")
            return self.label or "json"
        if labels.any_given():
            fix = "say which: in a recipe prepare.source.label=json (or cls, txt)"
            label, others = labels.choose(root, fix, "labels")
            self.notes.taken.append(f"people: .{label} of each sample{others}")
            return label
        if unread:
            raise UserError(
                f"the .json of the samples in '{root}' have {', '.join(unread)[:300]}: does one say who is on them?",
                fix=f"{label_fix(unread)}; where the folders are the people, take the .json files out",
            )
        folders.pop((), None)
        if not folders:
            return None
        layout = find_layout(folders, self.level, 99, root)
        self.notes.taken.append(f"{layout.note}; no sample has a label")
        return layout

    def _labels(
        self, shard: Path, by_kind: dict[str, tarfile.TarInfo], image: str
    ) -> tuple[dict[str, object], dict[str, Any]]:
        """({kind: the label of that kind}, what the .json says) of an image; raises ValueError and OSError."""
        found: dict[str, object] = {}
        facts: dict[str, Any] = {}
        for kind, member in _label_members(by_kind, image).items():
            if member.size > LARGEST_LABEL_BYTES:
                raise ValueError(f"'{member.name}' has {member.size} bytes")
            data = read_slice(shard, member.offset_data, member.size)
            if kind != "json":
                found[kind] = data.decode()
                continue
            facts = parse_json(data)
            usual = (name for name in IDENTITY if name in facts)
            column = self.identity_column if self.identity_column is not None else next(usual, None)
            if column is not None:
                found[kind] = facts.get(column)
        return found, facts

    def _sample(
        self, shard: Path, sample: str, key: str, group: list[tarfile.TarInfo], evidence: str | Layout | None
    ) -> Iterator[SourceImage]:
        by_kind = {_suffix(member.name): member for member in group}
        image_kinds = [kind for kind in by_kind if _is_image(kind)]
        try:
            if not image_kinds:
                raise ValueError(f"no image among {', '.join(member.name for member in group)}"[:300])
            if special := [member.name for member in group if not member.isreg() or member.issparse()]:
                raise ValueError(f"'{special[0]}' is a link, a device or sparse, not a plain file"[:300])
        except ValueError as error:
            yield refused_image(self, sample, shard, str(error))
            return
        for kind in image_kinds:
            member, name = by_kind[kind], f"{sample}.{kind}"
            try:
                found, facts = self._labels(shard, by_kind, kind)
                if isinstance(evidence, str):
                    if evidence not in found:
                        raise ValueError(f"no label: other samples have .{evidence}")
                    person = found[evidence]
                else:
                    person = evidence.person(member.name.split("/")) if evidence is not None else None
            except (ValueError, OSError) as error:
                yield refused_image(self, name if len(image_kinds) > 1 else sample, shard, str(error))
                continue
            reader = partial(read_slice, shard, member.offset_data, member.size)
            yield source_image(self, facts, person, name, shard, reader)


def _samples(shard: Path) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """(key, members) of each sample."""
    for key, group in itertools.groupby(members(shard), lambda member: _key(member.name)):
        yield key, list(group)


def _is_image(kind: str) -> bool:
    return kind.rsplit(".", 1)[-1] in IMAGES


def _label_members(by_kind: dict[str, tarfile.TarInfo], image: str) -> dict[str, tarfile.TarInfo]:
    """{kind of label: its member} of an image: those called as the image is, or as the sample is.

    In a sample of one image, those with any other dots in their names too.
    """
    stem = image.rpartition(".")[0]
    alone = sum(map(_is_image, by_kind)) == 1
    found = {}
    for label in LABEL_KINDS:
        ending = [kind for kind in by_kind if kind.rsplit(".", 1)[-1] == label]
        usual = [f"{stem}.{label}" if stem else label, label]
        names = [kind for kind in usual if kind in by_kind] or (ending if alone and len(ending) == 1 else [])
        if names:
            found[label] = by_kind[names[0]]
    return found


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
