"""The values of a column at which an effect is measured, and where on them the rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy._lazy import load
from askwhy.checks import is_whole
from askwhy.errors import InputError
from askwhy.models.base import CATEGORICAL, DATE
from askwhy.overall.support import binned
from askwhy.overall.table import Table, numbers_in
from askwhy.tables import column_of, plain

MOST = 200  # levels of one column that are asked about without being named


@dataclass(frozen=True, eq=False)
class Axis:
    """A column's grid: numbers and dates ascending, levels in an order."""

    place: int
    name: str
    kind: str
    grid: np.ndarray  # [g]: float64, datetime64[ns], or levels (object)
    cells: Any  # the same as the table holds them, then a missing value where the column has any
    ticks: np.ndarray  # [g]: the grid in the units of `at`
    at: np.ndarray  # [n]: where the rows are: numbers (dates as nanoseconds), or places in the grid of levels; NaN where they are not on it

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def gaps(self) -> bool:
        """Whether the last cell is a missing value."""
        return len(self.cells) > len(self.grid)


def axis_of(table: Table, k: int, grid: Any, *, similar: bool = False) -> Axis:
    """grid: how many points, or the points themselves; levels of a category come in an order (`similar`: neighbours are alike)."""
    if isinstance(grid, str) or not (hasattr(grid, "__len__") or is_whole(grid, 2)):
        raise InputError(f"grid={grid!r}: give the number of points, 2 or more, or the values of {table.names[k]!r} themselves.")
    made = (of_levels if table.kinds[k] == CATEGORICAL else of_numbers)(table, k, grid, similar)
    if len(made) < 2:
        raise InputError(
            f"column {made.name!r} takes a single value on its grid, so that nothing can change with it; choose another column or grid=."
        )
    return made


def of_numbers(table: Table, k: int, grid: Any, similar: bool) -> Axis:
    """At values that rows hold: those at evenly spread quantiles, or all where there are few."""
    at, kind, name = table.numbers(k), table.kinds[k], table.names[k]
    gaps = np.flatnonzero(np.isnan(at))[:1]
    known = np.flatnonzero(~np.isnan(at))
    if not len(known):
        raise InputError(f"column {name!r} holds missing values only.")
    if hasattr(grid, "__len__"):
        ticks = given_numbers(grid, kind, name)
        cells = together(table.cast(k, ticks), table.held(k, gaps))
    else:
        rows = known[spread(at[known], table.weights[known], int(grid))]
        ticks, cells = at[rows], table.held(k, np.concatenate([rows, gaps]))
    shown = ticks.astype(np.int64).astype("datetime64[ns]") if kind == DATE else ticks
    return Axis(k, name, kind, shown, cells, ticks, at)


def given_numbers(grid: Any, kind: str, name: str) -> np.ndarray:
    try:
        ticks = numbers_in(load("pandas", "table").to_datetime(list(grid), utc=True) if kind == DATE else np.asarray(grid))
    except ValueError as error:
        raise InputError(f"grid= is no list of values of {name!r}: {error}") from error
    if ticks.ndim != 1 or not np.isfinite(ticks).all():
        raise InputError(f"grid= for {name!r} has the shape {list(np.shape(grid))} or holds missing or infinite values; give a list of finite ones.")
    return np.unique(ticks)


def spread(numbers: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Places of values at `count` evenly spread quantiles (inverse of the distribution, by weight); of all different ones where they are fewer."""
    order = np.argsort(numbers, kind="stable")
    _, first = np.unique(numbers[order], return_index=True)
    if len(first) > count:
        below = np.cumsum(weights[order]) / weights.sum()
        wanted = np.searchsorted(below, np.linspace(0, 1, count) - 1e-12).clip(0, len(order) - 1)
        _, first = np.unique(numbers[order][wanted], return_index=True)
        first = wanted[first]
    return order[first]


def of_levels(table: Table, k: int, grid: Any, similar: bool) -> Axis:
    values, name = table.values[:, k], table.names[k]
    column = column_of(name, CATEGORICAL, values, k, "quartile")
    codes = column.codes(values)
    order, known = order_of(table, k, grid, column.levels), len(column.levels)
    if not hasattr(grid, "__len__") and known > MOST:
        raise InputError(f"column {name!r} has {known} levels; name those to ask about, as grid={list(column.levels[:2])!r}.")
    if order is None:
        order = by_similarity(table, k, codes, known) if similar and known > 2 else list(range(known))
    place = np.full(known + 1, np.nan)
    place[order] = np.arange(len(order))
    first = np.array([int((codes == code).argmax()) for code in order])
    levels = np.array([*(column.levels[code] for code in order), None], object)[:-1]
    gaps = np.flatnonzero(table.missing(k))[:1]
    return Axis(k, name, CATEGORICAL, levels, table.held(k, np.concatenate([first, gaps])), np.arange(len(order), dtype=float), place[codes])


def order_of(table: Table, k: int, grid: Any, levels: Sequence[Any]) -> list[int] | None:
    """The order that the user gave, or that the table's own ordered categories have; None where there is none."""
    if hasattr(grid, "__len__"):
        given = [plain(level) for level in grid]
        odd = [level for level in given if level not in levels]
        if odd or len(set(given)) < len(given):
            what = f"{odd[0]!r}, which no row holds" if odd else "a level twice"
            raise InputError(
                f"grid= has {what}; {table.names[k]!r} has the levels {', '.join(map(repr, levels[:8]))}{', ...' if len(levels) > 8 else ''}."
            )
        return [levels.index(level) for level in given]
    dtype: Any = table.rows.dtypes.iloc[k] if hasattr(table.rows, "iloc") else None
    if not getattr(dtype, "ordered", False):
        return None
    return [levels.index(level) for level in map(plain, dtype.categories) if level in levels]


def by_similarity(table: Table, k: int, codes: np.ndarray, count: int) -> list[int]:
    """Levels along a line on which those lie close whose rows are alike in the other columns (Apley & Zhu 2020, appendix).

    The distance of two levels is the sum, over the other columns, of the area between the distributions of ranks (numbers) or
    half the absolute difference of the shares (categories); the line is the first axis of classical scaling. The paper takes
    the largest distance of the distributions, which is 1 for all levels that do not overlap, so that far ones seem no farther.
    """
    others = [j for j in range(len(table.names)) if j != k]
    if not others:
        raise InputError(f"the levels of {table.names[k]!r} have no order, and no other column tells which are alike; give it as grid=[...].")
    distance = np.zeros((count, count))
    for j in others:
        bins, size = binned(table, j, 100)
        share = np.bincount(codes * size + bins, table.weights, (count + 1) * size).reshape(-1, size)[:count]
        share = share / share.sum(1, keepdims=True)
        apart = share[:, None] - share
        distance += np.abs(apart).sum(2) / 2 if table.kinds[j] == CATEGORICAL else np.abs(apart.cumsum(2)).mean(2)
    centred = -0.5 * (distance**2 - (distance**2).mean(0) - (distance**2).mean(1)[:, None] + (distance**2).mean())
    line = np.linalg.eigh(centred)[1][:, -1]
    return np.argsort(line if line[0] <= 0 else -line, kind="stable").tolist()


def together(cells: Any, others: Any) -> Any:
    """Two pieces of one column."""
    if not len(others):
        return cells
    if isinstance(cells, np.ndarray):
        return np.concatenate([cells, others])
    pandas = load("pandas", "table")
    return pandas.concat([pandas.Series(cells), pandas.Series(others)], ignore_index=True).array
