"""Where faces come from: real ones and, for synthesize.external, made ones. One file adds a member."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NoReturn, Self

from pydantic import Field, PrivateAttr, field_validator

from facegan.core.digests import file_sha256
from facegan.core.errors import ConfigError
from facegan.core.options import Options, unhashed_default
from facegan.core.registry import Registry
from facegan.data.names import is_nobody, normal

SOURCES = Registry("source", __name__)


NOBODY = "/?"
"""The end of the identity of an image that cannot be used; reading the image says why."""

LARGEST_BYTES = 500_000_000

Side = Literal["develop", "test"]
"""What a source's own protocol says of a person: for train and val, or for test."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a source: `identity` is `dataset/name`, `relative` its name in the source, which no other has.

    `path` is the file that holds it; `reader` gives its bytes where it is not the whole of that file, and raises
    OSError. `landmarks` are five points x, y in px (eyes, nose, corners of the mouth). `side` is None where the
    source leaves it to prepare.split who trains and who tests. `sha256_hex` is that of the bytes, where the source
    knows it; `source_sha256` that of the file that the bytes were made from, where it is another. `stated`: the
    fingerprint holds identity, license, group and landmarks, which neither config nor name give. `parents` are the
    identities that a person who does not exist descends from, `parent_weights` how much from each (signed), and
    `generator` what drew it (a fingerprint), where the source says so. `session` is when or on what occasion it was
    taken, where a column of the source was named for it. `remarks` say how it was read, where not in the usual way.
    `identity` and `group` are kept in one normal form; `written` is the identity as the source has it, where
    that is another. A name that stands for nobody becomes an entry that cannot be used.
    """

    identity: str
    relative: str
    path: Path
    license: str | None = None
    group: str | None = None
    side: Side | None = None
    landmarks: tuple[float, ...] | None = None
    source_sha256: str | None = None
    sha256_hex: str | None = None
    stated: bool = False
    parents: tuple[str, ...] = ()
    parent_weights: tuple[float, ...] = ()
    generator: str | None = None
    session: str | None = None
    reader: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    remarks: tuple[str, ...] = field(default=(), compare=False, repr=False)
    written: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        identity = normal(self.identity)
        if identity != self.identity:
            object.__setattr__(self, "written", self.identity)
        dataset, slash, name = identity.partition("/")
        if slash and name != NOBODY[1:] and is_nobody(name):
            identity = dataset + NOBODY
            object.__setattr__(self, "reader", partial(refuse, f"its label '{name}' names nobody"))
            object.__setattr__(self, "sha256_hex", None)
        object.__setattr__(self, "identity", identity)
        if self.group is not None:
            object.__setattr__(self, "group", normal(self.group))

    def read(self) -> bytes:
        """Its bytes; raises OSError when they cannot be read, are more than 500 MB or not those of `sha256_hex`."""
        if self.reader is not None:
            data = self.reader()
        else:
            check_size(self.path.stat().st_size)
            data = self.path.read_bytes()
        if self.sha256_hex is not None and hashlib.sha256(data).hexdigest() != self.sha256_hex:
            raise OSError(errno.EIO, "its bytes are not those that its sha256 was made of")
        return data

    def sha256(self) -> str:
        """Of its bytes; raises OSError as `read`."""
        if self.sha256_hex is not None:
            return self.sha256_hex
        return file_sha256(self.path) if self.reader is None else hashlib.sha256(self.reader()).hexdigest()


def guess(path: Path) -> str:
    """The kind of the source at a path of the file system; raises ConfigError where none or several fit."""
    kinds = [kind for kind, member in SOURCES.load().items() if path.exists() and member.claims(path)]
    if len(kinds) == 1:
        return kinds[0]
    if not path.exists():
        raise ConfigError(f"there is nothing at '{path}'", fix="give the path of a folder or file")
    looks = f"looks like {' and like '.join(kinds)}" if kinds else "looks like no source that facegan knows"
    raise ConfigError(
        f"'{path}' {looks}", fix=f"say which it is, as KIND:PATH; the kinds are: {', '.join(SOURCES.load())}"
    )


def check_size(size: int) -> None:
    """Raise OSError for a file that is larger than any photo."""
    if size > LARGEST_BYTES:
        raise OSError(errno.EFBIG, f"larger than {LARGEST_BYTES / 1e6:.0f} MB")


def refuse(reason: str) -> NoReturn:
    """Raise OSError with the reason: the `reader` of an entry that is no image, which so goes to the quarantine."""
    raise OSError(errno.EINVAL, reason)


def read_slice(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file; raises OSError when they are more than 500 MB or not there."""
    check_size(size)
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(errno.EIO, "cut short")
    return data


