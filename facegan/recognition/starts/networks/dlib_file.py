"""dlib's serialization, as much of it as its face recognition network needs: a small reader, no pickle.

An integer is a control byte (the low four bits: how many bytes follow; bit 7: negative) and that many bytes,
little-endian. A string is its length and its bytes. A tensor is a version (2), its four sizes as integers
(num_samples, k, nr, nc), and float32, little-endian. Source: dlib/serialize.h and dlib/cuda/tensor.h of dlib
(Boost Software License), which this follows and does not copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TENSOR_VERSION = 2
LARGEST = 50_000_000  # numbers in one tensor: more is no weight of such a network but a broken file


@dataclass
class DlibFileReader:
    """Reads forward through the bytes of a .dat file; raises ValueError where they do not fit."""

    data: bytes
    offset: int = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if self.offset + count > len(self.data):
            raise ValueError(f"the file ends at byte {len(self.data)}, within a value that begins at {self.offset}")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def integer(self) -> int:
        """One signed integer of at most eight bytes."""
        control = self.take(1)[0]
        count = control & 0x0F
        if not 1 <= count <= 8 or control & 0x70:
            raise ValueError(f"no integer at byte {self.offset - 1} (control byte {control:#04x})")
        value = int.from_bytes(self.take(count), "little")
        return -value if control & 0x80 else value

    def string(self) -> str:
        """One string of ASCII."""
        return self.take(self.integer()).decode("ascii")

    def tensor(self) -> np.ndarray:
        """One tensor (num_samples, k, nr, nc) float32."""
        if (version := self.integer()) != TENSOR_VERSION:
            raise ValueError(f"a tensor of version {version} at byte {self.offset}, expected {TENSOR_VERSION}")
        shape = tuple(self.integer() for _ in range(4))
        if min(shape) < 0 or math.prod(shape) > LARGEST:
            raise ValueError(f"a tensor of absurd shape {shape} at byte {self.offset}")
        return np.frombuffer(self.take(4 * math.prod(shape)), "<f4").reshape(shape)

    def next_string(self, text: str) -> None:
        """Go to just behind the next string `text`, the name of a layer; what lies before it is passed over."""
        start = self.data.find(bytes([1, len(text)]) + text.encode("ascii"), self.offset)
        if start < 0:
            raise ValueError(f"no '{text}' behind byte {self.offset}")
        self.offset = start
        self.string()
