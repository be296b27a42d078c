"""The `latent` column of synthetic rows: a row's codes and its place in the padded batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

Packed = list[float] | dict[str, Any]
"""A code as the `latent` column has it: see `packed`."""


def latent_json(w: Packed, z: Packed, index: int, batch_size: int) -> str:
    """The `latent` column: both codes, `packed` and the place in the padded batch."""
    place = {"index": int(index) % batch_size, "batch_size": batch_size}
    return json.dumps({"w": w, "z": z, **place})


def packed(code: np.ndarray) -> Packed:
    """A code as a list, or, where most of it is zero, by its other places; the shortest digits of each float32."""
    at = np.flatnonzero(code)
    some = [float(str(x)) for x in np.asarray(code, np.float32)[at if 2 * len(at) < len(code) else slice(None)]]
    return {"length": len(code), "at": at.tolist(), "value": some} if len(some) < len(code) else some


def unpacked(code: Packed) -> np.ndarray:
    """The code of `packed`, (length,) float32."""
    if isinstance(code, list):
        return np.asarray(code, np.float32)
    whole = np.zeros(int(code["length"]), np.float32)
    whole[code["at"]] = code["value"]
    return whole
