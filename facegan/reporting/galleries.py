"""Real beside synthetic faces: who is shown, as data: URIs for the page and as sheets for Markdown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegan.data import manifest
from facegan.data.contact_sheet import evenly_chosen, faces_of, natural_key
from facegan.data.images import decode_pixels, encode_png, open_image

LARGEST_PX = 128
GAP_PX = 6
MOST_PARENTS = 4
FIRST, FIRST_A_ROW = 100, 10  # new people in the grid of the first of them


@dataclass(frozen=True)
class Row:
    """A row of faces; `kind` is real, parent or synthetic."""

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
    """The people that are shown, how many there are in all, and an image of each of the FIRST new people."""

    existing: tuple[Person, ...]
    new: tuple[Person, ...]
    n_existing: int
    n_new: int
    first: tuple[bytes, ...] = ()


def collect(real: Path, synthetic: Path, people: int, faces: int) -> Gallery:
    """Existing people, their real row above the synthetic one, and new people below their parents.

    New people are the first by their number: nobody chooses them.
    """
    table = manifest.read(synthetic, ["identity", "parents"])
    parents = dict(zip(table["identity"].to_pylist(), table["parents"].to_pylist(), strict=True))
    trained = set(manifest.read(real, ["identity"], split="train")["identity"].to_pylist())
    existing = [name for name in parents if name in trained]
    new = [name for name in parents if name not in trained]
    shown_old, shown_new = evenly_chosen(existing, people), by_number(new)[:people]
    with_photos = {*shown_old, *(parent for name in shown_new for parent in parents[name] or [])}
    photos = faces_of(real, with_photos, faces, "train")
    synthetic_faces = faces_of(synthetic, {*shown_old, *shown_new}, faces)
    existing_people = tuple(
        Person(
            name,
            (Row("real", "real", photos.get(name, ())), Row("synthetic", "synthetic", synthetic_faces.get(name, ()))),
        )
        for name in shown_old
    )
    new_people = tuple(_new_person(name, parents[name] or [], photos, synthetic_faces) for name in shown_new)
    first = first_faces(synthetic, new) if people else ()
    return Gallery(existing_people, new_people, len(existing), len(new), first)


def by_number(names: list[str]) -> list[str]:
    """The order in which new people were made."""
    return sorted(names, key=natural_key)


def first_faces(synthetic: Path, new: list[str]) -> tuple[bytes, ...]:
    """The first image of each of the FIRST new people, by their number."""
    shown = by_number(new)[:FIRST]
    faces = faces_of(synthetic, set(shown), 1)
    return tuple(faces[name][0] for name in shown if faces[name])


def first_grid(faces: tuple[bytes, ...]) -> bytes:
    """Faces as one PNG, FIRST_A_ROW a row."""
    rows = [faces[start : start + FIRST_A_ROW] for start in range(0, len(faces), FIRST_A_ROW)]
    return sheet((Person("", tuple(Row("synthetic", "", row) for row in rows)),))


def _new_person(
    name: str, parents: list[str], photos: dict[str, tuple[bytes, ...]], synthetic_faces: dict[str, tuple[bytes, ...]]
) -> Person:
    with_photo = [parent for parent in parents if photos.get(parent)]
    note = " + ".join(with_photo[:MOST_PARENTS])
    if len(with_photo) > MOST_PARENTS:
        note += f" and {len(with_photo) - MOST_PARENTS} more"
    faces = tuple(photos[parent][0] for parent in with_photo[:MOST_PARENTS])
    parent_rows = (Row("parent", "real parents", faces),) if faces else ()
    return Person(name, (*parent_rows, Row("synthetic", "synthetic", synthetic_faces.get(name, ()))), note)


def face_uri(data: bytes) -> str:
    """A face as a data: URI, at most LARGEST_PX wide or high: small grey PNGs as stored, the rest as JPEG."""
    image = open_image(data)
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
    """One PNG for Markdown: people below each other, the rows of each person close together."""
    lines: list[list[np.ndarray[Any, Any]]] = []
    gaps = []
    for person in people:
        for index, row in enumerate(person.rows):
            lines.append([_square(face) for face in row.faces])
            gaps.append(GAP_PX if index + 1 < len(person.rows) else 3 * GAP_PX)
    width = max((len(line) for line in lines), default=1)
    height = sum(LARGEST_PX // 2 + gap for gap in gaps) or 1
    side = LARGEST_PX // 2
    canvas = np.full((height, width * (side + GAP_PX), 3), 255, np.uint8)
    top = 0
    for line, gap in zip(lines, gaps, strict=True):
        for column, face in enumerate(line):
            left = column * (side + GAP_PX)
            canvas[top : top + side, left : left + side] = face
        top += side + gap
    return encode_png(canvas)


def _square(data: bytes) -> np.ndarray[Any, Any]:
    side = LARGEST_PX // 2
    pixels = decode_pixels(data)
    image = Image.fromarray(pixels.squeeze()).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)
