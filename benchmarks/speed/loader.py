"""How fast does the loader of both training loops read, beside torchvision, webdataset and Hugging Face datasets?

The same images of an import (`facegan import lfw:ZIP --out DIR`), batches of 64, shuffled, two workers each, warm
cache; all take turns, and medians of the rounds are told, by the clock and in processor time of all threads and
processes, from the first batch to the last: what starts workers is in neither. A peer that is not installed is left
out, and the table says so (`pip install webdataset datasets`).

    python benchmarks/speed/loader.py MANIFEST
    python benchmarks/speed/loader.py MANIFEST --images 12800 --rounds 5 --workers 2
    python benchmarks/speed/loader.py MANIFEST --only bare "flip: facegan"      # what takes seconds
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import io
import itertools
import multiprocessing
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.recognition.augment import Augmenter
from facegan.recognition.augment_options import Augment
from facegan.recognition.loader import IMAGES_AT_ONCE, Loader, into
from facegan.training.loop import Sampler

BATCH = 64
FLIP = transforms.Compose(
    [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
)
BARE = "bare decoding (OpenCV), {} thread{}"
IN_PROCESSES = "{}: facegan, stored, {} processes"
Pass = Callable[[], Iterable[Any]]  # one pass over all images, a batch at a time


class Faces:
    """The first images of a manifest, as a manifest, in folders of people, and in tar shards below `root`."""

    def __init__(self, path: Path, root: Path, images: int) -> None:
        rows = [row for _, row in zip(range(images // BATCH * BATCH), manifest.iterate(path), strict=False)]
        self.bytes = [row["image"]["bytes"] for row in rows]
        self.root, self.people = root, sorted({row["identity"] for row in rows})
        manifest.write(root / "ours", rows, "benchmark", {})
        (root / "tar").mkdir()
        for shard in range(8):
            with tarfile.open(root / "tar" / f"{shard}.tar", "w") as tar:
                for number in range(shard, len(rows), 8):
                    row = rows[number]
                    folder = root / "folder" / row["identity"].split("/")[-1]
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{number:06d}.jpg").write_bytes(row["image"]["bytes"])
                    label = str(self.people.index(row["identity"])).encode()
                    for ending, data in (("jpg", row["image"]["bytes"]), ("cls", label)):
                        info = tarfile.TarInfo(f"{number:06d}.{ending}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))


def data_loader(data: Any, workers: int, shuffle: bool = True) -> DataLoader[Any]:
    """PyTorch's own, with as many processes; they are forked, which was seen to hang once: an error after a minute."""
    return DataLoader(data, BATCH, shuffle=shuffle, num_workers=workers, drop_last=False, timeout=60)


def web(faces: Faces, workers: int) -> Pass:
    """webdataset, as its documentation shows it."""
    import webdataset as wds

    shards = [str(path) for path in sorted((faces.root / "tar").iterdir())]

    def once() -> Iterable[Any]:
        data = wds.WebDataset(shards, shardshuffle=8).shuffle(1000).decode("pil").to_tuple("jpg", "cls")
        return data_loader(data.map_tuple(FLIP, int), workers, shuffle=False)

    return once


def hugging_face(faces: Faces, workers: int) -> Pass:
    """Hugging Face datasets over the same Parquet files, memory-mapped, with a transform when read."""
    import datasets

    datasets.disable_progress_bars()
    files = [str(path) for path in manifest.parts(faces.root / "ours")]
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=str(faces.root / "cache"), split="train")
    data = data.select_columns(["image", "identity"])
    data.set_transform(lambda rows: {"image": [FLIP(i) for i in rows["image"]], "identity": rows["identity"]})
    return lambda: data_loader(data, workers)


class Plain(Dataset[Any]):
    """The recipe of `facegan.recognition.augment` as one writes it: Pillow decodes, albumentations augments each."""

    def __init__(self, faces: Faces) -> None:
        self.samples = ImageFolder(str(faces.root / "folder")).samples
        self.compose = Augmenter(Augment()).transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[place]
        pixels = self.compose(image=np.array(Image.open(path).convert("RGB")))["image"]
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1, label


def loader_of(images: ManifestImages, **options: Any) -> Loader:
    """Batches in shuffled epochs, as a training reads them."""
    sampler = Sampler(len(images), 0)
    return Loader(images, lambda step: sampler.batch(step * BATCH, BATCH), BATCH, 0, **options)


def ours(
    faces: Faces, workers: int, augment: Augment | None = None, keep_bytes: float = 0, processes: bool = False
) -> Pass:
    """The loader, over encoded images unless they may be kept decoded; workers are threads or processes, and stay."""
    images = ManifestImages(faces.root / "ours", keep_bytes=keep_bytes)
    kind = {"processes" if processes else "threads": workers}
    batches = loader_of(images, augment=augment, **kind).batches()

    def once() -> Iterator[Any]:
        for _ in range(2 * workers + 2):  # made while others had their turn
            next(batches)
        yield from itertools.islice(batches, len(images) // BATCH)

    return once


def bare(faces: Faces, threads: int) -> Pass:
    """imdecode and no more, of bytes in memory."""
    encoded = [np.frombuffer(data, np.uint8) for data in faces.bytes]
    chunks = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]

    def decode(chunk: list[np.ndarray]) -> None:
        for data in chunk:
            cv2.imdecode(data, cv2.IMREAD_COLOR)

    def once() -> Iterator[Any]:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(decode, chunks)

    return once


