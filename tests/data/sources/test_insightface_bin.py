"""insightface's .bin of pairs: a pickle that is read and never run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formats
from facegan.core.errors import UserError
from facegan.data.sources import SOURCES, _pickled
from facegan.data.sources.insightface_bin import read_pairs


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pairs_of_a_bin(faces: Path, tmp_path: Path, protocol: int) -> None:
    path = formats.write_bin(faces, tmp_path / "lfw.bin", protocol)
    expected, answers = pickle.loads(path.read_bytes())  # our own file
    images, same = read_pairs(path)
    assert same == answers and sum(same) == 32
    rows = list(SOURCES.get("insightface-bin")(root=str(path)).rows())
    assert [row.read() for row in rows] == expected and len(images) == len(rows) == 80
    # People are joined by genuine pairs and by equal bytes: here that is everybody's own photos, and no one else's.
    identities_of = {data: {row.identity for row in rows if row.read() == data} for data in expected}
    assert len({frozenset(names) for names in identities_of.values()}) == 8
    folders = {data: person for person, _, data in formats.listed(faces)}
    assert all(
        len({folders[d] for d in identities_of if identities_of[d] == names}) == 1 for names in identities_of.values()
    )


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_bytes_in_a_bin(faces: Path, tmp_path: Path, protocol: int) -> None:
    path = formats.write_bin(faces, tmp_path / "a.bin", protocol, lambda data: np.frombuffer(data, np.uint8).copy())
    plain = formats.write_bin(faces, tmp_path / "b.bin")
    read = [[row.read() for row in SOURCES.get("insightface-bin")(root=str(p)).rows()] for p in (path, plain)]
    assert read[0] == read[1]
    path.write_bytes(pickle.dumps(([np.zeros(3, np.float32)] * 2, [True]), protocol=protocol))
    with pytest.raises(UserError, match="no flat array of bytes"):
        read_pairs(path)


class Evil:
    """Would leave a file behind if anything called it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path, protocol: int) -> None:
    path, trap = tmp_path / "evil.bin", tmp_path / "trap"
    for value in ([[Evil(trap)], [True]], Evil(trap), [[b"1", b"2"], Evil(trap)]):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        with pytest.raises(UserError, match=r"would import|more than plain data|where an image"):
            read_pairs(path)
    for text in (b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR.", b"cnumpy\nndarray\n(tR.", b"(lp0\ng0\na."):
        path.write_bytes(text)
        with pytest.raises(UserError, match="no insightface"):
            read_pairs(path)
    assert not trap.exists()


def test_pickles_that_ask_for_memory_are_refused_at_once(tmp_path: Path) -> None:
    """Lengths beyond the file, a memo of 2^32 places, lists that hold each other many times over."""
    path = tmp_path / "bomb.bin"
    nested = b"\x80\x04]\x94(" + b"]\x94" * 1 + b"h\x00" * 50_000 + b"e](" + b"h\x00" * 50_000 + b"e\x86."
    for data in (
        b"\x80\x04B\xff\xff\xff\xff.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x02]r\xff\xff\xff\xff.",
        nested,
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match="no insightface"):
            read_pairs(path)
    path.write_bytes(b"\x80\x02(" + b"(" * 100_000)
    with pytest.raises(ValueError):
        _pickled.read(path)
