"""dlib's file format on hand-made streams."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from facegan.recognition.starts.networks.dlib_file import DlibFileReader
from onnx_networks import number, tensor


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
