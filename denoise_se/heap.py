"""How the C library's heap treats memory that is freed: `man 3 mallopt`."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's parameters in glibc's malloc.h
LARGEST = 2**31 - 1  # of mallopt's values
LARGEST_MMAP_THRESHOLDS = 2**30, 2**25  # the latter where a version of glibc refuses more


def keep_freed_memory() -> None:
    """From here on this process keeps what it frees for its next allocations; nothing happens without glibc.

    By default glibc gives large blocks back to the system at once. A training step allocates all activations anew, and
    the system hands out each of their pages zeroed, one page fault for 4 kB: a fifth of the step's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        any(mallopt(MMAP_THRESHOLD, size) for size in LARGEST_MMAP_THRESHOLDS)
        mallopt(TRIM_THRESHOLD, LARGEST)
