"""Seeds from names: no state, and no torch."""

from __future__ import annotations

import hashlib


def subseed(*parts: object) -> int:
    """A 63-bit seed from sha256 of the parts: the same everywhere, independent for different parts."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
