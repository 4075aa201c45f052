"""Which picture shows an Effect: its numbers handed to the plain functions of `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.models.base import CATEGORICAL, DATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEANS = {"pdp": "mean score", "ice": "score", "ale": "effect on the score, mean 0"}


def draw(effect: Any, ax: Axes | None) -> Axes:
    """A map of two columns, a curve of numbers, points of levels."""
    from askwhy.show.effects import effect_map

    centred = ", from the first value" if effect.params.get("centre") else ""
    unit = f"{MEANS[effect.method]}{centred}: {effect.target}"
    title = f"{effect.method.upper()}: {effect.target} by {' and '.join(effect.names)}"
    if len(effect.names) == 1:
        return drawn_alone(effect, ax, {"title": title, "unit": unit, "name": effect.names[0]})
    first, second = (texts(grid) if kind == CATEGORICAL else grid for grid, kind in zip(effect.grid, effect.kinds, strict=True))
    rows = shown(effect.data[0], effect.kinds[0]), shown(effect.data[1], effect.kinds[1])
    signed = effect.method == "ale"
    told = f"beyond what each does alone: {effect.target}" if signed else unit
    return effect_map(first, second, effect.values, ax, names=effect.names, rows=rows, off=effect.off_data, signed=signed, title=title, unit=told)


def drawn_alone(effect: Any, ax: Axes | None, words: dict[str, Any]) -> Axes:
    from askwhy.show.effects import effect_curve, effect_levels

    (grid,), (kind,), (data,) = effect.grid, effect.kinds, effect.data
    if kind != CATEGORICAL:
        return effect_curve(
            grid, effect.values, effect.std_error, ax, rows=shown(data, kind), weights=effect.weights, curves=effect.curves, off=effect.off_data,
            missing=effect.missing, **words,
        )  # fmt: skip
    known = ~np.isnan(data)
    shares = np.bincount(data[known].astype(int), effect.weights[known], len(grid))
    levels, values, error, off, curves = texts(grid), effect.values, effect.std_error, effect.off_data, effect.curves
    if effect.missing is not None:
        levels = [*levels, "(missing)"]
        values, error = np.append(values, effect.missing[0]), np.append(error, effect.missing[1])
        shares = np.append(shares, effect.weights[~known].sum())
        off = None if off is None else np.append(off, 0.0)
        curves = None if curves is None else np.pad(curves, ((0, 0), (0, 1)), constant_values=np.nan)
    return effect_levels(levels, values, error, ax, shares=shares, off=off, curves=curves, **words)


def texts(grid: np.ndarray) -> list[str]:
    return list(map(str, grid))


def shown(data: np.ndarray, kind: str) -> np.ndarray:
    """Numbers as they are; dates as dates."""
    if kind != DATE:
        return data
    stamps = np.full(len(data), np.datetime64("NaT", "ns"))
    known = ~np.isnan(data)
    stamps[known] = data[known].astype(np.int64).astype("datetime64[ns]")
    return stamps
