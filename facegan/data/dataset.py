"""A manifest as a training set: pixels, labels and names of the rows of a split."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from facegan.data import manifest
from facegan.data.encoded_images import EncodedImages, decode_error
from facegan.data.images import decode_pixels
from facegan.runtime.shared_array import SharedArray

KEEP_BYTES = 2e9  # of decoded images in training, counted in colour: 53,000 of 112 px


class ManifestImages:
    """The rows of a manifest (of one split): columns as arrays, and the images as an array or what reads like one.

    `pixels` is (N, H, W, C) uint8, `identity` (N,) names, `label` (N,) int64 or -1 where the manifest has none.
    Images are decoded once and kept; where they would be more than `keep_bytes` decoded, `pixels` is an EncodedImages,
    which decodes on access, to the same values. Raises UserError for a manifest that cannot be read, or an
    image in it (in an EncodedImages: on access).
    """

    pixels: np.ndarray
    shared: SharedArray | None = None  # the memory of `pixels`, once processes were given it

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
        description = f"the manifest '{path}'"
        encoded = (pc.struct_field(b["image"], "bytes") for b in manifest.batches(path, ["image"], split))
        if decoded > keep_bytes:
            self.pixels = cast(np.ndarray, EncodedImages(encoded, decode_pixels, description))
            return
        try:
            images = [decode_pixels(value.as_py()) for batch in encoded for value in batch]
        except (OSError, SyntaxError, ValueError, TypeError) as error:  # TypeError: no bytes at all
            raise decode_error(description, error) from error
        self.pixels = np.stack(images) if images else np.empty((0, 0, 0, 1), np.uint8)

    def __len__(self) -> int:
        return len(self.image_id)

    def only(self, rows: np.ndarray) -> ManifestImages:
        """Some of the rows, by their indices (n,) int."""
        chosen = copy.copy(self)
        for name in ("image_id", "identity", "source", "label", "group", "file", "pixels"):
            setattr(chosen, name, getattr(self, name)[rows])
        return chosen

    def codes(self) -> tuple[list[str], np.ndarray]:
        """The sorted identity names and each row's index among them (N,) int64."""
        names, codes = np.unique(self.identity.astype(str), return_inverse=True)
        return names.tolist(), codes.astype(np.int64)


def names_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of text as (N,) object, None where null; equal names are one string in memory."""
    coded = pc.dictionary_encode(column.combine_chunks())
    return np.asarray([*coded.dictionary.to_pylist(), None], dtype=object)[coded.indices.fill_null(-1).to_numpy()]
