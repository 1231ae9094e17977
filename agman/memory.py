"""Memory that tensors free, kept for the next ones."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from typing import Any

# As in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

_blocks, _lock = 0, threading.Lock()


@contextlib.contextmanager
def keep_memory() -> Iterator[None]:
    """Hold on to the memory that tensors free, for the next ones, until the block ends.

    glibc gives large blocks back to the system at once, and the system has to fill every page
    with zeros before the next tensor gets it. On a CPU that can be a third of the time in which a
    ResNet-50 embeds (`python -m tests.benchmarks.bench choice`). The price is a higher peak, as
    pieces are kept that fit nothing. Elsewhere than on Linux with glibc this changes nothing.

    Blocks may be nested and run in several threads: the last one to end gives the memory back.
    """
    _count(+1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    """One block more or less; the first one changes what glibc does, the last changes it back."""
    global _blocks
    with _lock:
        outermost = 0 in (_blocks, _blocks + change)
        _blocks += change
        libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
        if not outermost or not hasattr(libc, "mallopt"):
            return
        if change > 0:
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, -1)  # never
        else:  # what glibc arrives at by itself
            libc.mallopt(_MMAP_MAX, 2**16)
            libc.mallopt(_MMAP_THRESHOLD, 2**25)
            libc.mallopt(_TRIM_THRESHOLD, 2**26)
            libc.malloc_trim(0)
