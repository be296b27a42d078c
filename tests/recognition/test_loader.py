"""The loader: the same images as decoded at once, an order without state, parts of a batch, bounded memory."""

from __future__ import annotations

import gc
import io
import itertools
import multiprocessing
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.encoded_images import is_color_jpeg
from facegan.recognition.augment import Augmenter
from facegan.recognition.augment_options import Augment
from facegan.recognition.loader import BATCHES_AT_ONCE, IMAGES_AT_ONCE, Loader, prefetch
from facegan.training.loop import Sampler
from facegan.training.tensors import to_input

PEOPLE, SHOTS, SIZE = 5, 6, 24


def stored_as(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"quality": 90} if form == "JPEG" else {}))
    return buffer.getvalue()


def write(folder: Path, color: str, form: str) -> Path:
    """Drawn faces; person 1 is in val, the others in train."""
    rows = []
    for number in range(PEOPLE * SHOTS):
        pixels = draw_face(number // SHOTS, number % SHOTS, SIZE, SIZE)
        if color == "rgb":
            pixels = np.stack([pixels, pixels[::-1], 255 - pixels], axis=2)
        split = "val" if number // SHOTS == 1 else "train"
        rows.append(
            manifest.row(
                stored_as(pixels, form),
                identity=f"d/p{number // SHOTS}",
                label=number // SHOTS,
                source="real",
                dataset="d",
                split=split,
                height=SIZE,
                width=SIZE,
            )
        )
    manifest.write(folder, rows, "test", {})
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("faces"), "rgb", "JPEG")


@pytest.mark.parametrize(("color", "form"), [("rgb", "JPEG"), ("grey", "JPEG"), ("rgb", "PNG"), ("grey", "PNG")])
@pytest.mark.parametrize("split", [None, "train"])
def test_stored_images_are_those_kept_decoded(tmp_path: Path, color: str, form: str, split: str | None) -> None:
    path = write(tmp_path, color, form)
    kept, stored = ManifestImages(path, split), ManifestImages(path, split, keep_bytes=0)
    assert isinstance(kept.pixels, np.ndarray)
    assert not isinstance(stored.pixels, np.ndarray)
    assert stored.pixels.shape == kept.pixels.shape
    places = np.array([3, 0, 22, 3])
    assert np.array_equal(stored.pixels[places], kept.pixels[places])
    assert np.array_equal(stored.pixels[5:900], kept.pixels[5:900])
    assert np.array_equal(np.asarray(stored.pixels), kept.pixels)
    for name in ("image_id", "identity", "source", "label"):
        assert getattr(stored, name).tolist() == getattr(kept, name).tolist()


@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(300)}, {"subsampling": 0}])
def test_jpegs_in_color_are_known_by_their_header(more: dict[str, Any]) -> None:
    for mode, color in (("RGB", True), ("L", False), ("CMYK", False)):
        buffer = io.BytesIO()
        Image.new(mode, (9, 9)).save(buffer, "JPEG", **more)
        data = buffer.getvalue()
        assert is_color_jpeg(memoryview(data)) == color
        whole = data.index(b"\xff\xda")  # where the header ends
        assert not any(is_color_jpeg(memoryview(data[:end])) for end in range(24))
        assert is_color_jpeg(memoryview(data[:whole])) == color
    assert not is_color_jpeg(memoryview(stored_as(np.zeros((9, 9, 3), np.uint8), "PNG")))


def test_the_size_decides(faces: Path) -> None:
    decoded = PEOPLE * SHOTS * SIZE * SIZE * 3
    assert isinstance(ManifestImages(faces, keep_bytes=decoded).pixels, np.ndarray)
    assert not isinstance(ManifestImages(faces, keep_bytes=decoded - 1).pixels, np.ndarray)


def loader_of(images: ManifestImages, size: int, seed: int, **options: Any) -> Loader:
    """Batches in shuffled epochs, made by two threads where nothing else is said."""
    sampler = Sampler(len(images), seed)
    return Loader(images, lambda step: sampler.batch(step * size, size), size, seed, **{"threads": 2, **options})


