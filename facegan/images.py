"""Images between bytes and tensors: decode, encode, resize, and the manifest's images as an array."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from facegan import manifest

MODES = {"grey": "L", "rgb": "RGB"}


class BadImage(Exception):
    """An image that cannot be used; the message is the reason that the quarantine shows."""


def decode(data: bytes, max_megapixels: float = 100) -> Image.Image:
    """A decoded, upright image; raises BadImage with the reason (empty, unreadable, truncated, too large)."""
    if not data:
        raise BadImage("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound comes next
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > max_megapixels * 1e6:
                raise BadImage(f"{width} x {height} px is more than {max_megapixels:g} megapixels")
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise BadImage("not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise BadImage("absurdly large") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError) as error:
        raise BadImage(f"broken or truncated: {error}") from error


def to_square(image: Image.Image, size_px: int, color: str) -> Image.Image:
    """The centre square of an image at size_px, grey or RGB; 16-bit images are brought to 8 bits."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float32)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return ImageOps.fit(image.convert(MODES[color]), (size_px, size_px), Image.Resampling.LANCZOS)


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
    """The rows of a manifest (of one split): columns at hand, images decoded once and kept as uint8.

    `pixels` is (N, H, W, C) uint8, `identity` (N,) names, `label` (N,) int64 or -1 where the manifest has none.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        table = manifest.read(path, ["image", "image_id", "identity", "label", "source", "split"], split)
        self.image_id = np.asarray(table["image_id"].to_pylist(), dtype=object)
        self.identity = np.asarray(table["identity"].to_pylist(), dtype=object)
        self.source = np.asarray(table["source"].to_pylist(), dtype=object)
        label = [-1 if value is None else value for value in table["label"].to_pylist()]
        self.label = np.asarray(label, dtype=np.int64)
        stored = table["image"].combine_chunks().field("bytes")
        images = [to_pixels(item.as_py()) for item in stored]
        self.pixels = np.stack(images) if images else np.empty((0, 0, 0, 1), np.uint8)

    def __len__(self) -> int:
        return len(self.image_id)

    def codes(self) -> tuple[list[str], np.ndarray]:
        """The sorted identity names and each row's place among them (N,) int64."""
        names, codes = np.unique(self.identity.astype(str), return_inverse=True)
        return names.tolist(), codes.astype(np.int64)
