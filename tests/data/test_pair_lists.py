"""Lists of pairs: files that are not such lists are refused, and none of them runs code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facegan.core.errors import UserError
from facegan.data.pair_lists import read_pairs


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


@pytest.mark.parametrize("held", [Evil(), ([b"a"], [True]), ([b"a", 1], [True]), ([b"a", b"b"], [7]), b"x"])
def test_a_bin_runs_nothing(held: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(pickle.dumps(held))
    with pytest.raises(UserError, match="insightface"):
        read_pairs(tmp_path / "x.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.txt", "2\t1\nA\t1\t2\nA\t1\tB\t1\n", "not a count N and 2 N pairs"),
        ("p.txt", "1\nA\t1\t2\nA\t1\tB\tx\n", "line 3: expected 4 fields"),
        ("p.txt", "x\n", "not a count N"),
        ("p.csv", "first,same\na,1\n", "has no column second"),
        ("p.csv", "first,second,same\na,b,perhaps\n", "pair 1: expected two paths and 1 or 0"),
        ("p.csv", "first,second,same,fold\na,b,1,\n", "some pairs have no fold"),
        ("p.csv", "first,second,same\n", "no column|lists no pair"),
        ("p.parquet", "no parquet", "cannot be read"),
        ("p.json", "[]", "no list of pairs in a known form"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_pairs(tmp_path / name)
    assert "Traceback" not in str(error.value)


def test_wrong_types_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"first": [1], "second": [2.0], "same": [True]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="expected two paths"):
        read_pairs(tmp_path / "p.parquet")
