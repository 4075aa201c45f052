"""Rows of numbers that come piece by piece: kept in memory, or written to a folder that is there whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from askwhy._memory import apart
from askwhy.errors import FileError, InputError
from askwhy.files import usual_mask

HEADER = 256  # bytes in front of the numbers of a .npy file, where its shape is written at the end


@dataclass(eq=False)
class Rows:
    """Pieces [m, ...] of one layer, of which those of texts may have different lengths."""

    file: BinaryIO | None = None  # else they are kept
    kept: list[np.ndarray] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtype: Any = None
    room: np.ndarray | None = None  # for all of them, where their number is known

    def copied(self, piece: np.ndarray, total: int | None) -> np.ndarray:
        """A copy of the next piece: from the second on at its place among all, since to join them later is to copy them once more."""
        like = self.room if len(self.shapes) > 1 else self.kept[0] if self.kept and total else None
        if like is None or like.shape[1:] != piece.shape[1:] or like.dtype != piece.dtype or self.count + len(piece) > (total or 0):
            self.room = None
            return np.array(piece, order="C")
        if self.room is None:
            self.room = apart((total or 0, *piece.shape[1:]), piece.dtype)
            self.room[: self.count] = self.kept[0]
        own = self.room[self.count : self.count + len(piece)]
        own[...] = piece
        return own

    @property
    def count(self) -> int:
        return sum(s[0] for s in self.shapes)

    def add(self, piece: np.ndarray) -> None:
        self.dtype = self.dtype or piece.dtype
        self.shapes.append(piece.shape)
        if self.file is None:
            self.kept.append(piece)
            return
        if len(self.shapes) == 1:
            self.file.seek(HEADER)
        self.file.write(np.ascontiguousarray(piece).data)

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, ...] of all, as large as the largest."""
        return (self.count, *np.max([s[1:] for s in self.shapes], 0).tolist())

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.kept)

    @property
    def even(self) -> bool:
        return len({s[1:] for s in self.shapes}) == 1

    def whole(self) -> np.ndarray:
        """All of them, NaN where a piece has no number; the pieces are let go."""
        if self.room is not None and self.count == len(self.room):
            found = self.room
        elif self.even:
            found = np.concatenate(self.kept)
        else:
            found = np.full(self.shape, np.nan, self.dtype)
            fill(found, iter(self.kept))
        self.kept, self.room = [], None
        return found

    def finish(self, path: Path) -> None:
        """What was written to `path`, as a .npy file."""
        assert self.file is not None
        self.file.seek(0)
        self.file.write(header(self.shape, self.dtype))
        self.file.close()
        if self.even:
            return
        pieces = path.rename(path.with_suffix(".pieces"))
        found = np.lib.format.open_memmap(path, "w+", self.dtype, self.shape)
        found[...] = np.nan
        fill(found, self.read(pieces))
        found.flush()
        pieces.unlink()

    def read(self, path: Path) -> Iterator[np.ndarray]:
        with path.open("rb") as file:
            file.seek(HEADER)
            for shape in self.shapes:
                yield np.frombuffer(file.read(int(np.prod(shape)) * self.dtype.itemsize), self.dtype).reshape(shape)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def fill(found: np.ndarray, pieces: Iterator[np.ndarray]) -> None:
    at = 0
    for piece in pieces:
        found[(slice(at, at + len(piece)), *(slice(size) for size in piece.shape[1:]))] = piece
        at += len(piece)


def header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The first bytes of a .npy file (format 1.0), of a length that does not depend on the shape."""
    told = repr({"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return np.lib.format.magic(1, 0) + (HEADER - 10).to_bytes(2, "little") + told.ljust(HEADER - 11).encode() + b"\n"


def file_name(k: int, layer: str) -> str:
    return f"{k:03d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', layer) or 'output'}.npy"


@contextmanager
def new_folder(to: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write into, which gets its name at the end, and is gone where the block fails. Raises FileError."""
    path = Path(to)
    if path.exists():
        raise FileError(f"to={str(to)!r} is there already; give the name of a new folder.")
    with writing(to):
        made = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    try:
        yield made
        with writing(to):
            made.chmod(0o777 & ~usual_mask())
            made.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def writing(to: str | os.PathLike[str]) -> Iterator[None]:
    """What the system says of a folder or disk, as a FileError."""
    try:
        yield
    except OSError as error:
        raise FileError(f"to={str(to)!r} cannot be written: {error.strerror or error}.") from error


# ---- memory ---------------------------------------------------------------------------------------------------------


def check_room(needed: float, what: str, remedy: str) -> None:
    """Refuse what would take more than half of the free memory, where that is known. Raises InputError."""
    free = free_memory()
    if free is not None and needed > free / 2:
        raise InputError(f"{what} would take about {in_bytes(needed)}, and {in_bytes(free)} of memory are free; {remedy}.")


def free_memory() -> float | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        told = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        if told:
            return int(told[1]) * 1024.0
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return None


def in_bytes(count: float) -> str:
    power = min(int(np.log10(max(count, 1)) // 3), 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
