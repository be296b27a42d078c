"""Images of a manifest that are too many to keep decoded: encoded in a temporary file, decoded on access."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from facegan.core.errors import UserError
from facegan.runtime.shared_array import SharedArray

cv2.setNumThreads(0)  # images are small: threads share out batches, not the rows of an image
AS_STORED, AS_RGB = cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class EncodedImages:
    """Reads like the array (N, H, W, C) uint8 that it stands for: `shape`, `len`, `[indices]`, `[slice]`, `np.asarray`.

    Memory: 9 bytes a row. The encoded images lie one after another in a file without a name in the temporary folder
    (TMPDIR). The file ends with the process; it is mapped, so that the system may drop its pages at any time. Several
    threads may decode at once, and so may processes that are given this when they start: they map the same file.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, encoded: Iterable[pa.BinaryArray], to_pixels: Callable[[bytes], np.ndarray], description: str
    ) -> None:
        """`encoded` comes a batch at a time; `to_pixels` decodes one image where OpenCV gives another shape.

        `description` names the manifest in errors.
        """
        self.to_pixels, self.description = to_pixels, description
        ends, self._is_color = [np.zeros(1, np.int64)], bytearray()
        with tempfile.TemporaryFile(prefix="facegan-") as file:
            for batch in encoded:
                _, offsets, data = batch.buffers()
                if len(batch):
                    bounds = np.frombuffer(offsets, np.int32)[batch.offset : batch.offset + len(batch) + 1]
                    bounds = bounds.astype(np.int64)
                    ends.append(ends[-1][-1] + bounds[1:] - bounds[0])
                    view = memoryview(data)
                    file.write(view[bounds[0] : bounds[-1]])
                    self._is_color += bytes(is_color_jpeg(view[start:end]) for start, end in pairwise(bounds.tolist()))
            file.write(b"\0")  # nothing at all cannot be mapped
            file.flush()
            self.ends = np.concatenate(ends)
            self.file = SharedArray((int(self.ends[-1]),), np.uint8, os.dup(file.fileno()))
            self.file.array.flags.writeable = False
        first = self._decode_slowly(0).shape if len(self) else (0, 0, 1)
        self.shape = (len(self), *first)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, indices: Any) -> np.ndarray:
        """The decoded images at an array of indices or in a slice: (n, H, W, C) uint8."""
        return self.decode_all(np.arange(len(self))[indices])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def decode_all(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (n,) int: (n, H, W, C) uint8.

        Raises UserError for an image that cannot be decoded or has another shape than the first.
        """
        pixels = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for out, index in zip(pixels, indices.tolist(), strict=True):
            if (image := self.decode(index, out)) is not out:
                out[:] = image
        return pixels

    def encoded(self, index: int) -> np.ndarray:
        """The stored bytes of an image, (n,) uint8."""
        return self.file.array[self.ends[index] : self.ends[index + 1]]

    def decode(self, index: int, out: np.ndarray) -> np.ndarray:
        """One image, (H, W, C) uint8, in memory of its own or in `out` of that shape.

        By OpenCV where it can: the same pixels as Pillow's, faster, and other threads go on. Raises UserError as
        `decode_all`.
        """
        data, is_color = self.encoded(index), self._is_color[index]
        image = cv2.imdecode(data, AS_RGB if is_color else AS_STORED) if len(data) else None
        if image is not None and image.dtype == np.uint8:
            if image.shape == out.shape:
                return image if is_color else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)
            if (*image.shape, 1) == out.shape:
                return image[:, :, None]
        image = self._decode_slowly(index)
        if image.shape != out.shape:
            raise UserError(
                f"an image in {self.description} is {image.shape}, the first is {out.shape} (height, width, channels)",
                fix="bring them to one size and colour: facegan prepare",
            )
        return image

    def _decode_slowly(self, index: int) -> np.ndarray:
        try:
            return self.to_pixels(self.encoded(index).tobytes())
        except (OSError, SyntaxError, ValueError) as error:
            raise decode_error(self.description, error) from error


def is_color_jpeg(data: memoryview) -> bool:
    """Whether bytes are a JPEG of three channels, whose header says so in the usual place.

    Source: ITU-T T.81, B.1.1 and B.2.2: a start, then segments (marker, length, ...) up to that of the frame.
    """
    offset = 2 if data[:2] == b"\xff\xd8" else len(data)
    while offset + 9 < len(data) and data[offset] == 0xFF:
        if data[offset + 1] in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            return data[offset + 9] == 3
        offset += 2 + (data[offset + 2] << 8) + data[offset + 3]
    return False


def decode_error(description: str, error: Exception) -> UserError:
    """The error for an image in a manifest that cannot be decoded."""
    return UserError(
        f"an image in {description} cannot be decoded: {error}",
        fix="delete the stage's folder: the next run makes it again",
    )
