"""Memory that stays while many batches pass through a model."""

from __future__ import annotations

import itertools
import math
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

BLOCK = 31 * 2**20  # below the 32 MB from which on glibc asks the system for fresh pages each time
ROOM = 24  # blocks


@contextmanager
def resident() -> Iterator[None]:
    """Inside the block, large results are written to the same pages again and again.

    glibc gives the end of its heap back as soon as it is free, so each batch would fault in thousands of pages anew:
    a quarter of a small network's time. A block that lies above a free space keeps that space in the heap. Pages that
    are not written to cost nothing. Elsewhere than on Linux, and in other threads than the first, this does nothing.
    """
    kept = fence() if sys.platform == "linux" else None
    try:
        yield
    finally:
        del kept  # the end of the heap is free again, and goes back to the system


def apart(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to be filled, on pages of its own outside of the heap, where it would break up the space of the passes."""
    if sys.platform != "linux":
        return np.empty(shape, dtype)
    try:
        held = mmap.mmap(-1, max(math.prod(shape) * dtype.itemsize, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(str(error)) from error
    with suppress(OSError):  # a system may be built without large pages
        held.madvise(mmap.MADV_HUGEPAGE)
    return np.ndarray(shape, dtype, held)


def fence() -> list[np.ndarray]:
    """The second and the last of a row of blocks; the others are free. None of them where memory is short.

    What is small and stays fits best into the first, so that it does not break up the large space.
    """
    try:
        row()  # freeing these tells glibc that blocks of this size come and go, and belong in the heap
        blocks = row()
    except MemoryError:
        return []
    return [blocks[1], blocks[-1]]


def row() -> list[np.ndarray]:
    """Blocks side by side; those before them fill the gaps that the heap has already."""
    blocks: list[np.ndarray] = []
    while len(blocks) < 4 * ROOM:
        blocks.append(np.empty(BLOCK, np.uint8))
        if len(blocks) >= ROOM and side_by_side(blocks[-ROOM:]):
            break
    return blocks[-ROOM:]


def side_by_side(blocks: list[np.ndarray]) -> bool:
    places = [block.ctypes.data for block in blocks]
    return all(0 < after - before < BLOCK + 4096 for before, after in itertools.pairwise(places))
