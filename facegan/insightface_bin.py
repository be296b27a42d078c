"""insightface's verification sets (`lfw.bin`, `cfp_fp.bin` ...): a pickle of image bytes and of which pairs are one.

It is read by an unpickler that admits lists, tuples, bytes, ints and bools alone: nothing in it can name code.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

from facegan.errors import UserError

LARGEST_BYTES = 4_000_000_000


class _Plain(pickle.Unpickler):
    """Admits no class and no function, so that nothing can be called."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it names {module}.{name}: only lists, bytes, ints and bools are admitted")

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("it names something outside the file")


def read_bin(path: Path) -> tuple[list[bytes], list[bool]]:
    """2 P encoded images, pair after pair, and P times whether a pair is of one person.

    Raises UserError for a file that holds anything else, OSError where it cannot be read.
    """
    if path.stat().st_size > LARGEST_BYTES:
        raise UserError(f"'{path}' is larger than {LARGEST_BYTES / 1e9:.0f} GB")
    try:
        images, same = _Plain(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a broken pickle raises anything: IndexError, KeyError, MemoryError ...
        raise UserError(
            f"'{path}' is no insightface .bin: {error}", fix="give the file as insightface has it"
        ) from error
    whole = isinstance(images, list | tuple) and isinstance(same, list | tuple)
    if not whole or len(images) != 2 * len(same) or not all(isinstance(image, bytes) for image in images):
        raise UserError(f"'{path}' is no insightface .bin: it is not (2 P images, P answers)")
    if not all(isinstance(answer, int) and answer in (0, 1) for answer in same):
        raise UserError(f"'{path}' is no insightface .bin: its answers are not all true or false")
    return list(images), [bool(answer) for answer in same]
