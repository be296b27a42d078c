"""Arrays filled ahead of use by worker processes, in memory shared with the caller; no worker outlives the caller.

Processes and not threads, which would wait for each other's hold of Python's lock. Arrays are not copied: they lie in
shared memory.
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
from facegan.runtime.processes import (
    killed_error,
    no_main,
    picklable,
    set_up_child,
    start_forkserver,
    with_remote_traceback,
)
from facegan.runtime.shared_array import SharedArray

Arguments = TypeVar("Arguments", bound=tuple[Any, ...])
Fill = Callable[..., None]  # (out, *arguments): fills the array `out`


def fill_in_processes(
    filler: Callable[[], Fill], arguments: Iterable[Arguments], shape: tuple[int, ...], dtype: type, processes: int
) -> Generator[tuple[Arguments, np.ndarray]]:
    """Each of `arguments`, in order, with the array (`shape`, `dtype`) that `filler()(array, *arguments)` has filled.

    `processes` workers fill arrays before they are needed: one array for each worker is ready or being filled, and as
    many requests wait, so that no worker waits for the caller. `filler` (pickled) is called once in each. `arguments`
    are consumed in the caller's thread. An array's memory is used again once nothing refers to it or a view of it any
    more. Closing ends the processes. Raises what `filler` raised, when its array's turn comes, and WorkerKilled as soon
    as a process has died.
    """
    slots = ArrayPool(shape, dtype, 2 * processes + 2)
    waiting = deque[tuple[int, Arguments, np.ndarray]]()
    pool = _WorkerPool(filler, slots, processes)
    try:
        for index, request in enumerate(arguments):
            slot, array = slots.acquire()
            pool.request(index, slot, request)
            waiting.append((index, request, array))
            del array  # the consumer shall hold the only reference
            if len(waiting) > 2 * processes:
                yield pool.result(*waiting.popleft())
        while waiting:
            yield pool.result(*waiting.popleft())
    finally:
        pool.end()
        waiting.clear()
        slots.close()


class _WorkerPool:
    """Processes that fill arrays; a request goes to the one with the fewest."""

    def __init__(self, filler: Callable[[], Fill], slots: ArrayPool, processes: int) -> None:
        start_forkserver(Runtime())
        context = multiprocessing.get_context("forkserver")
        self._workers: dict[Connection, Any] = {}
        self._pending: dict[Connection, int] = {}
        self._finished: dict[int, tuple[BaseException, str] | None] = {}
        self._ready = selectors.DefaultSelector()
        self.end = weakref.finalize(self, _end, self._workers, self._ready)  # at the latest when Python ends
        layout = (slots.shared, slots.shape, slots.dtype)
        try:
            for _ in range(processes):
                parent_end, child_end = context.Pipe()
                process = context.Process(target=_work, args=(child_end, filler, *layout), daemon=True)
                self._workers[parent_end], self._pending[parent_end] = process, 0
                with no_main():
                    process.start()
                self._ready.register(parent_end, selectors.EVENT_READ)
                child_end.close()
        except BaseException:
            self.end()
            raise

    def request(self, index: int, slot: int, arguments: tuple[Any, ...]) -> None:
        """Have the array in a slot filled."""
        pipe = min(self._pending, key=self._pending.__getitem__)
        try:
            pipe.send_bytes(pickle.dumps((index, slot, arguments)))
        except OSError:
            raise self._died(pipe) from None
        self._pending[pipe] += 1

    def result(self, index: int, arguments: Arguments, array: np.ndarray) -> tuple[Arguments, np.ndarray]:
        """`arguments` and `array`, when the array is filled."""
        while index not in self._finished:
            for key, _ in self._ready.select():
                pipe: Connection = key.fileobj  # type: ignore[assignment]
                try:
                    filled, error = pipe.recv()
                except (EOFError, OSError):
                    raise self._died(pipe) from None
                self._finished[filled] = error
                self._pending[pipe] -= 1
        if failure := self._finished.pop(index):
            raise with_remote_traceback(*failure)
        return arguments, array

    def _died(self, pipe: Connection) -> UserError:
        return killed_error("a process that makes batches", self._workers[pipe])


def _end(workers: dict[Connection, Any], ready: selectors.BaseSelector) -> None:
    """Kill all workers: their unfinished arrays are of no use."""
    ready.close()
    for process in workers.values():
        if process.pid is not None:
            process.kill()
    for pipe, process in workers.items():
        if process.pid is not None:
            process.join()
        pipe.close()


def _work(
    pipe: Connection, filler: Callable[[], Fill], shared: SharedArray, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """In a worker: fill requested arrays until the pipe ends, as it does when the parent has died."""
    set_up_child()
    size = int(np.prod(shape)) * dtype.itemsize
    fill: Fill | None = None
    while True:
        try:
            index, slot, arguments = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        failure = None
        try:
            fill = fill or filler()
            fill(shared.array[slot, :size].view(dtype).reshape(shape), *arguments)
        except BaseException as error:
            failure = picklable(error), traceback.format_exc()
        try:
            pipe.send((index, failure))
        except OSError:
            os._exit(0)
