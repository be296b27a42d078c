"""Real beside synthetic faces: which are shown, as data: URIs for the page and as sheets for Markdown."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegan import manifest
from facegan.images import encode_png, to_pixels

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


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which s2 comes before s10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def spread(names: list[str], wanted: int) -> list[str]:
    """At most `wanted` of the names, evenly spaced in natural order: nobody picks the best ones."""
    ordered = sorted(names, key=natural)
    return [ordered[place] for place in _evenly(len(ordered), wanted)]


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


def some(path: Path, wanted: set[str], faces: int, split: str | None = None) -> dict[str, tuple[bytes, ...]]:
    """At most `faces` images of each wanted identity, evenly spaced in the order of the manifest."""
    counts = Counter(manifest.read(path, ["identity"], split)["identity"].to_pylist())
    places = {name: set(_evenly(counts[name], faces)) for name in wanted}
    found: dict[str, list[bytes]] = {name: [] for name in wanted}
    seen: Counter[str] = Counter()
    for item in manifest.iterate(path, split):
        name = item["identity"]
        if name in places and seen[name] in places[name]:
            found[name].append(item["image"]["bytes"])
        seen[name] += 1
    return {name: tuple(images) for name, images in found.items()}


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` places among `count`, evenly spaced, the first and the last among them."""
    return [int(place) for place in np.linspace(0, count - 1, min(wanted, count)).round()]


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
