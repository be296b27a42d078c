"""An array in memory that processes share, in a file without a name that could be left behind."""

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
    """An `array` of a file without a name: every process that gets this when it starts sees the same values.

    The memory is freed when the last process that has it ends, however it ends.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, fd: int | None = None) -> None:
        """Map an open file `fd`, which this object then owns, or new memory: zeros, each page allocated at its first
        write."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        count = math.prod(shape)
        size = max(1, count * self.dtype.itemsize)  # an empty file cannot be mapped
        if fd is None:
            fd = _unnamed_file()
            os.ftruncate(fd, size)
        self.fd = fd
        weakref.finalize(self, os.close, fd)
        self.map = mmap.mmap(fd, size)
        self.array = np.frombuffer(self.map, self.dtype, count).reshape(shape)

    @classmethod
    def copy_of(cls, array: np.ndarray) -> SharedArray:
        """A new shared array with the values of `array`."""
        copy = cls(array.shape, array.dtype)
        copy.array[...] = array
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_handle, (self.shape, self.dtype, DupFd(self.fd))


def _from_handle(shape: tuple[int, ...], dtype: np.dtype[Any], handle: Any) -> SharedArray:
    return SharedArray(shape, dtype, handle.detach())


def _unnamed_file() -> int:
    """A file in memory where the system has such (Linux; /dev/shm does not bound it), else in the temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("facegan")
    with tempfile.TemporaryFile(prefix="facegan-") as file:
        return os.dup(file.fileno())
