"""Settings of the C library's allocator for processes that train or compute convolutions.

glibc returns every large block to the system when it is freed, and the next one of its size
costs a page fault for every 4 kB. Training needs the same blocks in every step, so it is
faster to keep them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@lru_cache
def keep_memory() -> None:
    """Let this process keep what it frees; without glibc, nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # never
    mallopt(M_TOP_PAD, 1 << 26)
