"""Activations as they come: checked, without padding, kept or written; and what there is to say about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import InputError, LayerError
from askwhy.inside.stored import Rows, check_room, file_name, writing
from askwhy.layers import Read
from askwhy.models.base import Items, to_numpy
from askwhy.models.torch_module import TorchModel
from askwhy.places import channels_of, real_places
from askwhy.saved import FORMAT, plain

INDEX, PHOTOS = "index.json", "pictures.npz"
PICTURES = 64  # of the first items, which are kept to be shown beside the maps
PIECE = 2**24  # numbers that are read together for the summary


class Gathered:
    """What has been read so far, for Activations."""

    def __init__(self, model: TorchModel, total: int | None, folder: Path | None) -> None:
        self.model, self.total, self.folder = model, total, folder
        self.rows: dict[str, Rows] = {}
        self.channels: dict[str, int] = {}
        self.counted: dict[str, tuple[int, ...]] = {}
        self.tokens: list[tuple[str, ...]] = []
        self.places: list[tuple[int, ...]] = []
        self.pictures: list[np.ndarray] = []
        self.calls = 0

    def keep(self, name: str, out: Any, items: Items, own: range) -> np.ndarray:
        """A copy, in which padding is NaN."""
        found = self.rows.get(name, Rows()).copied(to_numpy(out), self.total)
        if name not in self.channels:
            self.channels[name] = channels_of(self.model, name, out)
        channel = self.channels[name]
        length = length_of(items)
        if length is None or found.ndim < 3:
            return found
        axes = axes_of_tokens(found.shape, channel, length)
        if self.counted.setdefault(name, axes) != axes:
            raise LayerError(f"layer {name!r} counts tokens in one text and something else in another; ask about one text at a time.")
        held = real_places(items, own, length if axes else found.shape[1 if channel > 1 else 2])
        return found if held is None else without(found, held, axes)

    def add(self, read: Read) -> None:
        for name, found in read.outs.items():
            if name not in self.rows:
                self.rows[name] = Rows(None if self.folder is None else (self.folder / file_name(len(self.rows), name)).open("w+b"))
            self.check(name, found, read.which.start)
            with writing(self.folder or ""):
                self.rows[name].add(found)
        self.calls += len(read.own) + (read.items.calls if read.own.start == 0 else 0)
        self.note(read)
        if self.folder is None:
            done, total = read.which.stop, self.total or read.which.stop
            needed = sum(rows.nbytes for rows in self.rows.values()) / done * total
            check_room(needed, f"{len(self.rows)} layers of {total:,} items", "name fewer layers, or a folder to write to, to='activations'")

    def check(self, name: str, found: np.ndarray, start: int) -> None:
        first = self.rows[name].shapes[:1]
        if first and first[0][1:] != found.shape[1:] and not self.counted.get(name):
            raise InputError(
                f"layer {name!r} gives {list(first[0][1:])} for item 0 and {list(found.shape[1:])} for item {start}; "
                "give items of one size, or ask about them one by one."
            )

    def note(self, read: Read) -> None:
        """Words and pictures of the items."""
        length = length_of(read.items)
        held = None if length is None else real_places(read.items, read.own, length)
        if held is not None:
            for k, places in zip(read.own, held, strict=True):
                reading = read.items.arguments.parts[0].readings[k]
                names = dict(zip(reading.places, reading.tokens, strict=True))
                self.tokens.append(tuple(names.get(place, "") for place in places))
                self.places.append(tuple(places))
        if len(self.pictures) == read.which.start < PICTURES:
            shown = read.items.pictures[read.own.start : read.own.stop]
            self.pictures += [picture for picture in shown[: PICTURES - len(self.pictures)] if picture is not None]

    def told(self) -> dict[str, Any]:
        names = tuple(self.rows)
        return {
            "layers": names, "channels": tuple(self.channels[name] for name in names), "counted": tuple(self.counted.get(name, ()) for name in names),
            "tokens": tuple(self.tokens), "places": tuple(self.places), "model_calls": self.calls,
        }  # fmt: skip

    def values(self) -> tuple[np.ndarray, ...]:
        return tuple(rows.whole() for rows in self.rows.values())

    def write(self, told: dict[str, Any]) -> None:
        """The files, and the index that makes them Activations."""
        assert self.folder is not None
        files = [file_name(k, name) for k, name in enumerate(self.rows)]
        for file, rows in zip(files, self.rows.values(), strict=True):
            rows.finish(self.folder / file)
        np.savez(self.folder / PHOTOS, **{str(k): picture for k, picture in enumerate(self.pictures)})  # type: ignore[arg-type]
        index = json.dumps({"askwhy": FORMAT, "files": files, **told}, default=plain, ensure_ascii=False)
        (self.folder / INDEX).write_text(index, encoding="utf-8")

    def close(self) -> None:
        for rows in self.rows.values():
            rows.close()


# ---- tokens ---------------------------------------------------------------------------------------------------------


def length_of(items: Items) -> int | None:
    """The number of tokens, with padding, of each text here; None where the model is not asked about one input of tokens."""
    parts: tuple[Any, ...] = () if items.arguments is None else items.arguments.parts
    return int(np.prod(parts[0].places)) if len(parts) == 1 and parts[0].readings else None


def axes_of_tokens(shape: tuple[int, ...], channel: int, length: int) -> tuple[int, ...]:
    """Which axes count tokens: one, or the last two of attention [m, heads, tokens, tokens]."""
    if len(shape) == 4 and shape[2] == shape[3] == length:
        return 2, 3
    return tuple(axis for axis in range(1, len(shape)) if axis != channel and shape[axis] == length)


def without(found: np.ndarray, held: list[list[int]], axes: tuple[int, ...]) -> np.ndarray:
    """NaN where the padding is."""
    found = found if found.dtype.kind in "fc" else found.astype(np.float64)
    for row, places in zip(found, held, strict=True):
        for axis in axes:
            np.moveaxis(row, axis - 1, 0)[np.setdiff1d(np.arange(row.shape[axis - 1]), places)] = np.nan
    return found


# ---- in words -------------------------------------------------------------------------------------------------------


def told_of(name: str, values: np.ndarray, axis: int) -> str:
    """One layer in a line, read in pieces."""
    shape: Any = values.shape
    step = max(PIECE // max(int(np.prod(shape[1:])), 1), 1)
    total, zeros, numbers = 0.0, 0, 0
    largest, place = -np.inf, [0] * values.ndim
    active = np.zeros(shape[axis], bool)
    for start in range(0, len(values), step):
        piece = np.asarray(values[start : start + step])
        piece = np.abs(piece) if np.iscomplexobj(piece) else piece
        real = ~np.isnan(piece)
        total, zeros, numbers = total + float(piece.sum(dtype=np.float64, where=real)), zeros + int((piece == 0).sum()), numbers + int(real.sum())
        active |= ((piece != 0) & real).any(tuple(a for a in range(piece.ndim) if a != axis))
        high = np.where(real, piece, -np.inf)
        at = np.unravel_index(int(high.argmax()), high.shape)
        if high[at] > largest:
            largest, place = float(high[at]), [int(one) for one in at]
            place[0] += start
    size = "|value| of complex numbers: " if np.iscomplexobj(values) else ""
    parts = [f"{size}mean {total / max(numbers, 1):.3g}", f"{zeros / max(numbers, 1):.0%} zeros", f"largest {largest:.3g} ({where(place, axis)})"]
    return f"{name} {list(values.shape)}: {', '.join([*parts, *dead(active)])}"


def where(place: list[int], axis: int) -> str:
    rest = [one for a, one in enumerate(place) if a not in (0, axis)]
    return f"item {place[0]}, channel {place[axis]}{f' at {rest}' if rest else ''}"


def dead(active: np.ndarray) -> list[str]:
    silent = np.flatnonzero(~active)
    some = ", ".join(map(str, silent[:5])) + (", ..." if len(silent) > 5 else "")
    return [f"{len(silent)} of {len(active)} channels are zero for every item ({some})"] if len(silent) else []
