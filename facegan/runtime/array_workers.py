"""Arrays made ahead by processes, in memory that they share with who asked; none outlives the process that asked.

Threads hand Python's lock to each other; processes have one each. What they make is not copied: it lies where all see.
"""

from __future__ import annotations

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
from facegan.runtime.array_pool import ArrayPool
from facegan.runtime.options import Runtime
from facegan.runtime.processes import begin, killed, no_main, portable, start_forkserver, told
from facegan.runtime.shared_array import SharedArray

Arguments = TypeVar("Arguments", bound=tuple[Any, ...])
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
    memory = ArrayPool(shape, dtype, 2 * processes + 2)
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


class _Crew:
    """Processes that fill arrays; the one that has least to do is asked."""

    def __init__(self, filler: Callable[[], Fill], memory: ArrayPool, processes: int) -> None:
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
