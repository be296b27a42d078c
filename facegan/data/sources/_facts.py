"""What a table's row, a JSON file or a list beside the images says of an image: person, licence, group, landmarks."""

from __future__ import annotations

import base64
import datetime
import errno
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from facegan.core.errors import UserError
from facegan.data.manifest import DERIVED, NEW
from facegan.data.names import decoded_name, encoded_name, forms
from facegan.data.sources import NOBODY, SourceImage, printable, refuse

IDENTITY = ("identity", "identity_name", "person", "person_id", "subject", "subject_id", "name", "label", "class", "id")
FACTS = (
    *("dataset", "source", "license", "group", "landmarks", "source_sha256", "parents", "parent_weights"),
    "generator",
)
NO_LABELS = (
    *("file_name", "width", "height", "split", "sha256", "md5", "url", "caption", "text", "key", "status", "exif"),
    *("error_message", "original_width", "original_height", "image_id", "quality", "held_out"),
)
"""Keys beside the FACTS that say nothing of who is on an image, as other programs write them."""
IMAGE = ("image", "jpg", "png", "path", "file_name", "filename", "file", "image_path", "bytes")


BACKSLASHES = "backslashes in its path, as Windows writes them, read as slashes"
"""The remark of an image whose path was so read."""

OTHER_LETTERS = "accented letters in its path, composed otherwise on the disk"
"""The remark of an image whose path was found in another form of Unicode."""

_ENCODED = re.compile(r"data:[\w/+.=;-]{0,100};base64,|/9j/|iVBORw0KGgo|R0lGOD|UklGR")


class NamingSource(Protocol):
    """A source that names people: what begins their names, and the licence of a row that names none."""

    @property
    def dataset(self) -> str: ...
    @property
    def license(self) -> str | None: ...
    @property
    def made_up(self) -> bool: ...


def source_image(
    source: NamingSource,
    facts: Mapping[str, Any],
    name: object,
    relative: str,
    path: Path,
    reader: Callable[[], bytes] | None = None,
    **rest: Any,
) -> SourceImage:
    """An image of the person `name`, with what `facts` adds under the names of a manifest's columns.

    Where `facts` has the dataset that `name` begins with, `name` is the whole identity, as in what facegan exports.
    What cannot be right gives an image that goes to the quarantine with the reason.
    """
    relative = printable(relative)
    try:
        identity = _made_up(source.dataset, facts, name) if source.made_up else _identity(source.dataset, facts, name)
        columns: dict[str, Any] = {
            "license": _optional_text(facts.get("license"), "license") or source.license,
            "group": _optional_text(facts.get("group"), "group"),
            "session": _session(facts.get(getattr(source, "session_column", None) or "")),
            "landmarks": parse_landmarks(facts.get("landmarks")),
            "source_sha256": _sha256(facts.get("source_sha256")),
            "parents": _parents(facts.get("parents")) if source.made_up else (),
            "parent_weights": _weights(facts) if source.made_up else (),
            "generator": _optional_text(facts.get("generator"), "generator") if source.made_up else None,
        }
    except ValueError as error:
        return refused_image(source, relative, path, str(error))
    return SourceImage(identity, relative, path, reader=reader, stated=True, **columns, **rest)


def refused_image(source: NamingSource, relative: str, path: Path, reason: str) -> SourceImage:
    """An entry that cannot be used: it goes to the quarantine with the reason."""
    return SourceImage(source.dataset + NOBODY, printable(relative), path, stated=True, reader=partial(refuse, reason))


def _made_up(dataset: str, facts: Mapping[str, Any], name: object) -> str:
    """The identity of a person who does not exist: as facegan names them, or as any source does."""
    identity, row_dataset = printable(str(name)).strip(), facts.get("dataset")
    if identity.startswith(DERIVED):
        raise ValueError("of a set that stage derive made from photos of train people: it is no new person")
    if identity.startswith(NEW) and identity != NEW:
        return identity
    if facts.get("source") == "synthetic" and row_dataset and identity.startswith(f"{row_dataset}/"):
        raise ValueError("a synthetic image of a train person: only people who do not exist are taken")
    return _identity(dataset, {**facts, "source": None}, name)


def _parents(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple) and all(isinstance(parent, str) for parent in value):
        return tuple(printable(parent) for parent in value)
    raise ValueError(f"its parents are no list of names: {value!r}"[:200])


def _weights(facts: Mapping[str, Any]) -> tuple[float, ...]:
    """How much of each parent, signed; none where the source does not say."""
    value, parents = facts.get("parent_weights"), _parents(facts.get("parents"))
    if value is None or value == "":
        return ()
    numbers = value if isinstance(value, list | tuple) else []
    numbers = [w for w in numbers if isinstance(w, int | float) and not isinstance(w, bool) and math.isfinite(w)]
    if isinstance(value, list | tuple) and len(numbers) == len(value) == len(parents):
        return tuple(map(float, numbers))
    raise ValueError(f"its parent_weights are not a number for each of its {len(parents)} parents: {value!r}"[:200])


def _identity(dataset: str, facts: Mapping[str, Any], name: object) -> str:
    if facts.get("source") == "synthetic":
        raise ValueError("a synthetic image: no photo of anybody")
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    if name is None or isinstance(name, bool | float | bytes | list | dict):
        raise ValueError(f"names no person: {name!r}"[:200])
    person = printable(str(name)).strip()
    row_dataset = facts.get("dataset")
    if (
        isinstance(row_dataset, str)
        and re.fullmatch(r"[A-Za-z0-9._-]+", row_dataset)
        and person.startswith(f"{row_dataset}/")
    ):
        dataset, person = row_dataset, person[len(row_dataset) + 1 :]
    if not person or dataset == "synthetic":
        raise ValueError("names no person" if not person else "a synthetic image: no photo of anybody")
    return f"{dataset}/{person}"


