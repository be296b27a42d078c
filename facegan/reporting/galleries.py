"""Real beside synthetic faces: which are shown, as data: URIs for the page and as sheets for Markdown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegan.data import manifest
from facegan.data.contact_sheet import some, spread
from facegan.data.images import encode_png, to_pixels

LARGEST_PX = 128
GAP_PX = 6
MOST_PARENTS = 4


@dataclass(frozen=True)
class Row:
    """Faces in a line: `kind` is real, parent or synthetic."""

    kind: str
    caption: str
    faces: tuple[bytes, ...]


@dataclass(frozen=True)
class Person:
    """An identity and its rows of faces."""

    identity: str
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """The people that are shown, of how many there are."""

    existing: tuple[Person, ...]
    new: tuple[Person, ...]
    n_existing: int
    n_new: int


def collect(real: Path, synthetic: Path, people: int, faces: int) -> Gallery:
    """Existing people, their real row above the synthetic one, and new people below their parents."""
    table = manifest.read(synthetic, ["identity", "parents"])
    parents = dict(zip(table["identity"].to_pylist(), table["parents"].to_pylist(), strict=True))
    trained = set(manifest.read(real, ["identity"], split="train")["identity"].to_pylist())
    existing = [name for name in parents if name in trained]
    new = [name for name in parents if name not in trained]
    shown_old, shown_new = spread(existing, people), spread(new, people)
    wanted = {*shown_old, *(parent for name in shown_new for parent in parents[name] or [])}
    photos = some(real, wanted, faces, "train")
    made = some(synthetic, {*shown_old, *shown_new}, faces)
    old = tuple(
        Person(
            name,
            (Row("real", "real", photos.get(name, ())), Row("synthetic", "synthetic", made.get(name, ()))),
        )
        for name in shown_old
    )
    invented = tuple(_invented(name, parents[name] or [], photos, made) for name in shown_new)
    return Gallery(old, invented, len(existing), len(new))


def _invented(
    name: str, parents: list[str], photos: dict[str, tuple[bytes, ...]], made: dict[str, tuple[bytes, ...]]
) -> Person:
    known = [parent for parent in parents if photos.get(parent)]
    names = " + ".join(known[:MOST_PARENTS])
    if len(known) > MOST_PARENTS:
        names += f" and {len(known) - MOST_PARENTS} more"
    first = tuple(photos[parent][0] for parent in known[:MOST_PARENTS])
    above = (Row("parent", "real parents", first),) if first else ()
    return Person(name, (*above, Row("synthetic", "synthetic", made.get(name, ()))), names)


def uri(data: bytes) -> str:
    """A face as a data: URI, at most LARGEST_PX wide or high: small grey PNGs as stored, the rest as JPEG."""
    image = Image.open(io.BytesIO(data))
    if max(image.size) > LARGEST_PX or image.mode != "L":
        image.thumbnail((LARGEST_PX, LARGEST_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.convert("L" if image.mode == "L" else "RGB").save(buffer, "JPEG", quality=90)
        data = buffer.getvalue()
    return data_uri(data)


def data_uri(data: bytes) -> str:
    """PNG bytes (or JPEG, told by its first bytes) as a data: URI."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def sheet(people: tuple[Person, ...]) -> bytes:
    """People below each other, the rows of each close together, as one PNG for Markdown."""
    lines: list[list[np.ndarray[Any, Any]]] = []
    gaps = []
    for person in people:
        for number, row in enumerate(person.rows):
            lines.append([_square(face) for face in row.faces])
            gaps.append(GAP_PX if number + 1 < len(person.rows) else 3 * GAP_PX)
    width = max((len(line) for line in lines), default=1)
    height = sum(LARGEST_PX // 2 + gap for gap in gaps) or 1
    side = LARGEST_PX // 2
    canvas = np.full((height, width * (side + GAP_PX), 3), 255, np.uint8)
    top = 0
    for line, gap in zip(lines, gaps, strict=True):
        for place, face in enumerate(line):
            left = place * (side + GAP_PX)
            canvas[top : top + side, left : left + side] = face
        top += side + gap
    return encode_png(canvas)


def _square(data: bytes) -> np.ndarray[Any, Any]:
    side = LARGEST_PX // 2
    pixels = to_pixels(data)
    image = Image.fromarray(pixels.squeeze()).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)
