"""From sources of any kind to one manifest, without encoding an image anew: `facegan import`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.core.files import new_folder, user_path, write_atomic
from facegan.data import manifest
from facegan.data.images import BadImage, decode, encode_png, to_eight_bits
from facegan.data.preparation import quarantine
from facegan.data.sources import SourceConfig, SourceImage

STORED = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # how a JPEG and a PNG begin
GREY = ("1", "L", "LA", "I", "F")
IN_FLIGHT_BYTES, IN_FLIGHT = 64_000_000, 256


@dataclass
class Imported:
    """The result of an import: images kept, the quarantine, counts for its summary, and what the sources remark.

    `left_out` counts what the sources passed over, `taken` says in lines what was taken for what.
    """

    images: int = 0
    encoded: int = 0
    bad: list[dict[str, str]] = field(default_factory=list)
    people: set[str] = field(default_factory=set)
    licenses: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    taken: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For `summary.json`: images, how many of them had to be encoded as PNG, identities, licences."""
        return {
            "images": self.images,
            "encoded_as_png": self.encoded,
            "identities": len(self.people),
            "quarantined": len(self.bad),
            "left_out": dict(sorted(self.left_out.items())),
            "licenses": dict(sorted(self.licenses.items())),
        }


def import_(
    sources: Sequence[SourceConfig],
    out: Path,
    max_megapixels: float = 100,
    threads: int = 2,
    progress: Callable[[Imported], None] = lambda _: None,
) -> Imported:
    """Write the images of all sources to `out`: `manifest/`, `quarantine.parquet`, `summary.json`.

    A JPEG or PNG that decodes is stored as it is; another format as PNG of the same pixels, 8 bits a channel. `split`
    is "unassigned" for prepare to decide, or "test" where the source's own protocol says so. Memory is bounded by
    a part of the manifest. Raises UserError when `out` holds something, a source cannot be read, or not one image
    can be used.
    """
    result = Imported()
    with new_folder(user_path(out).absolute()) as folder:
        manifest.write(folder, _rows(sources, result, max_megapixels, threads, progress), "import", {}, fingerprint="")
        for source in sources:
            result.taken += source.notes.lines()
            result.left_out.update({several: count for (_, several), count in source.notes.left_out.items()})
        if not result.images:
            reasons = Counter(item["reason"] for item in result.bad).most_common(3)
            listing = "; ".join(f"{count} x {reason}" for reason, count in reasons)
            raise UserError(f"not one image can be used ({listing})"[:1000], fix="give a source of images that decode")
        quarantine.write(folder, result.bad)
        write_atomic(folder / "summary.json", json.dumps(result.summary(), indent=1).encode())
    return result


def _rows(
    sources: Sequence[SourceConfig],
    result: Imported,
    max_megapixels: float,
    threads: int,
    progress: Callable[[Imported], None],
) -> Iterator[dict[str, Any]]:
    """Manifest rows in the order of the sources; what fails goes to `done.bad` with the reason."""
    images = (item for source in sources for item in source.rows())
    for item, get_stored in _check_in_threads(images, max_megapixels, threads):
        result.remarks.update(item.remarks)
        try:
            data, digest, width, height, encoded = get_stored()
        except (BadImage, OSError) as error:
            result.bad.append({"file": item.relative, "identity": item.identity, "reason": quarantine.reason(error)})
        else:
            result.images += 1
            result.encoded += encoded
            result.people.add(item.identity)
            result.licenses[item.license or "none given"] += 1
            yield manifest.row(
                data,
                item.relative,
                source_sha256=item.source_sha256 or digest,
                identity=item.identity,
                source="real",
                dataset=item.identity.split("/")[0],
                split="test" if item.side == "test" else manifest.UNASSIGNED,
                height=height,
                width=width,
                landmarks=item.landmarks,
                group=item.group,
                license=item.license,
            )
        progress(result)


StoredImage = tuple[bytes, str, int, int, bool]
"""(bytes to store, sha256 of the source's bytes, width, height as a viewer shows it, whether encoded as PNG)."""


def _check_in_threads(
    images: Iterator[SourceImage], max_megapixels: float, threads: int
) -> Iterator[tuple[SourceImage, Callable[[], StoredImage]]]:
    """Each image with a function that returns its StoredImage, or raises BadImage or OSError.

    One thread reads, the others hash and decode; at most 256 images and 64 MB, or one larger image, wait between them.
    """
    queue: deque[tuple[SourceImage, Future[StoredImage], int]] = deque()
    held_bytes = 0
    with ThreadPoolExecutor(threads) as pool:
        for item in images:
            try:
                data = item.read()
            except OSError as error:
                failed: Future[StoredImage] = Future()
                failed.set_exception(error)
                queue.append((item, failed, 0))
                continue
            while len(queue) >= IN_FLIGHT or (queue and held_bytes + len(data) > IN_FLIGHT_BYTES):
                first, future, size = queue.popleft()
                held_bytes -= size
                yield first, future.result
            held_bytes += len(data)
            queue.append((item, pool.submit(check, data, max_megapixels), len(data)))
        for item, future, _ in queue:
            yield item, future.result


def check(data: bytes, max_megapixels: float = 100) -> StoredImage:
    """(bytes to store, sha256 of `data`, width, height as a viewer shows it, whether encoded); raises BadImage."""
    photo = decode(data, max_megapixels)
    width, height = photo.size
    digest = hashlib.sha256(data).hexdigest()
    if data.startswith(STORED):
        return data, digest, width, height, False
    grey = photo.mode in GREY or photo.mode.startswith("I;16")
    pixels = np.asarray(to_eight_bits(photo, "grey" if grey else "rgb"))
    return encode_png(pixels), digest, width, height, True
