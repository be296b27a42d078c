"""Images between bytes and tensors: decode, encode, resize, and the manifest's images as an array."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import warnings
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `decode` has a bound of its own
TURNING = {"exif", "xmp", "XML:com.adobe.xmp"}  # where a JPEG's info says which way up it is
ORIENTATION = 0x0112
FEWEST_PX = 8  # a smaller side shows no face
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # ISO/IEC 23008-12, B.4
COMPOSITE_CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeCapture"  # parts of several photos
RETOUCHED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"  # by a network
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="{source_type}"/></rdf:RDF></x:xmpmeta>'
)
MODES = {"grey": "L", "rgb": "RGB"}


class BadImage(Exception):
    """An image that cannot be used; the message is the reason that the quarantine shows."""


class BadFace(BadImage):
    """A photo that can be read, but whose face cannot be used."""


def decode(data: bytes, max_megapixels: float = 100) -> Image.Image:
    """A decoded, upright image.

    What is wrong in metadata alone (texts, colour profile, EXIF, their check sums) does not cost the picture: it is
    upright where nothing that can be read says otherwise. Raises BadImage with the reason: empty, unreadable,
    truncated, too large, or pixels that show nothing (a few px, one value alone, values that are not finite).
    """
    image = open_image(data, max_megapixels)
    _check_pixels(image)
    may_turn = image.format != "JPEG" or TURNING & image.info.keys()  # else the copy would cost a tenth of the time
    if not may_turn:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of metadata that cannot be read, in as many ways as there are formats
        return image


def open_image(data: bytes, max_megapixels: float = 100) -> Image.Image:
    """An image as it is stored, decoded with what can be read of its metadata; raises BadImage as `decode`."""
    if not data:
        raise BadImage("empty file")
    try:
        return _loaded(data, max_megapixels)
    except BadImage:
        raise
    except Exception as error:  # each of Pillow's decoders has errors of its own
        if (bare := without_metadata(data)) is not None:
            with contextlib.suppress(Exception):
                return _loaded(bare, max_megapixels)
        if isinstance(error, UnidentifiedImageError):
            raise BadImage(describe(data)) from error
        if isinstance(error, Image.DecompressionBombError):
            raise BadImage(f"absurdly large: {str(error).split(',')[0]}") from error
        raise BadImage(f"broken or truncated: {error}") from error


def _loaded(data: bytes, max_megapixels: float) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=_formats())
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise BadImage(f"{width} x {height} px is more than {max_megapixels:g} megapixels")
    image.load()
    return image


def _check_pixels(image: Image.Image) -> None:
    """Raise BadImage for pixels that can show no face."""
    width, height = image.size
    if min(width, height) < FEWEST_PX:
        raise BadImage(f"{width} x {height} px show no face")
    if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
        raise BadImage("some of its values are not finite (NaN or infinity)")
    spots = {image.getpixel((n * (width - 1) // 15, n * (height - 1) // 15)) for n in range(16)}
    if len(spots) == 1 and all(low == high for low, high in np.reshape(image.getextrema(), (-1, 2))):
        raise BadImage("all its pixels have one value: nothing is to be seen")


def without_metadata(data: bytes) -> bytes | None:
    """A PNG or JPEG with its pixels, transparency and what of EXIF is whole; None where it is neither, or cut short.

    Source: ISO/IEC 15948, 5.3 (PNG: ancillary chunks have a small first letter); ITU-T T.81, B.1 (JPEG).
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _bare_png(data)
    return _bare_jpeg(data) if data.startswith(b"\xff\xd8") else None


def _bare_png(data: bytes) -> bytes | None:
    kept, offset = [data[:8]], 8
    while offset + 12 <= len(data):
        size, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        end = offset + 12 + size
        whole = end <= len(data) and zlib.crc32(data[offset + 4 : end - 4]) == int.from_bytes(
            data[end - 4 : end], "big"
        )
        if (
            kind[:1].isupper()
            or (kind == b"tRNS" and whole)
            or (kind == b"eXIf" and whole and _is_exif(data[offset + 8 :]))
        ):
            kept.append(data[offset:end])
        offset = end
    return b"".join(kept) if offset == len(data) else None


def _is_exif(data: bytes) -> bool:
    """Whether an EXIF block says which way up a picture is, and can be read."""
    try:
        exif = Image.Exif()
        exif.load(data[:65_536])
        return exif.get(ORIENTATION) in range(1, 9)
    except Exception:  # in as many ways as there are damages
        return False


def _bare_jpeg(data: bytes) -> bytes | None:
    """Without the segments APP2 .. APP13, APP15 and comments; APP0 (JFIF) and APP14 (Adobe) say how colours are."""
    kept, offset = [data[:2]], 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker, end = data[offset + 1], offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == 0xDA:
            return b"".join([*kept, data[offset:]])
        is_exif = marker == 0xE1 and data[offset + 4 : offset + 10] == b"Exif\0\0" and _is_exif(data[offset + 10 : end])
        if marker in (0xE0, 0xEE) or is_exif or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[offset:end])
        offset = end
    return None


