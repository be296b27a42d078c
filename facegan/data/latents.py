"""The `latent` column of synthetic rows: a row's codes and its index in the padded batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

LENT = "lent"
DERIVED = "derived"
DERIVED_START = f'{{"{DERIVED}": '  # how the column begins of a row that was made from photos of train people
Packed = list[float] | dict[str, Any]
"""A code as the `latent` column has it: see `packed`."""


def latent_json(w: Packed, z: Packed, index: int, batch_size: int, lent: bool = False) -> str:
    """The `latent` column: both codes, `packed`, the index in the padded batch, and whether variation was `lent`.

    Then the last of the row's `parents` is who lent it.
    """
    position = {"index": int(index) % batch_size, "batch_size": batch_size}
    return json.dumps({"w": w, "z": z, **position, **({LENT: True} if lent else {})})


def derived_json(kind: str, **facts: Any) -> str:
    """The `latent` column of a row that was made from photos of train people by a member `kind`."""
    return json.dumps({DERIVED: kind, **facts})


def pack(code: np.ndarray) -> Packed:
    """A code as a list, or, where most is zero, the indices and values of the rest; shortest digits of float32."""
    nonzero = np.flatnonzero(code)
    kept = nonzero if 2 * len(nonzero) < len(code) else slice(None)
    values = [float(str(x)) for x in np.asarray(code, np.float32)[kept]]
    return {"length": len(code), "at": nonzero.tolist(), "value": values} if len(values) < len(code) else values


def unpack(code: Packed) -> np.ndarray:
    """The code of `packed`, (length,) float32."""
    if isinstance(code, list):
        return np.asarray(code, np.float32)
    dense = np.zeros(int(code["length"]), np.float32)
    dense[code["at"]] = code["value"]
    return dense
