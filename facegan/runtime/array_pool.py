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
    """Places for arrays, used again; there are as many as the machine's memory holds, and most never get a page."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, most: int) -> None:
        """At most so many free places keep their pages."""
        self.shape, self.dtype, self.most = shape, np.dtype(dtype), most
        self.size = int(np.prod(shape)) * self.dtype.itemsize
        room = -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        number = max(most, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // room)
        try:
            self.shared = SharedArray((number, room), np.uint8)
        except OSError:  # address space is bounded (ulimit -v): enough for who holds a few arrays
            number = 4 * most
            self.shared = SharedArray((number, room), np.uint8)
        self._free, self._next = deque[int](), 0

    def at(self, place: int) -> np.ndarray:
        """The array there."""
        return np.frombuffer(memoryview(self.shared.array[place])[: self.size], self.dtype)

    def take(self) -> tuple[int, np.ndarray]:
        """A free place and the array there, with whatever stands in it."""
        try:
            place = self._free.pop()  # the one that was used last is still in the cache
        except IndexError:
            place, self._next = self._next, self._next + 1
            if place >= len(self.shared.array):
                raise MemoryError(f"{place} arrays of {self.size:,} bytes are held") from None
        array = self.at(place)  # all views of it hold it, and not what it is a view of: that is no array
        weakref.finalize(array, self._give_back, place).atexit = False
        return place, array.reshape(self.shape)

    def close(self) -> None:
        """Hand back all pages but those of arrays that are held; these follow when they are not."""
        self.most = 0
        for place in self._free:
            self._empty(place)

    def _give_back(self, place: int) -> None:
        if len(self._free) < self.most:
            self._free.append(place)
        else:
            self._empty(place)
            self._free.appendleft(place)

    def _empty(self, place: int) -> None:
        if REMOVE is not None:
            room = self.shared.array.shape[1]
            self.shared.map.madvise(REMOVE, place * room, room)
