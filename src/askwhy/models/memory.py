"""Freed memory is kept while a model is asked over and over, instead of being given back and fetched anew page by page."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WORTH_IT = 48  # model calls from which on it pays
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
HIGHEST = 32 * 2**20  # glibc raises its mmap threshold by itself up to here, the trim threshold to twice that


@contextmanager
def steady_memory(calls: int) -> Iterator[None]:
    """Inside the block glibc keeps freed blocks of any size; after it, they are given back and its limits are the usual ones."""
    libc = ctypes.CDLL(None) if calls >= WORTH_IT and sys.platform == "linux" and "torch" in sys.modules else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):  # another C library than glibc
        yield
        return
    _enter(libc)
    try:
        yield
    finally:
        _leave(libc)


_lock, _depth = threading.Lock(), 0  # the limits are those of the whole process: the last block to end resets them


def _enter(libc: ctypes.CDLL) -> None:
    global _depth
    with _lock:
        _depth += 1
        libc.mallopt(MMAP_THRESHOLD, 2**30)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def _leave(libc: ctypes.CDLL) -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            libc.mallopt(MMAP_THRESHOLD, HIGHEST)
            libc.mallopt(TRIM_THRESHOLD, 2 * HIGHEST)
            libc.malloc_trim(0)
