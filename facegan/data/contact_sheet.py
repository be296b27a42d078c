"""Contact sheets: a row of thumbnails for each person, beside the name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facegan.data import manifest
from facegan.data.images import encode_png

FACE_PX, GAP_PX, NAME_PX = 64, 4, 150
PEOPLE, EACH = 40, 10
"""How many people a sheet shows, and how many faces of each."""


def sheet(people: dict[str, list[Image.Image]]) -> bytes:
    """PNG bytes of {name: faces}: one row a person, in the order given; each face fits FACE_PX x FACE_PX."""
    columns = max((len(faces) for faces in people.values()), default=0)
    width, step = NAME_PX + columns * (FACE_PX + GAP_PX), FACE_PX + GAP_PX
    canvas = Image.new("RGB", (width, max(1, len(people)) * step), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for row, (name, faces) in enumerate(people.items()):
        label = name.encode("ascii", "replace").decode()
        pen.text((GAP_PX, row * step + FACE_PX // 2 - 6), label[:22], fill="black", font=font)
        for column, face in enumerate(faces):
            canvas.paste(face.convert("RGB"), (NAME_PX + column * step, row * step))
    return encode_png(np.asarray(canvas))


def side_by_side(pictures: list[list[np.ndarray]], gap_px: int = GAP_PX) -> np.ndarray:
    """Rows of pictures of one size (H, W, C) uint8 on white: (rows, columns) pictures, as one."""
    height, width, channels = pictures[0][0].shape
    columns = max(map(len, pictures))
    shape = len(pictures) * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, channels
    canvas = np.full(shape, 255, np.uint8)
    for row, line in enumerate(pictures):
        for column, picture in enumerate(line):
            top, left = row * (height + gap_px), column * (width + gap_px)
            canvas[top : top + height, left : left + width] = picture
    return canvas


def thumbnail(face: Image.Image) -> Image.Image:
    """A copy of a face, at most FACE_PX wide and high."""
    face = face.copy()
    face.thumbnail((FACE_PX, FACE_PX), Image.Resampling.LANCZOS)
    return face


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key by which s2 comes before s10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def evenly_chosen(names: list[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spaced in natural order, so that nobody picks the best ones."""
    ordered = sorted(names, key=natural_key)
    return [ordered[index] for index in _even_indices(len(ordered), count)]


def faces_of(path: Path, identities: set[str], faces: int, split: str | None = None) -> dict[str, tuple[bytes, ...]]:
    """At most `faces` images of each of `identities`, evenly spaced in the order of the manifest."""
    counts = Counter(manifest.read(path, ["identity"], split)["identity"].to_pylist())
    chosen = {name: set(_even_indices(counts[name], faces)) for name in identities}
    images: dict[str, list[bytes]] = {name: [] for name in identities}
    seen: Counter[str] = Counter()
    for item in manifest.iterate(path, split):
        name = item["identity"]
        if name in chosen and seen[name] in chosen[name]:
            images[name].append(item["image"]["bytes"])
        seen[name] += 1
    return {name: tuple(blobs) for name, blobs in images.items()}


def _even_indices(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spaced, the first and the last among them."""
    return [int(index) for index in np.linspace(0, count - 1, min(most, count)).round()]
