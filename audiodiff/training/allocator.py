"""Memory that is freed stays with the process, where glibc would give it back and fault every page in again.

A training on a CPU allocates the same large tensors at every update. By default glibc maps each anew and unmaps it when
it is freed, and the system clears its pages every time: a fifth to a third of the time of short computations on large
tensors, such as a mel of a batch (see docs/data.md).
"""

from __future__ import annotations

import ctypes

# <malloc.h>: blocks that may be mapped apart; free bytes at the top of the heap from which on they are given back.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> bool:
    """Tells the C library to keep what is freed, for the rest of this process; returns whether it understood.

    The process then holds the most that it ever needed. Other allocators (jemalloc, macOS, musl) are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
