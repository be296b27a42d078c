"""The loader that both training loops read by: shuffled, augmented batches, made ahead; its order needs no state."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from facegan.core.seeds import subseed
from facegan.data.dataset import ManifestImages
from facegan.data.encoded_images import EncodedImages
from facegan.recognition.augment import Augmenter
from facegan.recognition.augment_options import Augment
from facegan.runtime.array_pool import ArrayPool
from facegan.runtime.array_workers import fill_in_processes
from facegan.runtime.shared_array import SharedArray
from facegan.training.loop import numpy_draws

NORMALISED = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)  # as `tensors.to_input` on a CPU
IMAGES_AT_ONCE = 16  # images that are decoded, and then normalised by one call
BATCHES_AT_ONCE, BYTES_AT_ONCE = 16, 64e6  # batches made one after another where nobody makes them beside the training

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """`nimg` images were read before it; `rows` (batch_size,) int64 of the manifest, or fewer.

    `img` is this rank's part of it, NCHW, channels last in memory: float32 in -1..1, or uint8 where the loader does not
    normalise.
    """

    nimg: int
    rows: np.ndarray
    img: torch.Tensor


class Loader:
    """Batches of a manifest's images, from any step on, made ahead by threads or processes to the same bits.

    Which rows a batch has is `rows_of(step)`, at most batch_size of them, and what is drawn for them depends on the
    seed and the step alone: a resume starts at a step and needs no state. Ranks that share a batch each read their
    `part` of it: together they read what one would, to the bit. A batch's memory is used again once nothing refers to
    the batch any more.
    """

    def __init__(
        self,
        images: ManifestImages,
        rows_of: Callable[[int], np.ndarray],
        batch_size: int,
        seed: int,
        *,
        augment: Augment | None = None,
        flip: bool = True,
        part: slice | None = None,
        normalise: bool = True,
        threads: int = 0,
        processes: int = 0,
    ) -> None:
        """Without `augment` images are mirrored with a probability of one half (`flip`), and no more is done to them.

        `threads` make whole batches ahead; with none, batches are made when they are asked for. So many `processes`
        work instead, where there are any; images are then moved to memory that they share (`shareable`). Without
        `normalise` pixels stay uint8, for a device that normalises faster (`training.tensors.to_input`).
        """
        self.part = part or slice(0, batch_size)
        if not 0 <= self.part.start < self.part.stop <= batch_size:
            raise ValueError(f"part {self.part.start} to {self.part.stop} of batches of {batch_size}")
        if not len(images):
            raise ValueError("no images to read")
        self.rows_of, self.batch_size, self.threads, self.processes = rows_of, batch_size, threads, processes
        self.shape = (self.part.stop - self.part.start, *images.pixels.shape[1:])
        self.dtype = np.float32 if normalise else np.uint8
        pixels = shareable(images) if processes else images.pixels
        self.filler = partial(_BatchFiller, pixels, batch_size, seed, augment, flip, self.part)

    def batches(self, start: int = 0, stop: int | None = None) -> Generator[Batch]:
        """The batches of the steps from `start` to before `stop`; without `stop`, without end.

        With processes, raises WorkerKilled when one of them has died.
        """
        steps = itertools.count(start) if stop is None else range(start, stop)
        asked = ((step * self.batch_size, self.rows_of(step)) for step in steps)
        if self.processes:
            made = fill_in_processes(self.filler, asked, self.shape, self.dtype, self.processes)
        else:
            made = self._in_threads(asked)
        with contextlib.closing(made):
            for (nimg, rows), values in made:
                yield Batch(nimg, rows, torch.from_numpy(values)[: len(rows[self.part])].permute(0, 3, 1, 2))

    def _in_threads(
        self, asked: Iterator[tuple[int, np.ndarray]]
    ) -> Generator[tuple[tuple[int, np.ndarray], np.ndarray]]:
        """`asked` with the filled arrays, as `fill_in_processes` gives them."""
        at_once = 1
        if not self.threads:
            batch_bytes = math.prod(self.shape) * np.dtype(self.dtype).itemsize
            at_once = min(BATCHES_AT_ONCE, max(1, int(BYTES_AT_ONCE // batch_bytes)))
        pool, own = ArrayPool(self.shape, self.dtype, max(at_once, self.threads + 3)), threading.local()

        def fill(array: np.ndarray, nimg: int, rows: np.ndarray) -> tuple[tuple[int, np.ndarray], np.ndarray]:
            if not hasattr(own, "filler"):
                own.filler = self.filler()
            own.filler(array, nimg, rows)
            return (nimg, rows), array

        try:
            yield from prefetch(fill, ((pool.acquire()[1], *one) for one in asked), self.threads, at_once)
        finally:
            pool.close()


def prefetch(
    make: Callable[..., T], arguments: Iterable[tuple[Any, ...]], threads: int, at_once: int = 1
) -> Generator[T]:
    """`make(*one)` for each of `arguments`, in order, made by so many threads before it is asked for; 0: when it is.

    One more than there are threads is ready or under way: nobody waits for who asks. Without threads `at_once` are made
    one after another when the first of them is asked for: `make` then finds its code and tables in the caches, from
    which what the caller does in between drives them. `arguments` are asked for in the caller's thread.
    """
    if not threads:
        rest = iter(arguments)
        while some := list(itertools.islice(rest, at_once)):
            ready = deque(make(*one) for one in some)
            some.clear()
            while ready:
                yield ready.popleft()
        return
    waiting = deque[Future[T]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for one in arguments:
                waiting.append(pool.submit(make, *one))
                del one  # its arrays are held by who works on them alone
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def shareable(images: ManifestImages) -> EncodedImages | SharedArray:
    """The pixels, in a form that many processes can be handed without a copy for each.

    Images that are kept decoded are moved: `images.pixels` has the same values afterwards, in memory that is shared.
    """
    if isinstance(images.pixels, EncodedImages):
        return images.pixels
    if images.shared is None or images.shared.array is not images.pixels:
        images.shared = SharedArray.copy_of(images.pixels)
        images.pixels = images.shared.array
    return images.shared


class _BatchFiller:
    """Fills batches; each thread or process has one, since an Augmenter holds the state of its draws."""

    def __init__(
        self,
        pixels: np.ndarray | EncodedImages | SharedArray,
        batch_size: int,
        seed: int,
        augment: Augment | None,
        flip: bool,
        part: slice,
    ) -> None:
        self.pixels = pixels.array if isinstance(pixels, SharedArray) else pixels
        self.batch_size, self.seed, self.flip, self.part = batch_size, seed, flip, part
        self.augmenter = None if augment is None else Augmenter(augment)

    def __call__(self, values: np.ndarray, nimg: int, rows: np.ndarray) -> None:
        """Into `values` (n, H, W, C) the images of the part of `rows` (batch_size,), the batch at `nimg`.

        `values` are float32 in -1..1 or uint8; where there are fewer rows, the rest stay as they are.
        """
        if not len(rows):
            return
        values = values[: len(rows[self.part])]
        if self.augmenter is not None:
            seed = subseed("augment", self.seed, nimg)
            into(self.augmenter(self.pixels[rows[self.part]], seed, before=self.part.start), values)
            return
        flipped = np.zeros(self.batch_size, bool)
        if self.flip:
            flipped = numpy_draws(self.seed, nimg).random(self.batch_size) < 0.5
        self.read(rows[self.part], flipped[self.part], values)

    def read(self, rows: np.ndarray, flipped: np.ndarray, values: np.ndarray) -> None:
        """Images into `values` (n, H, W, C), float32 in -1..1 or uint8, those `flipped` (n,) bool mirrored.

        A few at a time: few enough to stay in the processor's cache from their decoding to their values, and enough
        that threads seldom hand the interpreter's lock to each other, as each call to OpenCV makes them do.
        """
        shape = self.pixels.shape[1:]
        buffer, spare = np.empty((IMAGES_AT_ONCE, *shape), np.uint8), np.empty(shape, np.uint8)
        encoded = self.pixels if isinstance(self.pixels, EncodedImages) else None
        for start in range(0, len(rows), IMAGES_AT_ONCE):
            out = values[start : start + IMAGES_AT_ONCE]
            some = zip(rows[start:].tolist(), flipped[start:].tolist(), buffer[: len(out)], strict=False)
            for row, flip, upright in some:
                image = encoded.decode(row, spare) if encoded is not None else self.pixels[row]
                if flip:
                    cv2.flip(image, 1, dst=upright)
                else:  # numpy's own copy would let go of the lock
                    upright.data.cast("B")[:] = image.data.cast("B")
            into(buffer[: len(out)], out)


def into(pixels: np.ndarray, values: np.ndarray) -> None:
    """(n, H, W, C) uint8 into `values` of that shape: as they are, or float32 in -1..1, as one tall image."""
    if values.dtype == np.uint8:
        values[:] = pixels
        return
    shape = (-1, *pixels.shape[2:])
    cv2.LUT(pixels.reshape(shape), NORMALISED, dst=values.reshape(shape))
