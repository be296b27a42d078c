"""Contact sheets: a line of small faces for each person, with the name beside it."""

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
    """PNG bytes: {name: faces}, one line a person, in the order given; each face fits FACE_PX x FACE_PX."""
    columns = max((len(faces) for faces in people.values()), default=0)
    width, step = NAME_PX + columns * (FACE_PX + GAP_PX), FACE_PX + GAP_PX
    canvas = Image.new("RGB", (width, max(1, len(people)) * step), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for line, (name, faces) in enumerate(people.items()):
        shown = name.encode("ascii", "replace").decode()
        pen.text((GAP_PX, line * step + FACE_PX // 2 - 6), shown[:22], fill="black", font=font)
        for place, face in enumerate(faces):
            canvas.paste(face.convert("RGB"), (NAME_PX + place * step, line * step))
    return encode_png(np.asarray(canvas))


def small(face: Image.Image) -> Image.Image:
    """A face as it is shown: at most FACE_PX wide and high."""
    face = face.copy()
    face.thumbnail((FACE_PX, FACE_PX), Image.Resampling.LANCZOS)
    return face


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which s2 comes before s10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def spread(names: list[str], wanted: int) -> list[str]:
    """At most `wanted` of the names, evenly spaced in natural order: nobody picks the best ones."""
    ordered = sorted(names, key=natural)
    return [ordered[place] for place in _evenly(len(ordered), wanted)]


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