def parse_landmarks(value: Any) -> tuple[float, ...] | None:
    """Five points x, y in px from ten numbers, five pairs, or text of them; raises ValueError for anything else.

    A point that its detector does not find is NaN (or null), both x and y; not all of them.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip("[]() \t\n"))
    if isinstance(value, list | tuple) and len(value) == 5 and all(isinstance(v, list | tuple) for v in value):
        value = [number for point in value for number in point]
    try:
        numbers = tuple(math.nan if number is None else float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    finite = [point for point in points if not (math.isnan(point[0]) and math.isnan(point[1]))]
    if len(numbers) != 10 or not finite or not all(math.isfinite(x) and math.isfinite(y) for x, y in finite):
        raise ValueError("its landmarks are not ten numbers (five points x, y)")
    return numbers


def _optional_text(value: Any, what: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str | int) and not isinstance(value, bool):
        return printable(str(value))
    raise ValueError(f"its {what} is no text: {value!r}"[:200])


def _session(value: Any) -> str | None:
    """A session or a date as text that sorts in its order: `natural_key`; raises ValueError for what does not."""
    if value is None or value == "":
        return None
    if isinstance(value, bool | float) or not isinstance(value, str | int | datetime.date):
        raise ValueError(f"its session is neither text, a whole number nor a date: {value!r}"[:200])
    session = printable(str(value)).strip()
    if re.match(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(?!\d)", session):
        raise ValueError(f"its session '{session}' is a date that does not begin with the year: write YYYY-MM-DD"[:200])
    return session or None


def _sha256(value: Any) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else None


def is_base64(value: object) -> bool:
    """Whether a text is an image in base64 and no path: a data: URI, or as a JPEG, PNG, GIF or WebP begins."""
    match = _ENCODED.match(value) if isinstance(value, str) else None
    if match is None or not isinstance(value, str):
        return False
    uri = value.startswith("data:")
    return uri or (len(value) >= 64 and re.fullmatch(r"[A-Za-z0-9+/=\s]*", value[:200]) is not None)


def decode_base64(value: str) -> bytes:
    """The bytes of a text that `is_base64`; raises OSError where it is cut short or holds what is no base64."""
    match = _ENCODED.match(value)
    start = match.end() if match and value.startswith("data:") else 0
    try:
        return base64.b64decode("".join(value[start:].split()), validate=True)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"its base64 is broken: {error}") from error


def find_columns(chosen: str | None, names: Iterable[str], usual: tuple[str, ...], what: str, where: Path) -> list[str]:
    """The columns that may hold `what`: the one wanted, or the usual ones; raises UserError that lists them all."""
    columns = list(names)
    option = f"{what}_column"
    if chosen is not None and chosen not in columns:
        raise UserError(f"'{where}' has no column '{chosen}'", fix=f"{option} is one of: {', '.join(columns)}"[:500])
    found = [chosen] if chosen is not None else [name for name in usual if name in columns]
    if not found:
        raise UserError(
            f"'{where}' has no column whose name says that it holds the {what} (looked for {', '.join(usual)})",
            fix=f"set {option} to one of: {', '.join(columns) or '(it has no other columns)'}"[:500],
        )
    return found


def find_column(chosen: str | None, names: Iterable[str], usual: tuple[str, ...], what: str, where: Path) -> str:
    """The first of `find_columns`."""
    return find_columns(chosen, names, usual, what, where)[0]


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else, nested too deep included."""
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"its JSON cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("its JSON is no object")
    return value


def resolve_inside(images: Path, name: str) -> tuple[Path, str]:
    """(path, its name below `images`) of a file that a table names; raises ValueError where it leads out or is none.

    Where it is not there as written, it is tried with slashes for the backslashes of Windows, and with letters
    composed and decomposed.
    """
    try:
        inside = images.resolve()
        path = images / encoded_name(as_there(name, lambda file: _is_inside(images / encoded_name(file), inside)))
        relative = decoded_name(path.resolve().relative_to(inside).as_posix())
        plain = path.is_file() or not path.exists()  # reading one that is not there says so
    except OSError as error:
        raise ValueError(f"{error.strerror}: '{name}'"[:300]) from error
    except (ValueError, RuntimeError) as error:  # RuntimeError: a loop of links; ValueError: NUL
        raise ValueError(f"'{name}' leads out of the folder of images, or in a circle"[:300]) from error
    if not plain:
        raise ValueError(f"'{name}' is no file"[:300])
    return path, relative


def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_file() and folder in path.resolve().parents


def as_there(name: str, is_there: Callable[[str], bool]) -> str:
    """A name as it is or, where it is not there, in the first other form that is: slashes, composed, decomposed."""
    others = (form for turned in (name, name.replace("\\", "/")) for form in forms(turned))
    return next((form for form in others if is_there(form)), name)


def path_remarks(images: Path, name: str, path: Path) -> tuple[str, ...]:
    """How a path of a table was read that is not there as written."""
    if path == images / encoded_name(name):
        return ()
    return (BACKSLASHES,) if "\\" in name else (OTHER_LETTERS,)
