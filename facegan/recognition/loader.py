"""The training reader: shuffled, augmented batches of a manifest, made ahead; its order needs no state."""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
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
from facegan.recognition.batches import Batches
from facegan.recognition.options import Augment
from facegan.runtime.array_workers import fill_in_processes
from facegan.runtime.shared_array import SharedArray
from facegan.training.loop import Sampler

NORMALISED = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)  # as `embedder.to_input` does it

T = TypeVar("T")
AT_ONCE = 16  # images that are normalised by one call


@dataclass(frozen=True)
class Batch:
    """`nimg` images were read before it (by all shares); `rows` (n,) of the manifest; `img` NCHW float32 in -1..1."""

    nimg: int
    rows: np.ndarray
    img: torch.Tensor


def ahead(make: Callable[..., T], arguments: Iterable[tuple[Any, ...]], threads: int, at_once: int = 1) -> Generator[T]:
    """`make(*one)` for each of `arguments`, in order, made by so many threads before it is asked for; 0: when it is.

    One more than there are threads is ready or under way: nobody waits for who asks. Without threads `at_once` are made
    one after another when the first of them is asked for: `make` then finds its code and tables in the caches, from
    which what the caller does in between drives them. `arguments` are asked for in the caller's thread.
    """
    if not threads:
        rest = iter(arguments)
        while some := list(itertools.islice(rest, at_once)):
            yield from [make(*one) for one in some]
        return
    waiting = deque[Future[T]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for one in arguments:
                waiting.append(pool.submit(make, *one))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Reader:
    """Endless shuffled batches of a manifest's images, from any position on.

    Which rows a batch has depends on the seed and its position in images alone (`training.Sampler`), so that a
    resume starts at `nimg` and needs no state; so does what is drawn for them (flip, or the whole recipe of `augment`).
    Of `share` = (which, of how many) ranks or workers each reads an even part of every batch, one after another:
    together they read what one would, to the bit.
    Threads make whole batches ahead (none: a batch is made when it is asked for), or processes do, to the same bits. A
    batch's memory is used again once nothing refers to the batch any more.
    """

    def __init__(
        self,
        images: ManifestImages,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        threads: int = 2,
        share: tuple[int, int] = (0, 1),
        processes: int = 0,
    ) -> None:
        """Without `augment` images are mirrored with a probability of one half, and no more is done to them.

        So many `processes` work instead of threads, where there are any; they are handed what `handed` says.
        """
        which, of = share
        if not 0 <= which < of <= batch_size:
            raise ValueError(f"share {which} of {of} of batches of {batch_size}")
        if not len(images):
            raise ValueError("no images to read")
        self.length, self.seed, self.batch_size = len(images), seed, batch_size
        self.threads, self.processes = threads, processes
        self.part = slice(which * batch_size // of, (which + 1) * batch_size // of)
        self.shape = (self.part.stop - self.part.start, *images.pixels.shape[1:])
        pixels = handed(images) if processes else images.pixels
        self.filler = partial(ReaderFiller, pixels, batch_size, seed, augment, self.part)
        self._memory = _Memory(self.shape, threads + 3)
        self._own = threading.local()

    def batches(self, nimg: int = 0) -> Generator[Batch]:
        """Batches from the one that begins after `nimg` images on, without end.

        With processes, raises WorkerKilled when one of them has died.
        """
        sampler = Sampler(self.length, self.seed)
        starts = itertools.count(nimg, self.batch_size)
        rows = ((start, sampler.batch(start, self.batch_size)[self.part]) for start in starts)
        if not self.processes:
            yield from ahead(self._make, rows, self.threads)
            return
        with contextlib.closing(fill_in_processes(self.filler, rows, self.shape, np.float32, self.processes)) as made:
            yield from itertools.starmap(batch_of, made)

    def _make(self, nimg: int, rows: np.ndarray) -> Batch:
        if not hasattr(self._own, "fill"):
            self._own.fill = self.filler()
        values = self._memory.take()
        self._own.fill(values, nimg, rows)
        return batch_of((nimg, rows), values)


def batch_of(which: tuple[int, np.ndarray], values: np.ndarray) -> Batch:
    """The batch with (nimg, rows) and values (n, H, W, C)."""
    return Batch(*which, torch.from_numpy(values).permute(0, 3, 1, 2))


def handed(images: ManifestImages) -> EncodedImages | SharedArray:
    """The pixels, in a form that many processes can be handed without a copy for each.

    Images that are kept decoded are moved: `images.pixels` has the same values afterwards, in memory that is shared.
    """
    if isinstance(images.pixels, EncodedImages):
        return images.pixels
    if images.shared is None or images.shared.array is not images.pixels:
        images.shared = SharedArray.copy_of(images.pixels)
        images.pixels = images.shared.array
    return images.shared


class ReaderFiller:
    """Fills batches; each thread or process has one, since an Augmenter holds the state of its draws."""

    def __init__(
        self,
        pixels: np.ndarray | EncodedImages | SharedArray,
        batch_size: int,
        seed: int,
        augment: Augment | None,
        part: slice,
    ) -> None:
        self.pixels = pixels.array if isinstance(pixels, SharedArray) else pixels
        self.batch_size, self.seed, self.part = batch_size, seed, part
        self.augmenter = None if augment is None else Augmenter(augment)

    def __call__(self, values: np.ndarray, nimg: int, rows: np.ndarray) -> None:
        """Into `values` (n, H, W, C) float32 in -1..1 the images of `rows` (n,), the part of the batch at `nimg`."""
        if self.augmenter is None:
            flipped = np.random.default_rng(subseed("flip", self.seed, nimg)).random(self.batch_size)[self.part] < 0.5
            self.read(rows, flipped, values)
        else:
            seed = subseed("augment", self.seed, nimg)
            normalise(self.augmenter(self.pixels[rows], seed, before=self.part.start), values)

    def read(self, rows: np.ndarray, flipped: np.ndarray, values: np.ndarray) -> None:
        """Images into `values` (n, H, W, C) float32 in -1..1, those `flipped` (n,) bool mirrored.

        A few at a time: few enough to stay in the processor's cache from their decoding to their values, and enough
        that threads seldom hand the interpreter's lock to each other, as each call to OpenCV makes them do.
        """
        shape = self.pixels.shape[1:]
        room, spare = np.empty((AT_ONCE, *shape), np.uint8), np.empty(shape, np.uint8)
        stored = self.pixels if isinstance(self.pixels, EncodedImages) else None
        for start in range(0, len(rows), AT_ONCE):
            out = values[start : start + AT_ONCE]
            some = zip(rows[start:].tolist(), flipped[start:].tolist(), room[: len(out)], strict=False)
            for row, flip, place in some:
                image = stored.decode(row, spare) if stored is not None else self.pixels[row]
                if flip:
                    cv2.flip(image, 1, dst=place)
                else:  # numpy's own copy would let go of the lock
                    place.data.cast("B")[:] = image.data.cast("B")
            normalise(room[: len(out)], out)


def normalise(pixels: np.ndarray, out: np.ndarray) -> None:
    """(n, H, W, C) uint8 into (n, H, W, C) float32 in -1..1, as one tall image."""
    shape = (-1, *pixels.shape[2:])
    cv2.LUT(pixels.reshape(shape), NORMALISED, dst=out.reshape(shape))


class _Memory:
    """Arrays for batches, used again: the pages of a new one cost more than filling it."""

    def __init__(self, shape: tuple[int, ...], most: int) -> None:
        self.shape, self._free = shape, deque[np.ndarray](maxlen=most)

    def take(self) -> np.ndarray:
        """A float32 array with whatever stands in it; it is used again when the last view of it is gone."""
        try:
            array = self._free.pop()  # the one that was used last is still in the cache
        except IndexError:
            array = np.empty(self.shape, np.float32)
        view = array[:]  # tensors, slices and what else is made of it hold it
        weakref.finalize(view, self._free.append, array).atexit = False
        return view


AT_ONCE, AT_ONCE_BYTES = 16, 64e6  # batches that are augmented one after another where nobody does it beside training


def steps_of(batches: Batches, steps: range, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Of each step: images seen before it, and its rows."""
    for step in steps:
        yield step * batch_size, batches.rows(step)


class Filler:
    """Makes the images of batches, of which `mine` are a rank's."""

    def __init__(
        self, pixels: np.ndarray | EncodedImages | SharedArray, augment: Augment, seed: int, mine: slice
    ) -> None:
        self.pixels = pixels.array if isinstance(pixels, SharedArray) else pixels
        self.augment, self.seed, self.mine = Augmenter(augment), seed, mine

    def __call__(self, out: np.ndarray, nimg: int, rows: np.ndarray) -> None:
        """What `made` gives, into `out`."""
        out[:] = self.made(nimg, rows)

    def made(self, nimg: int, rows: np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8, augmented: of the batch with `rows`, before which so many images were seen."""
        seed = subseed("augment", self.seed, nimg)
        return self.augment(self.pixels[rows[self.mine]], seed, before=self.mine.start)
