"""What every layer gives for every input, as arrays by layer: kept, or streamed to a folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.errors import FileError, InputError, LayerError, near
from askwhy.game import Progress, progress_of
from askwhy.inside.gathered import INDEX, PHOTOS, Gathered, told_of
from askwhy.inside.stored import in_bytes, new_folder, writing
from askwhy.kept import Kept
from askwhy.layers import count, read_layers, torch_model
from askwhy.saved import FORMAT, tuples

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Activations(Kept):
    """What layers gave. `why[layer]` is [n, ...] as the layer gives it, the items first; padding of texts holds NaN.

    channels: for each layer, the axis of its values that counts channels or units. counted: the axes that count tokens.
    tokens: for texts, the tokens of each item without padding. pictures: of the first items, uint8 [h, w, 3].
    """

    several = frozenset({"values", "pictures"})
    layers: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    channels: tuple[int, ...]
    counted: tuple[tuple[int, ...], ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    places: tuple[tuple[int, ...], ...] = ()  # where those tokens stand
    pictures: tuple[np.ndarray, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __getitem__(self, layer: str) -> np.ndarray:
        return self.values[self.at(layer)]

    def at(self, layer: str) -> int:
        if layer not in self.layers:
            raise LayerError(f"layer={layer!r} is none of those that were read; {near(str(layer), self.layers)}")
        return self.layers.index(layer)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By layer: [n, ...]."""
        return {name: tuple(one.shape) for name, one in zip(self.layers, self.values, strict=True)}

    def of(self, item: int, layer: str) -> np.ndarray:
        """What a layer gave for one item [...], without padding."""
        k = self.at(layer)
        self.check_item(item)
        found = np.asarray(self.values[k][item])
        for axis in self.counted[k] if self.counted else ():
            found = np.take(found, self.places[item], axis - 1)
        return found

    def check_item(self, item: int) -> None:
        if not -len(self) <= item < len(self):
            raise InputError(f"item={item}: there are {len(self)} items, counted from 0.")

    def summary(self) -> str:
        """For each layer: shape, mean, zeros, channels that were never active, the largest value and where it is; the cost."""
        read = zip(self.layers, self.values, self.channels, strict=True)
        told = [told_of(name or "the output", values, axis) for name, values, axis in read]
        size = in_bytes(sum(one.nbytes for one in self.values))
        n, calls = len(self), self.model_calls
        cost = f"{n} item{'s' * (n != 1)}, {size}; {calls} model call{'s' * (calls != 1)}, {self.seconds:.2f} s; nothing is sampled"
        return "\n".join([*told, cost])

    def plot(self, layer: str | None = None, item: int = 0, channels: str | Sequence[int] | None = None, ax: Axes | None = None) -> Axes:
        """Maps beside the picture, tokens or steps by units, or units as bars; white is zero. Returns the axes and never shows them.

        layer: None for the layers of maps line by line, else the last one of tokens or steps. channels: numbers, "strongest"
        (by mean |value| over this item), or None: all where they are few, else the strongest. Raises InputError, LayerError.
        """
        from askwhy.inside.maps import draw

        self.check_item(item)
        return draw(self, layer, item, channels, ax)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in list(self.shapes.items())[:3])
        return f"<Activations of {len(self)} items: {shown}{', ...' if len(self.layers) > 3 else ''}>"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Activations:
        """Read what `save` wrote, or map the folder of `to=` into memory, read-only. Raises FileError."""
        return mapped(Path(path)) if Path(path).is_dir() else super().load(path)


def activations(
    model: Any, x: Any, layers: Any = None, *, to: str | os.PathLike[str] | None = None, batch_size: int | str = "auto",
    progress: bool | Progress | None = None,
) -> Activations:  # fmt: skip
    """What layers give for x, as arrays by layer, equal to a forward pass of the model; nothing changes in it.

    x: whatever the model takes, also many: a list of photos or texts, a tensor or array [n, ...], a Dataset, an iterable of
    batches. layers: names, modules, or None for the model's main stages. `why[layer]` is [n, ...], items first; tokens and
    steps are [n, t, d]. to: a new folder, to which they are written as they come, one .npy a layer, and mapped from there:
    for more than the memory holds; an interrupted run leaves nothing. Where texts differ in length, padding holds NaN, and
    `why.of(item, layer)` leaves it out. Raises LayerError (unknown, with near names; runs several times), InputError (more
    than half of the free memory), UnsupportedError (no layers), FileError.
    Example: `askwhy.activations(model, photos, ["layer1", "layer4"]).plot("layer4")`.
    """
    began = time.perf_counter()
    wrapped = torch_model(model)
    with progress_of(progress, "activations") as tick, nullcontext() if to is None else new_folder(to) as folder:
        gathered = Gathered(wrapped, count(x), folder)
        try:
            for read in read_layers(wrapped, x, layers, gathered.keep, batch_size=batch_size, tick=tick):
                gathered.add(read)
            told = {**gathered.told(), "params": {"batch_size": batch_size}, "seed": wrapped.seed, "versions": versions()}
            if folder is None:
                return Activations(values=gathered.values(), pictures=tuple(gathered.pictures), **told, seconds=time.perf_counter() - began)
            with writing(to or ""):
                gathered.write({**told, "seconds": time.perf_counter() - began})
        finally:
            gathered.close()
    return mapped(Path(to or ""))


def mapped(folder: Path) -> Activations:
    """What `to=` wrote, read only where it is asked for. Raises FileError."""
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        version, files = told.pop("askwhy"), told.pop("files")
        if version > FORMAT:
            raise FileError(f"{folder} was written by a newer askwhy (format {version}); update askwhy.")
        values = tuple(np.load(folder / file, mmap_mode="r") for file in files)
        with np.load(folder / PHOTOS) as held:
            pictures = tuple(held[str(k)] for k in range(len(held)))
        rest: dict[str, Any] = {name: one if isinstance(one, dict) else tuples(one) for name, one in told.items()}
        return Activations(values=values, pictures=pictures, **rest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{folder} holds no saved Activations ({error}).") from error
