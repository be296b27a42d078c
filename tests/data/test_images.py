"""Images of every format decode upright to one size; what is damaged is a BadImage with a reason."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, features

from facegan.data.images import (
    COMPOSITE_CAPTURE,
    BadImage,
    decode,
    decode_pixels,
    encode_png,
    open_image,
    to_eight_bits,
    to_square,
)
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
    assert np.abs(pixels - expected).mean() < 8


def test_one_bit_and_transparency() -> None:
    one_bit = Image.fromarray(np.asarray(FACE) > 100)
    assert set(np.unique(np.asarray(to_square(decode(encoded(one_bit, "PNG")), 48, "grey")))) > {0, 255}
    clear = np.asarray(to_square(open_image(palette_with_transparency()), 32, "rgb"))
    assert (clear == 255).all()  # what is transparent shows the white behind it


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


def chunk(kind: bytes, data: bytes, sound: bool = True) -> bytes:
    check = zlib.crc32(kind + data) if sound else 0
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


TURN = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: turn by 90 degrees to the right
ODD_METADATA = {
    "a text of 3 MB": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * 3_000_000)),
    "a profile of 2 MB": chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(2_000_000))),
    "EXIF that is none": chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    "a text's check sum": chunk(b"tEXt", b"Software\0x", sound=False),
    "a size's check sum": chunk(b"pHYs", bytes(9), sound=False),
    "EXIF's check sum": chunk(b"eXIf", TURN, sound=False),
    "text that is no text": chunk(b"iTXt", b"\xff\0\1\0\xff"),
}


@pytest.mark.parametrize("names", itertools.chain(*(itertools.combinations(ODD_METADATA, n) for n in (1, 2, 7))))
def test_metadata_never_costs_the_pixels(names: tuple[str, ...]) -> None:
    data = encoded(COLOR, "PNG")
    odd = data[:33] + b"".join(ODD_METADATA[name] for name in names) + data[33:]
    assert (np.asarray(decode(odd)) == np.asarray(COLOR)).all()
    assert (decode_pixels(odd) == np.asarray(COLOR)).all()  # those who read it from a manifest too
    lying = encoded(COLOR.transpose(Image.Transpose.ROTATE_90), "PNG")
    turned = (
        lying[:33] + chunk(b"eXIf", TURN) + b"".join(ODD_METADATA[n] for n in names if "EXIF" not in n) + lying[33:]
    )
    assert (np.asarray(decode(turned)) == np.asarray(COLOR)).all()  # upright: what can be read of metadata counts
    with pytest.raises(BadImage):
        decode(odd[: len(odd) - len(data) // 2])


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xEC, 0xED, 0xFE])
def test_metadata_of_a_jpeg_never_costs_the_pixels(marker: int) -> None:
    data, rng = encoded(COLOR, "JPEG", quality=95), np.random.default_rng(marker)
    plain = np.asarray(decode(data))
    for start in (b"Exif\0\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"Photoshop 3.0\0", b""):
        body = start + rng.bytes(60)
        odd = data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]
        assert (np.asarray(decode(odd)) == plain).all()


def test_pixels_that_show_nothing_are_refused() -> None:
    real = np.asarray(FACE, np.float32) / 255
    for bad in (np.nan, np.inf, -np.inf):
        broken = real.copy()
        broken[3, 4] = bad
        with pytest.raises(BadImage, match="not finite"):
            decode(encoded(Image.fromarray(broken), "TIFF"))
    for mode, value in (("L", 7), ("RGB", (1, 2, 3)), ("I;16", 900), ("F", 0.5), ("1", 1), ("CMYK", (0, 0, 9, 9))):
        with pytest.raises(BadImage, match="one value"):
            decode(encoded(Image.new(mode, (40, 30), value), "TIFF"))
    for size in ((1, 1), (7, 40), (40, 2)):
        with pytest.raises(BadImage, match=r"px show no face"):
            decode(encoded(FACE.resize(size), "PNG"))
    spot = np.zeros((40, 40), np.uint8)
    spot[1, 38] = 255
    assert decode(encoded(Image.fromarray(spot), "PNG")).size == (40, 40)  # little, but something


def test_the_scale_of_deep_pixels_hangs_on_no_single_one() -> None:
    dim = (60 + np.asarray(FACE) * 0.4).astype(np.uint8)  # never black, never white
    deep = {
        "16 bits": dim.astype(np.uint16) * 257,
        "32 bits": dim.astype(np.int32) * 257,
        "float to 1": dim.astype(np.float32) / 255,
        "float to 255": dim.astype(np.float32),
    }
    for name, values in deep.items():
        values = values.copy()
        plain = np.asarray(to_eight_bits(decode(encoded(Image.fromarray(values), "TIFF")), "grey")).astype(int)
        assert np.abs(plain - dim).max() <= 1, name
        values[0, 0] = 65_535 if values.dtype != np.float32 else 1e9
        hot = np.asarray(to_eight_bits(decode(encoded(Image.fromarray(values), "TIFF")), "grey")).astype(int)
        assert hot[0, 0] == 255 and np.abs(hot - dim).ravel()[1:].max() <= 1, name
    with pytest.raises(BadImage, match="no usual scale"):
        to_eight_bits(Image.fromarray(np.asarray(FACE, np.float32) - 400), "grey")


def boxes(brand: bytes) -> bytes:
    return struct.pack(">I", 20) + b"ftyp" + brand + bytes(4) + brand + struct.pack(">I", 16) + b"mdat" + bytes(8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (boxes(b"heix"), "HEIC"),
        (boxes(b"qt  "), "a film"),
        (boxes(b"mp42"), "a film"),
        (b"RIFF\0\0\0\0AVI LIST", "a film"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><title>404</title>", "HTML"),
        (b'<?xml version="1.0"?><plist/>', "XML"),
        (b'{"error": "no such photo"}', "JSON"),
        (b"%PDF-1.7", "a PDF"),
        (b"../.git/annex/objects/aa/bb/SHA256E-s3", "git annex get"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(BadImage, match=said):
        decode(data)


def test_a_png_may_say_what_it_was_made_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    marked = encode_png(pixels, COMPOSITE_CAPTURE)
    assert np.array_equal(decode_pixels(marked), pixels) and marked != encode_png(pixels)
    description = ElementTree.fromstring(Image.open(io.BytesIO(marked)).info["XML:com.adobe.xmp"])[0][0]
    said = description.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert said == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeCapture"
    assert np.array_equal(np.asarray(decode(marked)), pixels), "and is read as a photo is"
