"""Images between bytes and tensors: decode, encode, resize, and the manifest's images as an array."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps, UnidentifiedImageError

from facegan import manifest
from facegan.shared import Shared
from facegan.stored import StoredPixels, unreadable

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `decode` has a bound of its own
TURNING = {"exif", "xmp", "XML:com.adobe.xmp"}  # where a JPEG's info says which way up it is
MODES = {"grey": "L", "rgb": "RGB"}
KEEP_BYTES = 2e9  # of decoded images in training, counted in colour: 53,000 of 112 px


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
        turned = image.format != "JPEG" or TURNING & image.info.keys()  # else the copy would cost a tenth of the time
        return ImageOps.exif_transpose(image) if turned else image
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


def to_pixels(data: bytes) -> np.ndarray:
    """Stored bytes -> (H, W, C) uint8."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


class ManifestImages:
    """The rows of a manifest (of one split): columns at hand, and the images as an array or what reads like one.

    `pixels` is (N, H, W, C) uint8, `identity` (N,) names, `label` (N,) int64 or -1 where the manifest has none.
    Images are decoded once and kept; where they would be more than `keep_bytes` decoded, `pixels` is a StoredPixels,
    which decodes what is asked for, to the same values. Raises UserError for a manifest that cannot be read, or an
    image in it (in a StoredPixels: when it is asked for).
    """

    pixels: np.ndarray
    shared: Shared | None = None  # what `pixels` is an array of, where processes were handed it

    def __init__(self, path: Path, split: str | None = None, keep_bytes: float = math.inf) -> None:
        columns = ["image_id", "identity", "label", "source", "group", "image.path", "height", "width"]
        table = manifest.read(path, columns, split)
        self.image_id = np.asarray(table["image_id"].to_pylist(), dtype=object)
        self.identity, self.source = names_of(table["identity"]), names_of(table["source"])
        self.label = table["label"].cast(pa.int64()).fill_null(-1).to_numpy()
        self.group = names_of(table["group"].fill_null(""))
        self.file = names_of(table["path"].fill_null(""))  # a part of `image`, which pyarrow calls by its own name
        decoded = 3 * np.dot(table["height"].to_numpy().astype(np.int64), table["width"].to_numpy().astype(np.int64))
        del table
        said = f"the manifest '{path}'"
        stored = (pc.struct_field(b["image"], "bytes") for b in manifest.batches(path, ["image"], split))
        if decoded > keep_bytes:
            self.pixels = cast(np.ndarray, StoredPixels(stored, to_pixels, said))
            return
        try:
            images = [to_pixels(item.as_py()) for group in stored for item in group]
        except (OSError, SyntaxError, ValueError, TypeError) as error:  # TypeError: no bytes at all
            raise unreadable(said, error) from error
        self.pixels = np.stack(images) if images else np.empty((0, 0, 0, 1), np.uint8)

    def __len__(self) -> int:
        return len(self.image_id)

    def only(self, places: np.ndarray) -> ManifestImages:
        """Some of the rows, by place (n,) int."""
        chosen = copy.copy(self)
        for name in ("image_id", "identity", "source", "label", "group", "file", "pixels"):
            setattr(chosen, name, getattr(self, name)[places])
        return chosen

    def codes(self) -> tuple[list[str], np.ndarray]:
        """The sorted identity names and each row's place among them (N,) int64."""
        names, codes = np.unique(self.identity.astype(str), return_inverse=True)
        return names.tolist(), codes.astype(np.int64)


def names_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of text as (N,) object, None where null; equal names are one string in memory."""
    coded = pc.dictionary_encode(column.combine_chunks())
    return np.asarray([*coded.dictionary.to_pylist(), None], dtype=object)[coded.indices.fill_null(-1).to_numpy()]
