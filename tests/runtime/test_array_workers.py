"""Arrays made by processes, in memory used again; nobody is left behind or waited for."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn import draw_face
from facegan.core.errors import Remote, UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.encoded_images import EncodedImages
from facegan.data.images import encode_png
from facegan.runtime.array_pool import ArrayPool
from facegan.runtime.array_workers import fill_in_processes
from facegan.runtime.processes import WorkerKilled
from facegan.runtime.shared_array import SharedArray

SIZE, IMAGES = 24, 30
SHAPE = (3, 4)


def rows() -> list[dict[str, Any]]:
    images = []
    for number in range(IMAGES):
        face = draw_face(number // 6, number % 6, SIZE, SIZE)
        data = encode_png(np.stack([face, face[::-1], 255 - face], axis=2))
        facts = {"source": "real", "dataset": "d", "split": "train", "height": SIZE, "width": SIZE}
        images.append(manifest.row(data, identity=f"d/p{number // 6}", **facts))
    return images


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    manifest.write(folder, rows(), "test", {})
    return folder


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    """After each test no process is left."""
    yield
    gc.collect()
    assert not multiprocessing.active_children()


def inode(source: EncodedImages | SharedArray) -> int:
    return os.fstat((source.file if isinstance(source, EncodedImages) else source).fd).st_ino


class Inodes:
    """Fills arrays with the number of the file that it was handed."""

    def __init__(self, source: EncodedImages | SharedArray) -> None:
        self.source = source

    def __call__(self, out: np.ndarray) -> None:
        out[:] = inode(self.source)


def test_encoded_and_decoded_images_are_handed_over_without_a_copy(faces: Path) -> None:
    encoded = ManifestImages(faces, keep_bytes=0).pixels
    assert isinstance(encoded, EncodedImages)
    for source in (encoded, SharedArray.copy_of(np.arange(5))):
        with closing(fill_in_processes(partial(Inodes, source), iter([()]), (1,), np.int64, 1)) as arrays:
            assert [int(array[0]) for _, array in arrays] == [inode(source)]


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"odd {a} {b}")


def number_all(out: np.ndarray, number: int) -> None:
    """Each array is full of its number; some numbers are trouble."""
    if number == -1:
        raise UserError("what", fix="do this")
    if number == -2:
        raise Odd(1, 2)
    if number == -3:
        time.sleep(60)
    out[:] = number


def broken() -> Any:
    raise ZeroDivisionError("never works")


def filler() -> Any:
    return number_all


def numbers(*requested: int, processes: int = 2) -> Any:
    return fill_in_processes(filler, ((number,) for number in requested), SHAPE, np.float32, processes)


def test_arrays_come_in_order_with_their_arguments() -> None:
    arrays = [
        (arguments, array.shape, set(array.ravel().tolist())) for arguments, array in numbers(*range(50), processes=3)
    ]
    assert arrays == [((number,), SHAPE, {number}) for number in range(50)]


def test_errors_come_in_their_turn(faces: Path, tmp_path: Path) -> None:
    arrays = numbers(4, 5, -1, 6)
    assert [next(arrays)[0], next(arrays)[0]] == [(4,), (5,)]
    with pytest.raises(UserError, match="what\n  -> do this"):
        next(arrays)
    with pytest.raises(RuntimeError, match="Odd: odd 1 2") as error:
        list(numbers(-2))
    assert isinstance(error.value.__cause__, Remote) and "number_all" in str(error.value.__cause__)
    with pytest.raises(ZeroDivisionError, match="never works"):
        list(fill_in_processes(broken, iter([()]), (1,), np.int64, 2))


@pytest.mark.parametrize("requested", [(1, -3, -3, 4, 5, 6, 7, 8, 9), tuple(range(100))])
def test_a_killed_process_is_reported(requested: tuple[int, ...]) -> None:
    """One that is at work, which would take a minute, or one that has nothing left to do."""
    arrays = numbers(*requested)
    next(arrays)
    first, *_ = multiprocessing.active_children()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(WorkerKilled, match=r"a process that makes batches was killed \(signal 9\)"):
        list(arrays)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("part", [lambda array: array, lambda array: array[1, ::2], lambda array: array.T[2:].T[1:]])
def test_an_array_that_is_held_stays_as_it_is(part: Any) -> None:
    """Any part of it holds it; the memory of one that is not is used again."""
    arrays = numbers(*range(300))
    held = [part(array) for _, array in islice(arrays, 40)]
    addresses = {array.ctypes.data for _, array in islice(arrays, 200)}
    assert len(addresses) <= 2 * 2 + 2
    list(arrays)  # to the end: the processes are gone, and what is held is not
    assert [set(array.ravel().tolist()) for array in held] == [{number} for number in range(40)]


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="pages are handed back on Linux alone")
def test_memory_holds_few_free_places() -> None:
    """In pages of the file: what is held, and at most so many free places; only what is held once it is closed."""
    slots = ArrayPool((mmap.PAGESIZE,), np.uint8, max_free=3)

    def pages() -> int:
        return os.fstat(slots.shared.fd).st_blocks * 512 // mmap.PAGESIZE

    held = [slots.acquire()[1] for _ in range(10)]
    for array in held:
        array[:] = 1
    assert pages() == 10
    del array, held[4:]
    assert pages() == 4 + 3
    reused = [slots.acquire()[1] for _ in range(3)]
    assert all(array[0] == 1 for array in reused) and slots.acquire()[1][0] == 0
    slots.close()
    assert pages() == 4 + 3
    del reused
    assert pages() == 4
    held.clear()
    assert pages() == 0


JOBS = """
def fill(out, number):
    out[:] = number

def filler():
    return fill
"""

SCRIPT = """
import itertools, multiprocessing, sys, time
import numpy as np
import jobs
from facegan.runtime import array_workers, processes
processes.PRELOAD.clear()  # nothing here needs torch
made = array_workers.fill_in_processes(jobs.filler, zip(itertools.count()), (1000,), np.float32, 2)
next(made)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


def started(folder: Path, more: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A script that asks for arrays, and the numbers of its two processes."""
    (folder / "jobs.py").write_text(JOBS)
    (folder / "script.py").write_text(SCRIPT + more)
    command, pipe = [sys.executable, str(folder / "script.py")], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert process.stdout is not None
    children = [int(word) for word in process.stdout.readline().split()]
    assert len(children) == 2, process.communicate()
    return process, children


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up there")
def test_none_outlives_the_parent(tmp_path: Path) -> None:
    process, children = started(tmp_path, "time.sleep(60)")
    assert all(map(alive, children))
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(alive, children))


def test_a_script_may_end_without_closing(tmp_path: Path) -> None:
    process, children = started(tmp_path, "")
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 0
    assert not any(map(alive, children))