def describe(data: bytes) -> str:
    """What bytes are that Pillow knows no picture in, with what can be done."""
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    brands = (
        {data[8:12], *(data[n : n + 4] for n in range(16, min(64, len(data)), 4))} if data[4:8] == b"ftyp" else set()
    )
    if brands & HEIF_BRANDS:
        return (
            "a HEIC picture, which Pillow alone does not read: pip install 'facegan[heic]' before the first run with "
            "it, or convert it to JPEG"
        )
    if brands & {b"avif", b"avis"}:
        return "an AVIF picture, which this Pillow does not read: pip install pillow-avif-plugin, or convert it to JPEG"
    if brands or data.startswith((b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"FLV\x01")) or data[8:12] == b"AVI ":
        return "a film, no photo"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, no picture: git lfs pull"
    if b"/annex/objects/" in head:
        return "a git-annex pointer, no picture: git annex get"
    if head.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in head:
        return "an HTML page, no picture: the download failed"
    if head.startswith((b"<svg", b"<?xml")):
        return "XML or SVG, no picture of pixels"
    if head.startswith((b"{", b"[")):
        return "JSON, no picture"
    names = {b"%PDF": "a PDF", b"PK\3\4": "a zip archive", b"\x1f\x8b": "gzip", b"%!PS": "PostScript, which is not run"}
    known = next((name for start, name in names.items() if data.startswith(start)), None)
    return f"not an image in a known format ({known})" if known else "not an image in a known format"


@cache
def _formats() -> list[str]:
    """What Pillow reads but for EPS, which it hands to another program (Ghostscript) to run; the usual ones first.

    HEIC too where `pillow-heif` is installed.
    """
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return sorted((name for name in Image.ID if name != "EPS"), key=lambda name: name not in ("JPEG", "PNG"))


def to_square(image: Image.Image, size_px: int, color: str) -> Image.Image:
    """The centre square of an image at size_px, grey or RGB; see `to_eight_bits`."""
    return ImageOps.fit(to_eight_bits(image, color), (size_px, size_px), Image.Resampling.LANCZOS)


def points_to_square(points: Sequence[float], size: tuple[int, int], size_px: int) -> list[float]:
    """Points x, y, x, y ... in an image of size (width, height) px, where `to_square` puts them."""
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return [(value - (top if number % 2 else left)) * size_px / side for number, value in enumerate(points)]


def to_eight_bits(image: Image.Image, color: str) -> Image.Image:
    """An image in grey or RGB, 8 bits a channel; what is transparent shows white.

    Raises BadImage for a colour mode that Pillow cannot convert, and for values of 32 bits of no usual scale.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bits_of_deep(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    try:
        return image.convert(MODES[color])
    except ValueError as error:
        raise BadImage(f"colour mode {image.mode} cannot be converted") from error


def _eight_bits_of_deep(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits or of 32 (whole numbers or floats) in 8, on a scale that no single pixel decides.

    16 bits: 65535 is white. 32 bits: 1 (of floats), 255 or 65535 is, the first that 99 of 100 values do not pass.
    """
    values = np.asarray(image, np.float32)
    white = 65_535.0
    if image.mode in ("I", "F") and image.format != "PNG":  # some versions of Pillow read a PNG of 16 bits as "I"
        low, high = np.quantile(values, (0.01, 0.99)).tolist()
        fits = [ceiling for ceiling in (1.0, 255.0, 65_535.0)[image.mode == "I" :] if high <= ceiling]
        if not fits or low < -0.01 * fits[0]:
            raise BadImage(f"values from {low:g} to {high:g} have no usual scale (0 to 1, to 255 or to 65535)")
        white = fits[0]
    return Image.fromarray(np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8))


def encode_png(pixels: np.ndarray, source_type: str | None = None) -> bytes:
    """PNG bytes of (H, W) or (H, W, 1 or 3) uint8; the same pixels give the same bytes.

    `source_type` is what IPTC calls the digital source type, a URI of its vocabulary, written as XMP into the metadata.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    buffer, metadata = io.BytesIO(), None
    if source_type is not None:
        metadata = PngInfo()
        metadata.add_itxt("XML:com.adobe.xmp", XMP.format(source_type=source_type))
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=metadata)
    return buffer.getvalue()


def decode_pixels(data: bytes) -> np.ndarray:
    """Stored bytes -> (H, W, C) uint8; raises ValueError where they cannot be decoded."""
    try:
        pixels = np.asarray(open_image(data, math.inf))
    except BadImage as error:
        raise ValueError(str(error)) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
