"""Contact sheets: a line of small faces for each person, with the name beside it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facegan.images import encode_png

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
