"""Activations as pictures: maps, tokens or steps by units, units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy import show
from askwhy.errors import InputError
from askwhy.show.pictures import limit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from askwhy.inside.activations import Activations

MAPS, UNITS, LINES, COLUMNS = 23, 40, 6, 8  # channels or units of one layer, layers, and channels of each of these, that a plot chooses


def draw(why: Activations, layer: str | None, item: int, channels: str | Sequence[int] | None, ax: Axes | None) -> Axes:
    """Raises InputError, LayerError."""
    if layer is None and len(why.layers) > 1:
        maps = [name for name, one in zip(why.layers, why.values, strict=True) if one.ndim == 4 and one.shape[-1] > 1]
        if len(maps) > 1:
            return lines(why, maps, item, channels, ax)
        layer = maps[0] if maps else next((name for name in reversed(why.layers) if why[name].ndim == 3), why.layers[-1])
    layer = why.layers[0] if layer is None else layer
    dimensions = why[layer].ndim
    if dimensions not in KINDS:
        raise InputError(f"layer {layer!r} gives {list(why[layer].shape)}, of which there is no picture; take the array, why[{layer!r}].")
    return KINDS[dimensions](why, layer, item, channels, ax)


def channels_first(why: Activations, layer: str, item: int) -> np.ndarray:
    """One item's values with the channels in front; yes and no as 1 and 0. Raises InputError."""
    values = why.of(item, layer)
    if np.iscomplexobj(values):
        raise InputError(f"layer {layer!r} gives complex numbers, of which there is no picture; draw np.abs(why[{layer!r}]) yourself.")
    return np.moveaxis(values.astype(np.float32) if values.dtype == bool else values, why.channels[why.at(layer)] - 1, 0)


def chosen(values: np.ndarray, channels: str | Sequence[int] | None, most: int) -> tuple[np.ndarray, str]:
    """Which of the channels [c, ...], and that in words. Raises InputError."""
    size = len(values)
    if channels is None and size <= most:
        return np.arange(size), f"all {size} channels" if size > 1 else "its only channel"
    if channels is None or (isinstance(channels, str) and channels == "strongest"):
        strength = np.abs(values.reshape(size, -1)).mean(1)
        kept = np.argsort(-strength, kind="stable")[:most]
        return kept, f"the {len(kept)} strongest of {size} channels"
    if isinstance(channels, str):
        raise InputError(f"channels={channels!r}: give 'strongest', numbers of channels, or None.")
    found = np.atleast_1d(np.asarray(channels))
    if not found.size or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= size:
        raise InputError(f"channels={channels!r}: the layer has channels 0 to {size - 1}; give some of these numbers.")
    return found, f"{len(found)} of {size} channels"


def title_of(layer: str, item: int, what: str) -> str:
    return f"{layer or 'the output'}, item {item}: {what}"


def maps(why: Activations, layer: str, item: int, channels: Any, ax: Axes | None) -> Axes:
    values = channels_first(why, layer, item)
    which, said = chosen(values, channels, MAPS)
    picture = picture_of(why, item)
    pictures = ([] if picture is None else [picture]) + [values[c] for c in which]
    names = ([] if picture is None else ["input"]) + [f"channel {c}" for c in which]
    return show.tiles(pictures, names, ax, columns=COLUMNS, title=title_of(layer, item, said), unit="activation")


def lines(why: Activations, layers: list[str], item: int, channels: Any, ax: Axes | None) -> Axes:
    """The strongest channels of several layers, each on a scale of its own."""
    kept = [layers[k] for k in np.unique(np.linspace(0, len(layers) - 1, LINES).round().astype(int))]
    picture, tiles, names = picture_of(why, item), [], []  # type: ignore[var-annotated]
    if picture is not None:
        tiles, names = [picture, *[None] * (COLUMNS - 1)], ["input", *[""] * (COLUMNS - 1)]
    for layer in kept:
        values = channels_first(why, layer, item)
        which, _ = chosen(values, channels, COLUMNS)
        empty = COLUMNS - len(which[:COLUMNS])
        tiles += [*(values[c] / limit(values) for c in which[:COLUMNS]), *[None] * empty]
        names += [*(f"channel {c}" for c in which[:COLUMNS]), *[""] * empty]
    some = f"{len(kept)} of {len(layers)} layers" if len(kept) < len(layers) else f"{len(kept)} layers"
    rows = ([] if picture is None else [""]) + [layer or "the output" for layer in kept]
    unit = "activation, as a share of the layer's largest |value|"
    return show.tiles(tiles, names, ax, columns=COLUMNS, title=f"item {item}: {some}, the strongest channels of each", unit=unit, rows=rows)


def picture_of(why: Activations, item: int) -> np.ndarray | None:
    at = range(len(why))[item]
    return why.pictures[at] if at < len(why.pictures) else None


def steps(why: Activations, layer: str, item: int, channels: Any, ax: Axes | None) -> Axes:
    """Tokens from top to bottom, so that they can be read; steps of time from left to right."""
    values = channels_first(why, layer, item)
    which, said = chosen(values, channels, UNITS)
    units, title = [str(c) for c in which], title_of(layer, item, said.replace("channel", "unit"))
    words = why.tokens[item] if why.tokens and why.counted[why.at(layer)] else None
    if words is not None:
        return show.sequence(values[which].T, ax, rows=words, columns=units, title=title, unit="activation", x="unit", y="token")
    return show.sequence(values[which], ax, rows=units, title=title, unit="activation", x="step or place", y="unit")


def units(why: Activations, layer: str, item: int, channels: Any, ax: Axes | None) -> Axes:
    values = channels_first(why, layer, item)
    which, said = chosen(values, channels, MAPS)
    title = title_of(layer, item, said.replace("channel", "unit"))
    return show.bars(values[which], [f"unit {c}" for c in which], ax=ax, title=title, most=len(which), unit="activation")


KINDS = {2: units, 3: steps, 4: maps}