class SourceNotes:
    """What reading a source took for what (`taken`, lines), and what it passed over, counted by kind, and its `names`.

    All notes are equal: they are no part of a source's options.
    """

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.left_out: Counter[tuple[str, str]] = Counter()
        self.names: set[str] = set()
        self._examples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SourceNotes)

    __hash__ = None  # type: ignore[assignment]

    def leave_out(self, kind: tuple[str, str], name: str) -> None:
        """Count an entry that is passed over; `kind` says what it is, of one and of several."""
        self.left_out[kind] += 1
        self.names.add(name)
        if len(self._examples[kind]) < 3:
            self._examples[kind].append(printable(name))

    def left_out_line(self) -> str:
        """`left out: 8 links that lead out of it (a, b, c ...), 2 films (d, e)`, or an empty text."""
        parts = [
            f"{count:,} {kind[count > 1]} ({', '.join(self._examples[kind])}{' ...' if count > 3 else ''})"
            for kind, count in self.left_out.items()
        ]
        return f"left out: {', '.join(parts)}" if parts else ""

    def lines(self) -> list[str]:
        """All of it, to be printed."""
        return [*self.taken, *filter(None, [self.left_out_line()])]


class SourceConfig(Options):
    """The base of sources: a literal `kind` and `rows`. Options in `paths` say only where it lies."""

    paths: ClassVar[tuple[str, ...]] = ("root",)
    kind: str
    _made_up: bool = PrivateAttr(False)
    _notes: SourceNotes = PrivateAttr(default_factory=SourceNotes)

    @property
    def notes(self) -> SourceNotes:
        """What the last `rows` took for what and passed over: whole once the last row was given."""
        return self._notes

    def new_notes(self) -> SourceNotes:
        """Empty notes, which `rows` fills."""
        self._notes = SourceNotes()
        return self._notes

    @property
    def made_up(self) -> bool:
        """Whether it is read for people who do not exist: else its rows of them go to the quarantine."""
        return self._made_up

    def of_made_up(self) -> Self:
        """The same source, read for people who do not exist."""
        copy = self.model_copy()
        copy._made_up = True
        return copy

    def rows(self) -> Iterator[SourceImage]:
        """The images, in an order that is quick to read and always the same; raises UserError when there are none."""
        raise TypeError(f"{type(self).__name__} must define rows()")

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether a path (of the file system) looks like a source of this kind: `facegan import` guesses by it."""
        return False

    def entries(self) -> list[tuple[str, ...]]:
        """(relative path, file sha256) of every file, sorted; every file is read. Raises UserError as `rows`.

        Where the source says who is for test, or states identity, license, group or landmarks, each entry says it.
        """
        return sorted(entry(row) for row in self.rows())

    def fingerprint(self, entries: list[tuple[str, ...]] | None = None) -> str:
        """sha256 of the `entries`, found anew where not given: the same faces elsewhere are the same source."""
        entries = self.entries() if entries is None else entries
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()

    def identifying(self) -> dict[str, object]:
        """The part of the config that is hashed: everything but where the files lie."""
        return self.model_dump(mode="json", exclude=set(self.paths))


class OwnFaces(SourceConfig):
    """A source of the user's own: the first part of its identities' names, and a licence, are options."""

    root: str = Field(min_length=1)
    dataset: str = Field("faces", pattern=r"^[A-Za-z0-9._-]+$", description="first part of identity names")
    license: str | None = Field(None, description="kept with every row that names no other")
    session_column: str | None = unhashed_default(
        None, description="holds the session or the date of a photo (YYYY-MM-DD), by which prepare.held_out goes"
    )

    @field_validator("dataset")
    @classmethod
    def _is_real(cls, dataset: str) -> str:
        if dataset == "synthetic":
            raise ValueError("'synthetic' is the dataset of people who do not exist: choose another name")
        return dataset


def printable(name: str) -> str:
    """A file name as text that can be written: bytes that are no UTF-8 become `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def entry(row: SourceImage, sha256: str | None = None) -> tuple[str, ...]:
    """What a fingerprint holds of an image; its bytes are read where their `sha256` is not given."""
    origin = [list(row.parents), row.generator] if row.parents or row.generator else []
    weights = [list(row.parent_weights)] if row.parent_weights else []
    session = [{"session": row.session}] if row.session else []
    facts = [row.identity, row.license, row.group, row.landmarks, *origin, *weights, *session]
    stated = (json.dumps(facts),) if row.stated else ()
    return (row.relative, sha256 or _sha256(row), *([row.side] if row.side else []), *stated)


def _sha256(row: SourceImage) -> str:
    """Of a file's bytes; "unreadable" for one that cannot be read, which then goes to the quarantine."""
    try:
        return row.sha256()
    except OSError:
        return "unreadable"
