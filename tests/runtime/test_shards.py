"""Shards: results in order, stored ones reused, incomplete ones made again, and how many attempts begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backwards_engine import Backwards
from facegan.runtime.shards import ShardQueue, Span, attempts_to_begin


def double(number: int) -> bytes:
    return str(2 * number).encode()


def spans(count: int, kind: str = "x") -> Callable[[], tuple[Span, tuple[Any, ...]] | None]:
    numbers = iter(range(count))

    def plan() -> tuple[Span, tuple[Any, ...]] | None:
        number = next(numbers, None)
        return None if number is None else (Span(kind, number, number + 1), (number,))

    return plan


def test_shards_come_in_order(tmp_path: Path) -> None:
    engine = Backwards()
    shards = list(ShardQueue(tmp_path / "a", engine, double, bytes.isdigit).run(spans(100)))
    assert [span.start for span, _ in shards] == list(range(100))
    assert [data for _, data in shards] == [double(number) for number in range(100)]
    assert engine.finished != sorted(engine.finished) and len(engine.finished) == 100


def test_what_is_stored_is_not_worked_on_again(tmp_path: Path) -> None:
    (tmp_path / "of-another-digest").mkdir()
    list(ShardQueue(tmp_path / "a", Backwards(), double, bytes.isdigit).run(spans(20)))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    for index, content in ((3, b""), (0, b"half of it"), (19, None)):
        path = tmp_path / "a" / Span("x", index, index + 1).name
        path.unlink() if content is None else path.write_bytes(content)
    engine = Backwards()
    queue = ShardQueue(tmp_path / "a", engine, double, bytes.isdigit)
    assert len(queue.stored) == 19
    assert [data for _, data in queue.run(spans(20))] == [double(index) for index in range(20)]
    assert sorted(engine.finished) == [Span("x", index, index + 1).name for index in (0, 3, 19)]


def test_a_span_ends_where_a_stored_one_does(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for span in (Span("x", 0, 7), Span("x", 20, 22), Span("y", 9, 10)):
        (tmp_path / "a" / span.name).write_bytes(b"1")
    (tmp_path / "a" / ".x-000000030-000000040.tmp").write_bytes(b"1")  # of a write that was stopped
    queue = ShardQueue(tmp_path / "a", Backwards(), double, bytes.isdigit)
    assert [queue.stop("x", start, stop) for start, stop in ((0, 100), (7, 12), (7, 100), (20, 21), (22, 90))] == [
        7, 12, 20, 22, 90,
    ]  # fmt: skip


def test_no_attempt_too_many_by_one_worker() -> None:
    assert [attempts_to_begin(10, unknown, 0.1, 1, 4) for unknown in (0, 7, 10)] == [4, 3, 0]
    assert attempts_to_begin(0, 0, 0.5, 1, 4) == attempts_to_begin(0, 0, 0.5, 8, 4) == 0
    assert (
        attempts_to_begin(10, 0, 0.5, 2, 50) == 10
        and attempts_to_begin(10, 10, 0.5, 2, 50) == 10
        and attempts_to_begin(10, 20, 0.5, 2, 50) == 0
    )
    assert attempts_to_begin(10, 0, 0.5, 2, 4) == 4 and attempts_to_begin(10, 18, 0.5, 2, 50) == 2
