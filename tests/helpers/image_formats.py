"""One drawn face in every format, mode and depth that images come in."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from drawn import draw_face


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FACE = Image.fromarray(draw_face(0, 0))


COLOR = Image.merge("RGB", [FACE, FACE.point(lambda v: v // 2), FACE.point(lambda v: v // 3)])


LAB = encoded(Image.merge("LAB", [FACE, FACE, FACE]), "TIFF")


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.asarray(FACE).astype(np.uint16) * 257)


def palette_with_transparency() -> bytes:
    image = Image.new("P", (44, 48), 1)
    image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    return encoded(image, "PNG", transparency=1)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: turn by 90 degrees to the right to see it upright
    return encoded(FACE.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


FORMATS = {
    "grey.png": encoded(FACE, "PNG"),
    "color.png": encoded(COLOR, "PNG"),
    "color.jpg": encoded(COLOR, "JPEG", quality=95),
    "cmyk.jpg": encoded(COLOR.convert("CMYK"), "JPEG", quality=95),
    "16bit.png": encoded(sixteen_bit(), "PNG"),
    "16bit.tif": encoded(sixteen_bit(), "TIFF"),
    "32bit.tif": encoded(FACE.convert("I"), "TIFF"),
    "float.tif": encoded(FACE.convert("F"), "TIFF"),
    "palette.png": encoded(COLOR.quantize(256), "PNG"),
    "palette.gif": encoded(COLOR.quantize(256), "GIF"),
    "rgba.png": encoded(Image.merge("RGBA", [*COLOR.split(), Image.new("L", FACE.size, 255)]), "PNG"),
    "la.png": encoded(Image.merge("LA", [FACE, Image.new("L", FACE.size, 255)]), "PNG"),
    "rotated.jpg": rotated(),
    "face.bmp": encoded(COLOR, "BMP"),
    "face.pgm": encoded(FACE, "PPM"),
    "face.webp": encoded(COLOR, "WEBP", lossless=True),
    "ycbcr.tif": encoded(COLOR.convert("YCbCr"), "TIFF"),
}
