"""How the C library hands out memory while networks train."""

from __future__ import annotations

import ctypes

TRIM, MMAP = -1, -3  # names of glibc's mallopt
KEPT = 2**30  # bytes of freed memory that wait for their next use
SINGLE = 2**28  # bytes from which a block is asked of the system, and given back, by itself


def keep_freed_memory() -> None:
    """Let freed memory serve the next step, up to a limit, instead of going back to the system each time.

    glibc returns every large block at once, and the system then fills new pages with zeros in each step: a quarter of
    a U-Net's training step on two CPU cores. Without glibc, or under another allocator, nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl; Windows has no CDLL(None)
        return
    mallopt(TRIM, KEPT)
    mallopt(MMAP, SINGLE)