def take(loader: Loader, number: int, start: int = 0) -> list[tuple[list[int], bytes]]:
    batches = loader.batches(start)
    taken = [(batch.rows.tolist(), batch.img.numpy().tobytes()) for batch in islice(batches, number)]
    batches.close()
    return taken


@pytest.mark.parametrize("augment", [None, Augment()])
@pytest.mark.parametrize("keep_bytes", [0, 1e9])
def test_order_and_draws_need_no_state(faces: Path, augment: Augment | None, keep_bytes: float) -> None:
    images = ManifestImages(faces, keep_bytes=keep_bytes)
    whole = take(loader_of(images, 7, 3, augment=augment), 12)
    sampler = Sampler(len(images), 3)
    assert [rows for rows, _ in whole] == [sampler.batch(7 * step, 7).tolist() for step in range(12)]
    for step in (0, 2, 5, 11):  # in the middle of an epoch, across its end, in a later one
        for threads in (0, 1):
            assert take(loader_of(images, 7, 3, augment=augment, threads=threads), 1, step) == [whole[step]]
    assert take(loader_of(images, 7, 4, augment=augment), 1) != [whole[0]]
    other = ManifestImages(faces, keep_bytes=0 if keep_bytes else 1e9)
    assert take(loader_of(other, 7, 3, augment=augment), 12) == whole
    assert [batch.nimg for batch in loader_of(images, 7, 3).batches(2, 5)] == [14, 21, 28]


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("augment", [None, Augment()])
def test_parts_together_are_what_one_reads(faces: Path, augment: Augment | None, ranks: int) -> None:
    images = ManifestImages(faces, keep_bytes=0)
    whole = take(loader_of(images, 7, 0, augment=augment), 6)
    each = [slice(rank * 7 // ranks, (rank + 1) * 7 // ranks) for rank in range(ranks)]
    parts = [take(loader_of(images, 7, 0, augment=augment, part=part), 6) for part in each]
    for step, (rows, img) in enumerate(whole):
        assert all(part[step][0] == rows for part in parts)
        assert b"".join(part[step][1] for part in parts) == img


@pytest.mark.parametrize("augment", [None, Augment()])
@pytest.mark.parametrize("how", [{"threads": 0}, {"threads": 2}, {"processes": 2}])
def test_a_device_may_normalise_to_the_same_values(faces: Path, augment: Augment | None, how: dict[str, int]) -> None:
    images = ManifestImages(faces, keep_bytes=0)
    plain, ready = (loader_of(images, 7, 0, augment=augment, normalise=n, **how).batches(3, 6) for n in (False, True))
    for pixels, img in zip(plain, ready, strict=True):
        assert pixels.img.dtype == torch.uint8 and img.img.dtype == torch.float32
        assert torch.equal(to_input(pixels.img), img.img)
        assert to_input(pixels.img).stride() == to_input(img.img).stride() == img.img.stride()


def test_without_flips_images_are_as_they_are(faces: Path) -> None:
    images = ManifestImages(faces)
    for batch in loader_of(images, 8, 0, flip=False, normalise=False).batches(0, 4):
        assert np.array_equal(batch.img.permute(0, 2, 3, 1).numpy(), images.pixels[batch.rows])


@pytest.mark.parametrize("augment", [None, Augment()])
@pytest.mark.parametrize(
    ("size", "step", "part", "processes", "keep_bytes"),
    [(7, 0, None, 2, 0), (7, 3, slice(2, 4), 1, 1e9), (40, 10, slice(20, 40), 3, 0), (1, 5, None, 2, 1e9)],
)
def test_processes_make_what_threads_make(
    faces: Path, augment: Augment | None, size: int, step: int, part: slice | None, processes: int, keep_bytes: float
) -> None:
    images = ManifestImages(faces, keep_bytes=keep_bytes)
    by_threads = take(loader_of(images, size, 3, augment=augment, part=part), 12, step)
    loader = loader_of(images, size, 3, augment=augment, part=part, processes=processes)
    assert take(loader, 12, step) == by_threads
    assert take(loader, 2, step + 5) == by_threads[5:7], "a loader may be used again"
    assert np.array_equal(images.pixels[:], ManifestImages(faces).pixels), "kept images were moved, not changed"
    gc.collect()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("augment", [None, Augment()])
@pytest.mark.parametrize("how", [{"threads": 0}, {"threads": 2}, {"processes": 2}])
def test_a_batch_may_have_fewer_rows(faces: Path, augment: Augment | None, how: dict[str, int]) -> None:
    images, sizes = ManifestImages(faces), [3, 0, 7, 1]
    loader = Loader(images, lambda step: np.arange(sizes[step]), 7, 3, augment=augment, **how)
    for size, batch in zip(sizes, loader.batches(0, 4), strict=True):
        assert batch.rows.tolist() == list(range(size)) and batch.img.shape[0] == size
        alone = Loader(images, lambda step, n=size: np.arange(n), max(size, 1), 3, augment=augment)
        if size == 7:
            assert batch.nimg == 14 and torch.equal(batch.img, next(alone.batches(2)).img)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_what_is_made_ahead_comes_in_order(threads: int) -> None:
    asked: list[int] = []

    def numbers() -> Iterator[tuple[int]]:
        for number in range(9):
            assert threading.current_thread() is threading.main_thread()
            asked.append(number)
            yield (number,)

    made = prefetch(lambda number: (number, threading.current_thread() is threading.main_thread()), numbers(), threads)
    assert next(made) == (0, threads == 0)
    assert len(asked) == (threads + 2 if threads else 1), "so many are under way, and no more"
    assert [number for number, _ in made] == list(range(1, 9))


def test_some_are_made_at_once_when_the_first_is_asked_for() -> None:
    done: list[int] = []

    def make(number: int) -> int:
        done.append(number)
        return number

    made = prefetch(make, ((number,) for number in range(7)), 0, at_once=3)
    assert next(made) == 0 and done == [0, 1, 2]
    assert [next(made), next(made)] == [1, 2] and done == [0, 1, 2]
    assert list(made) == [3, 4, 5, 6] and done == list(range(7))


def test_who_stops_asking_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    made = prefetch(lambda number: number, ((number,) for number in itertools.count()), 2)
    assert next(made) == 0 and set(threading.enumerate()) > before
    made.close()
    assert set(threading.enumerate()) == before


def test_what_cannot_be_made_is_said_in_its_turn() -> None:
    made = prefetch(lambda number: 1 // number, ((number,) for number in (1, 1, 0, 1)), 2)
    assert [next(made), next(made)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)


@pytest.mark.parametrize("color", ["rgb", "grey"])
@pytest.mark.parametrize(
    ("keep_bytes", "size"), [(0, 8), (0, 2 * IMAGES_AT_ONCE + 3), (1e9, 8), (1e9, 2 * IMAGES_AT_ONCE + 3)]
)
def test_flips_and_values(tmp_path: Path, color: str, keep_bytes: float, size: int) -> None:
    images, flipped = ManifestImages(write(tmp_path, color, "JPEG"), keep_bytes=keep_bytes), 0
    before = images.pixels[:].copy()
    for batch in islice(loader_of(images, size, 0).batches(), 6):
        plain = before[batch.rows]
        upright, mirrored = to_input(plain), to_input(plain[:, :, ::-1])
        assert batch.img.is_contiguous(memory_format=torch.channels_last)
        for got, one, other in zip(batch.img, upright, mirrored, strict=True):
            assert torch.equal(got, one) != torch.equal(got, other)
            flipped += torch.equal(got, other)
    assert 0.25 < flipped / (6 * size) < 0.75  # outside with a probability below 0.001
    assert np.array_equal(images.pixels[:], before)


@pytest.mark.parametrize(
    ("how", "buffers"), [({"threads": 0}, BATCHES_AT_ONCE + 1), ({"threads": 2}, 6), ({"processes": 2}, 6)]
)
def test_a_batch_that_is_held_stays_as_it_is(faces: Path, how: dict[str, int], buffers: int) -> None:
    """And the memory of one that is not is used again."""
    loader = loader_of(ManifestImages(faces, keep_bytes=0), 8, 0, **how)
    held = [batch.img for batch in islice(loader.batches(), 20)]
    parts = [img[3, :, ::2].numpy() for img in held]
    assert len({img.data_ptr() for img in held}) == 20
    copies = [part.copy() for part in parts]
    del held
    list(zip(range(20), loader.batches(), strict=False))
    assert all(np.array_equal(part, copy) for part, copy in zip(parts, copies, strict=True))
    del parts
    assert len({batch.img.data_ptr() for batch in islice(loader.batches(), 100)}) <= buffers


def test_the_recipe_is_the_recognizers(faces: Path) -> None:
    images = ManifestImages(faces, keep_bytes=0)
    batch = next(loader_of(images, 8, 5, augment=Augment()).batches(2))
    augmented = Augmenter(Augment())(ManifestImages(faces).pixels[batch.rows], subseed("augment", 5, 16))
    assert torch.equal(batch.img, to_input(augmented))


def test_an_image_that_cannot_be_decoded_is_said_when_read(faces: Path, tmp_path: Path) -> None:
    rows = list(manifest.iterate(faces))
    rows[4]["image"]["bytes"] = rows[4]["image"]["bytes"][:40]
    manifest.write(tmp_path, rows, "test", {})
    images = ManifestImages(tmp_path, keep_bytes=0)
    assert images.pixels[0:4].shape == (4, SIZE, SIZE, 3)
    for how in ({"threads": 0}, {"threads": 2}, {"processes": 2}):
        with pytest.raises(UserError, match="cannot be decoded"):
            take(loader_of(images, 8, 0, **how), 4)


@pytest.mark.parametrize(
    ("shape", "form"), [((SIZE, SIZE + 1, 3), "PNG"), ((SIZE, SIZE, 4), "PNG"), ((SIZE, SIZE), "PNG"),
                        ((SIZE, SIZE), "JPEG")]
)  # fmt: skip
def test_an_image_of_another_shape_is_said(faces: Path, tmp_path: Path, shape: tuple[int, ...], form: str) -> None:
    rows = list(manifest.iterate(faces))
    rows[4]["image"]["bytes"] = stored_as(np.zeros(shape, np.uint8), form)
    manifest.write(tmp_path, rows, "test", {})
    with pytest.raises(UserError, match="the first is"):
        ManifestImages(tmp_path, keep_bytes=0).pixels[:]


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """4,000 images of 12 KB decoded, 48 MB: reading them all leaves little behind, where keeping them takes it all."""
    import tracemalloc

    data = [stored_as(np.full((64, 64, 3), value, np.uint8), "PNG") for value in range(8)]
    shared = {"source": "real", "dataset": "d", "split": "train", "height": 64, "width": 64}
    rows = (manifest.row(data[i % 8], identity=f"d/p{i % 50}", **shared) for i in range(4000))
    manifest.write(tmp_path, rows, "test", {})
    images = ManifestImages(tmp_path, keep_bytes=0)
    tracemalloc.start()
    before, shared_peak = shared_memory(), 0
    for _ in islice(loader_of(images, 32, 0).batches(), 125):
        shared_peak = max(shared_peak, shared_memory() - before)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24e6 and shared_peak < 12e6  # batches lie in shared memory, of which tracemalloc knows nothing


def shared_memory() -> int:
    """Bytes of shared memory that this process has in use (Linux; elsewhere 0)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssShmem"))
