"""The training reader: shuffled, augmented batches of a manifest, made ahead in threads; its order needs no state."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from facegan.augment import Augmenter
from facegan.config import Augment
from facegan.images import ManifestImages
from facegan.seeds import subseed
from facegan.stored import StoredPixels
from facegan.training import Sampler

NORMALISED = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)  # as `embedder.to_input` does it

T = TypeVar("T")
AT_ONCE = 16  # images that are normalised by one call


@dataclass(frozen=True)
class Batch:
    """`nimg` images were read before it (by all shares); `rows` (n,) of the manifest; `img` NCHW float32 in -1..1."""

    nimg: int
    rows: np.ndarray
    img: torch.Tensor


def ahead(make: Callable[..., T], arguments: Iterable[tuple[Any, ...]], threads: int) -> Generator[T]:
    """`make(*one)` for each of `arguments`, in order, made by so many threads before it is asked for; 0: when it is.

    One more than there are threads is ready or under way: nobody waits for who asks. `arguments` are asked for in the
    caller's thread.
    """
    if not threads:
        yield from itertools.starmap(make, arguments)
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
    Threads make whole batches ahead (none: a batch is made when it is asked for). A batch's memory is used again once
    nothing refers to the batch any more.
    """

    def __init__(
        self,
        images: ManifestImages,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        threads: int = 2,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Without `augment` images are mirrored with a probability of one half, and no more is done to them."""
        which, of = share
        if not 0 <= which < of <= batch_size:
            raise ValueError(f"share {which} of {of} of batches of {batch_size}")
        if not len(images):
            raise ValueError("no images to read")
        self.pixels, self.length = images.pixels, len(images)
        self.batch_size, self.seed, self.augment, self.threads = batch_size, seed, augment, threads
        self.part = slice(which * batch_size // of, (which + 1) * batch_size // of)
        size = self.part.stop - self.part.start
        self._memory = _Memory((size, *self.pixels.shape[1:]), threads + 3)
        self._own = threading.local()  # an Augmenter holds the state of its draws

    def batches(self, nimg: int = 0) -> Generator[Batch]:
        """Batches from the one that begins after `nimg` images on, without end."""
        sampler = Sampler(self.length, self.seed)
        starts = itertools.count(nimg, self.batch_size)
        rows = ((start, sampler.batch(start, self.batch_size)[self.part]) for start in starts)
        return ahead(self._make, rows, self.threads)

    def _make(self, nimg: int, rows: np.ndarray) -> Batch:
        values = self._memory.take()
        if self.augment is None:
            flipped = np.random.default_rng(subseed("flip", self.seed, nimg)).random(self.batch_size)[self.part] < 0.5
            self._read(rows, flipped, values)
        else:
            if not hasattr(self._own, "augmenter"):
                self._own.augmenter = Augmenter(self.augment)
            seed = subseed("augment", self.seed, nimg)
            pixels = self._own.augmenter(self.pixels[rows], seed, before=self.part.start)
            normalise(pixels, values)
        return Batch(nimg, rows, torch.from_numpy(values).permute(0, 3, 1, 2))

    def _read(self, rows: np.ndarray, flipped: np.ndarray, values: np.ndarray) -> None:
        """Images into `values` (n, H, W, C) float32 in -1..1, those `flipped` (n,) bool mirrored.

        A few at a time: few enough to stay in the processor's cache from their decoding to their values, and enough
        that threads seldom hand the interpreter's lock to each other, as each call to OpenCV makes them do.
        """
        shape = self.pixels.shape[1:]
        room, spare = np.empty((AT_ONCE, *shape), np.uint8), np.empty(shape, np.uint8)
        stored = self.pixels if isinstance(self.pixels, StoredPixels) else None
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
