"""Arrays of one shape whose memory is used again: the pages of a new one cost more than filling it."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from typing import Any

import numpy as np

from facegan.runtime.shared_array import SharedArray

REMOVE: int | None = getattr(mmap, "MADV_REMOVE", None)  # madvise(2), on Linux alone: pages are handed back


class ArrayPool:
    """Slots of shared memory for arrays, used again; as many as the machine's memory holds, most never get a page."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, max_free: int) -> None:
        """At most `max_free` free slots keep their pages."""
        self.shape, self.dtype, self.max_free = shape, np.dtype(dtype), max_free
        self.size = int(np.prod(shape)) * self.dtype.itemsize
        slot_bytes = -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        count = max(max_free, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // slot_bytes)
        try:
            self.shared = SharedArray((count, slot_bytes), np.uint8)
        except OSError:  # address space is bounded (ulimit -v): enough where few arrays are held
            count = 4 * max_free
            self.shared = SharedArray((count, slot_bytes), np.uint8)
        self._free, self._next = deque[int](), 0

    def array_at(self, slot: int) -> np.ndarray:
        """The array in a slot, flat."""
        return np.frombuffer(memoryview(self.shared.array[slot])[: self.size], self.dtype)

    def acquire(self) -> tuple[int, np.ndarray]:
        """A free slot and its array, with arbitrary content."""
        try:
            slot = self._free.pop()  # the last one used is still in the cache
        except IndexError:
            slot, self._next = self._next, self._next + 1
            if slot >= len(self.shared.array):
                raise MemoryError(f"{slot} arrays of {self.size:,} bytes are held") from None
        array = self.array_at(slot)  # views refer to it, and not to the buffer below it, which is no array
        weakref.finalize(array, self._release, slot).atexit = False
        return slot, array.reshape(self.shape)

    def close(self) -> None:
        """Hand back all pages but those of arrays still in use; these follow when they are released."""
        self.max_free = 0
        for slot in self._free:
            self._empty(slot)

    def _release(self, slot: int) -> None:
        if len(self._free) < self.max_free:
            self._free.append(slot)
        else:
            self._empty(slot)
            self._free.appendleft(slot)

    def _empty(self, slot: int) -> None:
        if REMOVE is not None:
            slot_bytes = self.shared.array.shape[1]
            self.shared.map.madvise(REMOVE, slot * slot_bytes, slot_bytes)
