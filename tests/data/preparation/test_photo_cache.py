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
        cache = PhotoCache(None, print)
        cache.folder = folder
        cache.add(str(number), PreparedPhoto(png=bytes(20_000)))
        together.wait(60)
        cache.flush()


def test_two_preparations_may_write_the_same_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    processes = [context.Process(target=keep, args=(tmp_path, together)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    messages: list[str] = []
    cache = PhotoCache(tmp_path, messages.append)
    assert not messages and {path.suffix for path in tmp_path.iterdir()} == {".parquet"}
    assert all(cache.find(str(number)) == PreparedPhoto(png=bytes(20_000)) for number in range(ROUNDS))
