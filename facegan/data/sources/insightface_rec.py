"""The training sets of insightface: train.rec, in the RecordIO format of MXNet, read without it."""

from __future__ import annotations

import errno
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.data.sources import SOURCES, OwnFaces, SourceImage, check_size
from facegan.data.sources._disk import count_others
from facegan.data.sources._facts import refused_image

MAGIC = 0xCED7230A
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2 (mxnet.recordio.IRHeader)
HEADER_RECORD = ("record of labels alone, without an image", "records of labels alone, without an image")
FIX = "give train.rec as insightface publishes it, whole, or the folder that holds it"


@SOURCES.register
class InsightfaceRec(OwnFaces):
    """insightface's train.rec (RecordIO), read in its own order: .idx and property beside it are not needed.

    The person is the record's label, or the first of several. Records that only say which records are whose
    (the first one, and one a person at the end) have no image and are passed over.
    """

    kind: Literal["insightface-rec"] = "insightface-rec"
    root: str = Field(min_length=1, description="train.rec, or the folder that holds it")
    dataset: str = Field("insightface-rec", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """See SourceConfig."""
        return path.is_file() if path.suffix == ".rec" else (path / "train.rec").is_file()

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig; an image is named by the number of its record, as in the .idx."""
        root, notes = user_path(self.root), self.new_notes()
        path = root / "train.rec" if root.is_dir() else root
        if root.is_dir():
            count_others(root, [path], notes)
        notes.taken.append(f"{path.name}: person: the label of the record")
        empty = True
        for number, (record, head) in enumerate(_records(path)):
            relative, labels = f"{number:08d}", _labels(head, record.size)
            if labels is not None and labels[1] >= record.size and labels[1] > HEADER.size:
                notes.leave_out(HEADER_RECORD, relative)
                continue
            empty = False
            if labels is None or not _is_whole(labels[0]):
                yield refused_image(self, relative, path, "its record has no label that is a whole number")
                continue
            reader, person = partial(_read, path, record.offset, labels[1]), f"{self.dataset}/{int(labels[0])}"
            yield SourceImage(person, relative, path, self.license, reader=reader, stated=True)
        if empty:
            raise UserError(f"no image is in '{path}'", fix=FIX)


@dataclass(frozen=True)
class _Record:
    """A record at `offset` (its first header) with `size` bytes of content."""

    offset: int
    size: int


def _records(path: Path) -> Iterator[tuple[_Record, bytes]]:
    """Every record, with the first bytes of its content; raises UserError where the file is damaged."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            offset = 0
            while offset < size:
                pieces, after = _pieces(file, offset, size)
                file.seek(pieces[0][0])
                head = file.read(min(pieces[0][1], HEADER.size + 4))
                yield _Record(offset, sum(length for _, length in pieces) + 4 * (len(pieces) - 1)), head
                offset = after
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is no RecordIO file that can be read: {error}", fix=FIX) from error


def _pieces(file: BinaryIO, offset: int, size: int) -> tuple[list[tuple[int, int]], int]:
    """([(offset, length) of a record's content], where the next begins). A record is cut where it holds the magic.

    Raises ValueError when it is damaged (dmlc-core, recordio.h: magic, then 3 bits of kind and 29 of length).
    """
    pieces: list[tuple[int, int]] = []
    while True:
        file.seek(offset)
        header = file.read(8)
        magic, word = struct.unpack("<II", header) if len(header) == 8 else (0, 0)
        kind, length = word >> 29, word & (1 << 29) - 1
        if magic != MAGIC or kind not in ((MIDDLE, LAST) if pieces else (WHOLE, FIRST)):
            raise ValueError(f"it is damaged at byte {offset}")
        after = offset + 8 + length + -length % 4
        if after > size:
            raise ValueError(f"it is cut short in the record at byte {offset}")
        pieces.append((offset + 8, length))
        offset = after
        if kind in (WHOLE, LAST):
            return pieces, offset


def _labels(head: bytes, size: int) -> tuple[float, int] | None:
    """(the first label, where the image begins in the content), or None for content that has no such header."""
    if len(head) < HEADER.size:
        return None
    flag, label, _, _ = HEADER.unpack(head[: HEADER.size])
    if flag == 0:
        return label, HEADER.size
    if len(head) < HEADER.size + 4 or HEADER.size + 4 * flag > size:
        return None
    return struct.unpack("<f", head[HEADER.size :])[0], HEADER.size + 4 * flag


def _is_whole(label: float) -> bool:
    return math.isfinite(label) and label == int(label)


def _read(path: Path, offset: int, begin: int) -> bytes:
    """The image in the record at `offset`, from `begin` of its content on; raises OSError."""
    with open(path, "rb") as file:
        try:
            pieces, _ = _pieces(file, offset, os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise OSError(errno.EIO, str(error)) from error
        check_size(sum(length for _, length in pieces))
        content = struct.pack("<I", MAGIC).join(_at(file, *piece) for piece in pieces)
    return content[begin:]


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
