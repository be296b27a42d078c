"""Images of every format decode upright to one size; what is damaged is a BadImage with a reason."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image, features

from facegan.data.images import BadImage, decode, to_square
from image_formats import COLOR, FACE, FORMATS, LAB, encoded, palette_with_transparency


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
def test_every_format_comes_out_right(name: str, color: str, channels: int) -> None:
    pixels = np.asarray(to_square(decode(FORMATS[name]), 32, color))
    assert pixels.dtype == np.uint8 and pixels.shape == ((32, 32) if channels == 1 else (32, 32, 3))
    grey = (
        "grey.png",
        "16bit.png",
        "16bit.tif",
        "32bit.tif",
        "float.tif",
        "la.png",
        "rotated.jpg",
        "face.pgm",
    )
    plain = FACE if name in grey else COLOR
    expected = np.asarray(to_square(plain, 32, color)).astype(float)
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.97  # the face, upright
    if name.split(".")[0] not in ("16bit", "32bit", "float"):  # those are stretched to their own range
        assert np.abs(pixels - expected).mean() < 8


def test_one_bit_and_transparency() -> None:
    one_bit = Image.fromarray(np.asarray(FACE) > 100)
    assert set(np.unique(np.asarray(to_square(decode(encoded(one_bit, "PNG")), 48, "grey")))) > {0, 255}
    clear = np.asarray(to_square(decode(palette_with_transparency()), 32, "rgb"))
    assert (clear == 255).all()  # what is transparent shows the white behind it
    blank = np.asarray(to_square(Image.fromarray(np.full((20, 20), 7, np.uint16)), 32, "grey"))
    assert (blank == blank[0, 0]).all()


def test_no_damaged_image_ends_the_run() -> None:
    """Whatever Pillow throws at a broken file is a BadImage with a reason."""
    rng = np.random.default_rng(0)
    reasons = Counter[str]()
    rest = [encoded(COLOR, "AVIF")] if features.check("avif") else []
    for data in [*FORMATS.values(), LAB, encoded(COLOR.quantize(16), "BLP"), *rest]:
        for _ in range(30):
            damaged = bytearray(data)
            for offset in rng.integers(0, len(data), rng.integers(1, 12)):
                damaged[offset] = int(rng.integers(256))
            cut = bytes(damaged[: rng.integers(1, len(data) + 1)])
            for broken in (bytes(damaged), cut):
                try:
                    assert to_square(decode(broken, 1), 16, "grey").size == (16, 16)
                except BadImage as error:
                    assert str(error)
                    reasons[str(error).split(":")[0]] += 1
    assert reasons["broken or truncated"] > 100 and reasons["not an image in a known format"] > 50
