"""YuNet: its file is checked, and what it finds is given in px of the photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facegan.core.errors import UserError
from facegan.data.detectors import DETECTORS


def test_yunets_file_is_named_and_checked(tmp_path: Path) -> None:
    yunet = DETECTORS.get("yunet")
    with pytest.raises(UserError, match="not there"):
        yunet(path=str(tmp_path / "none.onnx")).fingerprint()
    (tmp_path / "net.onnx").write_bytes(b"no network")
    assert set(yunet(path=str(tmp_path / "net.onnx")).fingerprint()) == {"detector"}
    with pytest.raises(UserError, match="no network that OpenCV can run"):
        yunet(path=str(tmp_path / "net.onnx")).load()
    with pytest.raises(UserError, match="expected 0000"):
        yunet(path=str(tmp_path / "net.onnx"), sha256="0" * 64).load()


# A network of YuNet's form, made by hand: it finds bright squares of 8 x 8 px, with a known place for each point.


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def tensor(name: str, values: NDArray[Any]) -> bytes:
    dims = b"".join(field(1, side) for side in values.shape)
    return dims + field(2, 1 if values.dtype == np.float32 else 7) + field(8, name) + field(9, values.tobytes())


def node(kind: str, inputs: list[str], output: str, **ints: list[int]) -> bytes:
    attributes = b"".join(
        field(5, field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7)) for name, values in ints.items()
    )
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + attributes


def bright_square_network(points: NDArray[np.float32]) -> bytes:
    """ONNX bytes; points (10,): where the landmarks lie in a cell of 8 px, in cells."""
    nodes, weights, outputs = [], [], []
    for stride in (8, 16, 32):
        pool = f"pool_{stride}"
        nodes.append(node("AveragePool", ["input"], pool, kernel_shape=[stride] * 2, strides=[stride] * 2))
        for name, width, bias in (("cls", 1, [0]), ("obj", 1, [0]), ("bbox", 4, [0.5, 0.5, 0, 0]), ("kps", 10, points)):
            output = f"{name}_{stride}"
            score = 1 / 765 if width == 1 and stride == 8 else 0.0
            weights.append(tensor(f"w_{output}", np.full((width, 3, 1, 1), score, np.float32)))
            weights.append(tensor(f"b_{output}", np.array(bias, np.float32)))
            weights.append(tensor(f"s_{output}", np.array([1, -1, width], np.int64)))
            nodes.append(node("Conv", [pool, f"w_{output}", f"b_{output}"], f"c_{output}"))
            nodes.append(node("Transpose", [f"c_{output}"], f"t_{output}", perm=[0, 2, 3, 1]))
            nodes.append(node("Reshape", [f"t_{output}", f"s_{output}"], output))
            outputs.append(output)

    def described(name: str, *sides: int | str) -> bytes:
        shape = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in sides)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    graph_ = b"".join(field(1, item) for item in nodes) + field(2, "g") + b"".join(field(5, w) for w in weights)
    graph_ += field(11, described("input", 1, 3, "height", "width"))
    outputs.sort(key=lambda name: ("cls", "obj", "bbox", "kps").index(name.split("_")[0]))
    graph_ += b"".join(field(12, described(name, 1, "n", "k")) for name in outputs)
    return field(1, 8) + field(7, graph_) + field(8, field(1, "") + field(2, 13))


def test_yunets_answer_is_brought_back_to_the_photo(tmp_path: Path) -> None:
    """Searched at half its size, a square at (32, 16) to (48, 32) of the photo fills the cell (2, 1) of 8 px."""
    points = np.linspace(0.1, 1.0, 10, dtype=np.float32)
    (tmp_path / "net.onnx").write_bytes(bright_square_network(points))
    photo = np.zeros((100, 200, 3), np.uint8)
    detect = DETECTORS.get("yunet")(path=str(tmp_path / "net.onnx"), max_side_px=100).load()
    assert detect(photo, None) == []
    photo[16:32, 32:48] = 255
    photo[64:80, 160:176] = 255
    first, second = detect(photo, None)
    assert first.box == pytest.approx((32.5 - 1, 16.5 - 1, 47.5 + 1, 31.5 + 1), abs=1.01)
    expected = ((points.reshape(5, 2) + np.array([2, 1])) * 8 + 0.5) * 2 - 0.5
    assert np.allclose(first.five, expected, atol=1e-3) and first.points is first.five
    assert np.allclose(second.five - first.five, (128, 48), atol=1e-3)
