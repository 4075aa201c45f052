"""The values of one feature as a picture needs them: numbers, dates or levels, and colours from low to high."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.show.paper import GREY, INKS, is_dark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = {"nan", "NaN", "NaT", "<NA>", "None"}  # how None, NaN, pandas.NA and a missing date are written


@dataclass(frozen=True, eq=False)
class Feature:
    """One column."""

    numbers: np.ndarray  # float64 [n]: numbers, days since 1970, or places in `levels`; NaN where missing
    levels: tuple[str, ...] = ()  # of a categorical column, the most frequent first
    dates: bool = False

    @cached_property
    def missing(self) -> np.ndarray:
        return np.isnan(self.numbers)

    @cached_property
    def shades(self) -> np.ndarray:
        """Ranks in [0, 1], equal for equal numbers, so that an outlier does not fade the rest; 0.5 of a constant."""
        _, place, counts = np.unique(self.numbers[~self.missing], return_inverse=True, return_counts=True)
        ranks = counts.cumsum() - counts / 2
        span = ranks[-1] - ranks[0] if len(ranks) else 0.0
        found = np.full(len(self.numbers), np.nan)
        found[~self.missing] = ((ranks - ranks[0]) / span)[place] if span else 0.5
        return found

    def colours(self, ax: Axes, named: int = len(INKS)) -> np.ndarray:
        """[n, 4]: from low to high; a colour for each of the frequent levels; grey: missing or rare."""
        from matplotlib.colors import to_rgba

        if self.levels:
            inks = np.array([*map(to_rgba, INKS[:named]), to_rgba(GREY)])
            return inks[np.minimum(np.nan_to_num(self.numbers, nan=named), named).astype(int)]  # type: ignore[no-any-return]
        return np.where(self.missing[:, None], to_rgba(GREY), low_to_high(ax)(np.nan_to_num(self.shades)))


def low_to_high(ax: Axes) -> Any:
    """Colours of feature values: no red and blue, which mean for and against, and nothing close to the paper."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    ends = (0.25, 1.0) if is_dark(ax) else (0.05, 0.85)
    return ListedColormap(colormaps["plasma"](np.linspace(*ends, 256)))


def feature_of(values: Any) -> Feature:
    """Of a column [n]: numbers, dates, or anything else as levels."""
    column = np.asarray(values)
    if column.dtype.kind in "biuf":
        return Feature(column.astype(np.float64))
    cells = column.tolist() if column.dtype.kind != "M" else list(column)
    known = [cell for cell in cells if not is_gone(cell)]
    if all(isinstance(cell, (bool, int, float, np.number, np.bool_)) for cell in known):
        return Feature(np.array([np.nan if is_gone(cell) else float(cell) for cell in cells]))
    if all(isinstance(cell, np.datetime64) or hasattr(cell, "isoformat") for cell in known):
        return Feature(np.array([np.nan if is_gone(cell) else day(cell) for cell in cells]), dates=True)
    return levels_of(cells)


def levels_of(cells: list[Any]) -> Feature:
    counts = Counter(str(cell) for cell in cells if not is_gone(cell))
    levels = tuple(sorted(counts, key=lambda level: (-counts[level], level)))
    place = {level: k for k, level in enumerate(levels)}
    return Feature(np.array([np.nan if is_gone(cell) else place[str(cell)] for cell in cells], np.float64), levels)


def is_gone(cell: Any) -> bool:
    return not isinstance(cell, str) and str(cell) in MISSING


def day(cell: Any) -> float:
    return float(np.datetime64(cell, "ns").astype(np.int64)) / 86_400e9
