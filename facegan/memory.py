"""How a process holds memory: work that makes the same large arrays again and again fares better if it keeps it."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
KEPT, WHOLE = 2**31 - 1, 2**28  # bytes: the largest that it takes; 256 MB


def keep_freed() -> None:
    """Let this process keep the memory that it frees, up to 2 GB, until it ends; arrays above 256 MB are handed back.

    Each page that the system hands out is zeroed and mapped at its first touch. Activations come and go with every
    step, so that a twentieth of a training's time goes there. Values do not change, nor does the most that is held.
    Does nothing where malloc is not that of the GNU C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, WHOLE)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)
