"""Arrays made ahead by processes, in memory that they share with who asked; none outlives the process that asked.

Threads hand Python's lock to each other; processes have one each. What they make is not copied: it lies where all see.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import selectors
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np

from facegan.core.errors import UserError
from facegan.runtime.options import Runtime
from facegan.runtime.processes import begin, killed, no_main, portable, start_forkserver, told
from facegan.runtime.shared_array import SharedArray

Arguments = TypeVar("Arguments", bound=tuple[Any, ...])
REMOVE: int | None = getattr(mmap, "MADV_REMOVE", None)  # madvise(2), on Linux alone: pages are handed back
Fill = Callable[..., None]  # (out, *arguments): fills the array `out`


def fill_in_processes(
    filler: Callable[[], Fill], arguments: Iterable[Arguments], shape: tuple[int, ...], dtype: type, processes: int
) -> Generator[tuple[Arguments, np.ndarray]]:
    """Each of `arguments`, in order, with the array (`shape`, `dtype`) that `filler()(array, *arguments)` has filled.

    So many processes fill arrays before they are asked for: one is ready or under way for each, and as many wait, so
    that nobody waits for who asks. `filler` (pickled) is called once in each. `arguments` are asked for in the caller's
    thread. An array's memory is used again once nothing refers to it or a view of it any more. Closing ends the
    processes. Raises what `filler` raised in its turn, WorkerKilled as soon as a process has died.
    """
    memory = _Memory(shape, dtype, 2 * processes + 2)
    waiting = deque[tuple[int, Arguments, np.ndarray]]()
    crew = _Crew(filler, memory, processes)
    try:
        for number, one in enumerate(arguments):
            place, array = memory.take()
            crew.ask(number, place, one)
            waiting.append((number, one, array))
            del array  # who is given it shall be the only one to hold it
            if len(waiting) > 2 * processes:
                yield crew.made(*waiting.popleft())
        while waiting:
            yield crew.made(*waiting.popleft())
    finally:
        crew.end()
        waiting.clear()
        memory.close()


class _Memory:
    """Places for arrays, used again; there are as many as the machine's memory holds, and most never get a page."""

    def __init__(self, shape: tuple[int, ...], dtype: type, most: int) -> None:
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


class _Crew:
    """Processes that fill arrays; the one that has least to do is asked."""

    def __init__(self, filler: Callable[[], Fill], memory: _Memory, processes: int) -> None:
        start_forkserver(Runtime())
        context = multiprocessing.get_context("forkserver")
        self._members: dict[Connection, Any] = {}
        self._asked: dict[Connection, int] = {}
        self._made: dict[int, tuple[BaseException, str] | None] = {}
        self._ready = selectors.DefaultSelector()
        self.end = weakref.finalize(self, _end, self._members, self._ready)  # at the latest when Python ends
        layout = (memory.shared, memory.shape, memory.dtype)
        try:
            for _ in range(processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, filler, *layout), daemon=True)
                self._members[ours], self._asked[ours] = process, 0
                with no_main():
                    process.start()
                self._ready.register(ours, selectors.EVENT_READ)
                theirs.close()
        except BaseException:
            self.end()
            raise

    def ask(self, number: int, place: int, arguments: tuple[Any, ...]) -> None:
        """Have the array at a place filled."""
        pipe = min(self._asked, key=self._asked.__getitem__)
        try:
            pipe.send_bytes(pickle.dumps((number, place, arguments)))
        except OSError:
            raise self._died(pipe) from None
        self._asked[pipe] += 1

    def made(self, number: int, arguments: Arguments, array: np.ndarray) -> tuple[Arguments, np.ndarray]:
        """The latter two, when the array is filled."""
        while number not in self._made:
            for key, _ in self._ready.select():
                pipe: Connection = key.fileobj  # type: ignore[assignment]
                try:
                    done, error = pipe.recv()
                except (EOFError, OSError):
                    raise self._died(pipe) from None
                self._made[done] = error
                self._asked[pipe] -= 1
        if failed := self._made.pop(number):
            raise told(*failed)
        return arguments, array

    def _died(self, pipe: Connection) -> UserError:
        return killed("a process that makes batches", self._members[pipe])


def _end(members: dict[Connection, Any], ready: selectors.BaseSelector) -> None:
    """Kill all: what they are at is of no use to anybody."""
    ready.close()
    for process in members.values():
        if process.pid is not None:
            process.kill()
    for pipe, process in members.items():
        if process.pid is not None:
            process.join()
        pipe.close()


def _work(
    pipe: Connection, filler: Callable[[], Fill], shared: SharedArray, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """In the process: fill what is asked for until the pipe ends, as it does when the parent has died."""
    begin()
    size = int(np.prod(shape)) * dtype.itemsize
    fill: Fill | None = None
    while True:
        try:
            number, place, arguments = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        failed = None
        try:
            fill = fill or filler()
            fill(shared.array[place, :size].view(dtype).reshape(shape), *arguments)
        except BaseException as error:
            failed = portable(error), traceback.format_exc()
        try:
            pipe.send((number, failed))
        except OSError:
            os._exit(0)
