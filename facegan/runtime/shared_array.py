"""An array in memory that processes share, without a name that could be left behind."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np


class SharedArray:
    """An `array` of a file without a name: whichever process this is handed to when it starts sees the same values.

    The memory is given back when the last process that has it ends, whatever ends it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, fd: int | None = None) -> None:
        """Of an open file, which becomes this object's own, or of new memory: zeros, of which each page is taken when
        it is first written."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        number = math.prod(shape)
        size = max(1, number * self.dtype.itemsize)  # nothing at all cannot be mapped
        if fd is None:
            fd = _unnamed()
            os.ftruncate(fd, size)
        self.fd = fd
        weakref.finalize(self, os.close, fd)
        self.map = mmap.mmap(fd, size)
        self.array = np.frombuffer(self.map, self.dtype, number).reshape(shape)

    @classmethod
    def copy_of(cls, array: np.ndarray) -> SharedArray:
        """The values of `array`."""
        made = cls(array.shape, array.dtype)
        made.array[...] = array
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self.shape, self.dtype, DupFd(self.fd))


def _attached(shape: tuple[int, ...], dtype: np.dtype[Any], handed: Any) -> SharedArray:
    return SharedArray(shape, dtype, handed.detach())


def _unnamed() -> int:
    """A file in memory, where the system has such (Linux; no /dev/shm bounds it), else in the temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("facegan")
    with tempfile.TemporaryFile(prefix="facegan-") as file:
        return os.dup(file.fileno())
