"""What is kept of decoded photos: several preparations may write the same at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

from facegan.data.preparation.photo_cache import PhotoCache, PreparedPhoto

ROUNDS = 150


def keep(folder: Path, together: Barrier) -> None:
    """Write a file a round, with the same content and at the same moment as the other process."""
    for number in range(ROUNDS):
        decoded = PhotoCache(None, print)
        decoded.folder = folder
        decoded.add(str(number), PreparedPhoto(png=bytes(20_000)))
        together.wait(60)
        decoded.flush()


def test_two_preparations_may_write_the_same_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    both = [context.Process(target=keep, args=(tmp_path, together)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    said: list[str] = []
    found = PhotoCache(tmp_path, said.append)
    assert not said and {path.suffix for path in tmp_path.iterdir()} == {".parquet"}
    assert all(found.find(str(number)) == PreparedPhoto(png=bytes(20_000)) for number in range(ROUNDS))
