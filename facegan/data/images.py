"""Images between bytes and tensors: decode, encode, resize, and the manifest's images as an array."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `decode` has a bound of its own
TURNING = {"exif", "xmp", "XML:com.adobe.xmp"}  # where a JPEG's info says which way up it is
MODES = {"grey": "L", "rgb": "RGB"}


class BadImage(Exception):
    """An image that cannot be used; the message is the reason that the quarantine shows."""


class BadFace(BadImage):
    """A photo that can be read, but whose face cannot be used."""


def decode(data: bytes, max_megapixels: float = 100) -> Image.Image:
    """A decoded, upright image; raises BadImage with the reason (empty, unreadable, truncated, too large)."""
    if not data:
        raise BadImage("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise BadImage(f"{width} x {height} px is more than {max_megapixels:g} megapixels")
        image.load()
        may_turn = image.format != "JPEG" or TURNING & image.info.keys()  # else the copy would cost a tenth of the time
        return ImageOps.exif_transpose(image) if may_turn else image
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"absurdly large: {str(error).split(',')[0]}") from error
    except Exception as error:  # each of Pillow's decoders has errors of its own
        raise BadImage(f"broken or truncated: {error}") from error


@cache
def _formats() -> list[str]:
    """What Pillow reads but for EPS, which it hands to another program (Ghostscript) to run; the usual ones first."""
    Image.init()
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

    Raises BadImage for a colour mode that Pillow cannot convert.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float32)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    try:
        return image.convert(MODES[color])
    except ValueError as error:
        raise BadImage(f"colour mode {image.mode} cannot be converted") from error


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of (H, W) or (H, W, 1 or 3) uint8; the same pixels give the same bytes."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decode_pixels(data: bytes) -> np.ndarray:
    """Stored bytes -> (H, W, C) uint8."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