def used() -> float:
    """Processor time of this process, its ended children, and those that work, s (Linux: clock_getcpuclockid(3))."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    at_work = [~child.pid << 3 | 2 for child in multiprocessing.active_children() if child.pid is not None]
    return sum(u.ru_utime + u.ru_stime for u in each) + sum(map(time.clock_gettime, at_work))


def timed(once: Pass, images: int) -> tuple[float, float]:
    """From the first batch to the last: images/s by the clock, and processor time of an image, us."""
    came: list[float] = []
    for _ in once():
        if not came:
            start = used()
        came.append(time.perf_counter())
        if len(came) == images // BATCH:
            spent = used() - start
    assert len(came) == images // BATCH
    return (images - BATCH) / (came[-1] - came[0]), spent / (images - BATCH) * 1e6


def parts(faces: Faces, images: int = 1280) -> dict[str, float]:
    """us an image of what the loader does with it, on one thread, the best of ten."""
    stored = ManifestImages(faces.root / "ours", keep_bytes=0)
    fill, pixels = loader_of(stored).filler(), np.asarray(stored.pixels[:BATCH])
    encoded = [np.frombuffer(data, np.uint8) for data in faces.bytes[:images]]
    room, values = np.empty_like(pixels[0]), np.empty(pixels.shape, np.float32)
    rows, flipped, batches = np.arange(BATCH), np.arange(BATCH) % 2 == 0, range(len(encoded) // BATCH)
    jobs: dict[str, Callable[[], object]] = {
        "decoding": lambda: [cv2.imdecode(data, cv2.IMREAD_COLOR) is None for data in encoded],
        "mirroring": lambda: [cv2.flip(image, 1, dst=room) is None for _ in batches for image in pixels],
        "normalising": lambda: [
            into(pixels[at : at + IMAGES_AT_ONCE], values[at : at + IMAGES_AT_ONCE])
            for _ in batches
            for at in range(0, BATCH, IMAGES_AT_ONCE)
        ],
        "the loader, half of them mirrored": lambda: [
            fill.read(rows + batch * BATCH, flipped, values) for batch in batches
        ],
    }
    best: dict[str, float] = {}
    for name, job in jobs.items():
        for _ in range(10):
            start = time.process_time()
            job()
            spent = (time.process_time() - start) / (len(batches) * BATCH) * 1e6
            best[name] = min(spent, best.get(name, spent))
    return best


def contenders(faces: Faces, workers: int) -> tuple[dict[str, Pass], list[str]]:
    """{name: a pass} and the peers that are not installed."""
    plain, missing = Plain(faces), []
    found: dict[str, Pass] = {
        BARE.format(1, ""): bare(faces, 1),
        BARE.format(workers, "s"): bare(faces, workers),
        "flip: facegan, stored": ours(faces, workers),
        IN_PROCESSES.format("flip", workers): ours(faces, workers, processes=True),
        "flip: facegan, kept decoded": ours(faces, workers, keep_bytes=float("inf")),
        "flip: torchvision ImageFolder": lambda: data_loader(ImageFolder(str(faces.root / "folder"), FLIP), workers),
    }
    for name, make in (("webdataset", web), ("datasets", hugging_face)):
        try:
            found[f"flip: {name}"] = make(faces, workers)
        except ImportError:
            missing.append(name)
    found["recipe: facegan, stored"] = ours(faces, workers, Augment())
    found[IN_PROCESSES.format("recipe", workers)] = ours(faces, workers, Augment(), processes=True)
    found["recipe: plain Dataset"] = lambda: data_loader(plain, workers)
    return found, missing


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], help="what begins so; the bound is always measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        faces = Faces(options.manifest, Path(root), options.images)
        alone = parts(faces)
        passes, missing = contenders(faces, options.workers)
        wanted = (BARE.format(options.workers, "s"), *options.only)
        passes = {name: once for name, once in passes.items() if name.startswith(wanted)}
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
        for number in range(options.rounds + 1):
            for name, once in passes.items():
                result = timed(once, len(faces.bytes))
                if number:  # the first warms up
                    rounds[name].append(result)
    rates = {name: [statistics.median(values) for values in zip(*found, strict=True)] for name, found in rounds.items()}
    bound = rates[BARE.format(options.workers, "s")]
    print(f"{len(faces.bytes)} images, {options.rounds} rounds, load average {os.getloadavg()[0]:.1f}")
    print("\n| | images/s | against the bound | processor us an image | bound's against it |\n|---|--:|--:|--:|--:|")
    for name, (rate, spent) in rates.items():
        print(f"| {name} | {rate:,.0f} | {rate / bound[0]:.2f} | {spent:.0f} | {bound[1] / spent:.2f} |")
    for name in missing:
        if f"flip: {name}".startswith(wanted):
            print(f"| flip: {name} | not installed | | | |")
    print("\n| one thread, an image | us |\n|---|--:|")
    for name, spent in alone.items():
        print(f"| {name} | {spent:.1f} |")


if __name__ == "__main__":
    main()
