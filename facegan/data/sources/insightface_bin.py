"""The verification sets of insightface (lfw.bin, agedb_30.bin ...): a pickle of images, two a pair, and of answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.data.images import BadImage, decode
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, read_slice
from facegan.data.sources import _pickled as pickled

FIX = "give a .bin as insightface writes it: a list of encoded images, a list of bools, pickle protocol 3 or later"


@SOURCES.register
class InsightfaceBin(OwnFaces):
    """insightface's .bin of pairs, without names: images of a genuine pair, and equal ones, are one person each.

    The file does not say when two pairs show the same person: these people are for testing, not for training.
    """

    kind: Literal["insightface-bin"] = "insightface-bin"
    root: str = Field(min_length=1, description="the .bin file")
    dataset: str = Field("insightface-bin", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return path.suffix == ".bin" and path.is_file()

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig; image n is named by its place, pair n // 2."""
        path, notes = user_path(self.root), self.new_notes()
        images, same = read_pairs(path)
        people = _people(path, images, same)
        crossed = sum(not genuine and people[2 * n] == people[2 * n + 1] for n, genuine in enumerate(same))
        notes.taken.append(
            f"people: {len(set(people)):,}, joined by {sum(same):,} genuine pairs and by equal images"
            + (f"; pairs that should show two people, but so show one: {crossed:,}" if crossed else "")
        )
        for number, (piece, person) in enumerate(zip(images, people, strict=True)):
            relative, reader = f"{number:06d}", partial(read_slice, path, piece.offset, piece.size)
            yield SourceImage(f"{self.dataset}/{person:06d}", relative, path, self.license, reader=reader, stated=True)


def read_pairs(path: Path) -> tuple[list[pickled.Slice], list[bool]]:
    """(where the 2 N encoded images lie, N bools: pair n is images 2 n and 2 n + 1, true where genuine).

    The pickle runs nothing (see `_pickled`). Raises UserError for a file that is anything else.
    """
    try:
        images, same = pickled.read(path)
        if isinstance(same, pickled.Slice):
            same = [bool(byte) for byte in read_slice(path, same.offset, same.size)]
        if not (isinstance(images, list) and all(isinstance(item, pickled.Slice) for item in images)):
            raise ValueError("its first part is no list of encoded images")
        if not (isinstance(same, list) and 2 * len(same) == len(images) and all(item in (0, 1) for item in same)):
            raise ValueError(f"it has {len(images)} images, but not half as many answers true or false")
    except (ValueError, OSError, RecursionError, MemoryError, TypeError) as error:
        raise UserError(f"'{path}' is no insightface .bin that can be read: {error}"[:500], fix=FIX) from error
    if not images:
        raise UserError(f"'{path}' holds no image", fix=FIX)
    return images, [bool(item) for item in same]


def _people(path: Path, images: list[pickled.Slice], same: list[bool]) -> list[int]:
    """For each image the first one that shows its person: joined by genuine pairs and by equal photos.

    Equal bytes that are no photo (an error page, one colour) join nobody.
    """
    parent = list(range(len(images)))

    def first(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    def join(a: int, b: int) -> None:
        low, high = sorted((first(a), first(b)))
        parent[high] = low

    by_bytes: dict[bytes, list[int]] = {}
    for number, piece in enumerate(images):
        digest = hashlib.sha256(read_slice(path, piece.offset, piece.size)).digest()
        by_bytes.setdefault(digest, []).append(number)
    for numbers in by_bytes.values():
        piece = images[numbers[0]]
        if len(numbers) > 1 and _is_photo(read_slice(path, piece.offset, piece.size)):
            for number in numbers[1:]:
                join(numbers[0], number)
    for pair, genuine in enumerate(same):
        if genuine:
            join(2 * pair, 2 * pair + 1)
    return [first(number) for number in range(len(images))]


def _is_photo(data: bytes) -> bool:
    try:
        decode(data)
    except BadImage:
        return False
    return True
