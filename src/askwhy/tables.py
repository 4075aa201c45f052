"""Tables: what kind of values a column holds, how they fall into bins, and a few rows that stand for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.checks import is_whole
from askwhy.errors import InputError
from askwhy.models.base import CATEGORICAL, DATE, NUMERIC, Items, frame_kinds, is_missing

BINS = {"quartile": 4, "decile": 10}


@dataclass(frozen=True, eq=False)
class Column:
    """One column: its kind, and bins (numbers and dates) or levels (everything else) that its values fall into."""

    name: str
    kind: str  # NUMERIC, CATEGORICAL or DATE
    edges: np.ndarray  # ascending cuts of numbers (dates as nanoseconds): bin k is above edges[k - 1] and up to edges[k]
    levels: tuple[Any, ...] = ()  # of a categorical column

    def __len__(self) -> int:
        """Bins or levels, with one more for a missing value or an unknown level."""
        return (len(self.levels) if self.kind == CATEGORICAL else len(self.edges) + 1) + 1

    def codes(self, values: np.ndarray) -> np.ndarray:
        """int [m]: the bin or level of each value; the last for a missing value, or a level that was never seen."""
        if self.kind == CATEGORICAL:
            known = {level: k for k, level in enumerate(self.levels)}
            return np.array([known.get(value, len(self.levels)) for value in values.tolist()], dtype=np.intp)
        numbers = as_numbers(values, self.kind)
        return np.where(np.isnan(numbers), len(self.edges) + 1, np.searchsorted(self.edges, numbers, side="left"))

    def says(self, code: int) -> str:
        """ "28 < age <= 37", "workclass = Private", "age is missing"."""
        if code == len(self) - 1:
            return f"{self.name} is missing" if self.kind != CATEGORICAL else f"{self.name} is new or missing"
        if self.kind == CATEGORICAL:
            return f"{self.name} = {self.levels[code]}"
        low = self._shown(code - 1) if code > 0 else ""
        high = self._shown(code) if code < len(self.edges) else ""
        if low and high:
            return f"{low} < {self.name} <= {high}"
        return f"{self.name} > {low}" if low else f"{self.name} <= {high}" if high else f"{self.name} has any value"

    def _shown(self, k: int) -> str:
        return str(np.datetime64(int(self.edges[k]), "ns").astype("datetime64[s]")) if self.kind == DATE else f"{self.edges[k]:.6g}"


Cut = Callable[[np.ndarray, int], np.ndarray]  # (numbers [k] without missing ones, column) -> ascending edges


def columns_of(items: Items, rows: np.ndarray, categorical: Sequence[int | str] | None = None, bins: str | Cut = "quartile") -> list[Column]:
    """The columns of a table [n, d], with bins from background rows [k, d]. `categorical` names columns of codes."""
    if isinstance(bins, str) and bins not in BINS:
        raise InputError(f"bins={bins!r}: choose one of {', '.join(map(repr, BINS))}.")
    names, kinds = names_of(items), list(items.kinds or kinds_of(items.batch))
    for column in categorical or ():
        kinds[place_of_column(column, names)] = CATEGORICAL
    return [column_of(name, kind, rows[:, k], k, bins) for k, (name, kind) in enumerate(zip(names, kinds, strict=True))]


def column_of(name: str, kind: str, values: np.ndarray, k: int, bins: str | Cut) -> Column:
    if kind == CATEGORICAL:
        levels = [value for value in dict.fromkeys(map(plain, values.tolist())) if not is_missing(value)]
        return Column(name, kind, np.empty(0), tuple(sorted(levels, key=lambda v: (str(type(v)), v))))
    numbers = as_numbers(values, kind)
    numbers = numbers[~np.isnan(numbers)]
    if not callable(bins):
        return Column(name, kind, quantile_edges(numbers, BINS[bins]))
    return Column(name, kind, bins(numbers, k))


def quantile_edges(numbers: np.ndarray, count: int) -> np.ndarray:
    """The cuts between `count` bins that hold equally many; fewer where values repeat, so that no bin is empty."""
    if not len(numbers):
        return np.empty(0)
    edges = np.unique(np.quantile(numbers, np.arange(1, count) / count))
    return edges[edges < numbers.max()]


def as_numbers(values: np.ndarray, kind: str) -> np.ndarray:
    """float64; a date as nanoseconds since 1970, a missing value as NaN."""
    if kind == DATE:
        stamps = np.array([np.datetime64("NaT") if is_missing(v) else np.datetime64(v) for v in values], "datetime64[ns]")
        return np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64).astype(np.float64))
    try:
        return values.astype(np.float64)
    except TypeError:  # None and pandas.NA are no numbers
        return np.array([np.nan if is_missing(v) else v for v in values], np.float64)


def plain(value: Any) -> Any:
    """A numpy number as Python has it, so that equal levels are one."""
    return value.item() if isinstance(value, np.generic) else value


def kinds_of(batch: np.ndarray) -> tuple[str, ...]:
    """Of an array: numbers, unless a column holds something else."""
    if batch.dtype != object:
        return (NUMERIC,) * batch.shape[1]
    return tuple(NUMERIC if all(is_number(v) for v in column) else CATEGORICAL for column in batch.T)


def is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_)))


def names_of(items: Items) -> tuple[str, ...]:
    return items.names or tuple(f"feature {k}" for k in range(items.batch.shape[1]))


def place_of_column(column: int | str, names: Sequence[str]) -> int:
    """The number of a column that is named or counted. Raises InputError."""
    if isinstance(column, str):
        if column not in names:
            raise InputError(
                f"there is no column {column!r} in the table; it has {', '.join(map(repr, names[:8]))}{', ...' if len(names) > 8 else ''}."
            )
        return list(names).index(column)
    if not is_whole(column, 0, len(names) - 1):
        raise InputError(f"there is no column {column}: the table has {len(names)}, counted from 0.")
    return int(column)


def one_hot_groups(batch: Any, names: Sequence[str]) -> dict[str, list[int | str]]:
    """{"colour": ["colour_red", "colour_blue"]}: columns with one beginning, of which every row has exactly one 1 among 0s."""
    values = np.asarray(batch)
    found: dict[str, Any] = {}
    for sign in "=:_":
        for start in dict.fromkeys(name.rsplit(sign, 1)[0] for name in names if sign in name):
            members = [name for name in names if name.startswith(start + sign)]
            block = values[:, [list(names).index(name) for name in members]]
            free = not any(name in group for group in found.values() for name in members)
            if len(members) > 1 and free and np.isin(block, (0, 1)).all() and (block.astype(float).sum(1) == 1).all():
                found[start] = members
    return found


# ---- a few rows that stand for many ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Background:
    """Rows of data with their weights; give it wherever a method takes background=."""

    rows: Any  # like the data: a DataFrame or an array [k, d]
    weights: np.ndarray  # [k], their sum is 1
    text: str

    def __len__(self) -> int:
        return len(self.weights)


def background(data: Any, rows: int = 100, how: str = "sample", seed: int = 0) -> Background:
    """A few rows that stand for a table [n, d]: an array or a DataFrame.

    "sample": rows drawn without replacement. "kmeans": the row nearest to each of so many centres (numbers scaled,
    categories one by one), with the share of its cluster as its weight. "quantiles": every column at `rows` evenly
    spread quantiles, each column shuffled on its own: its distribution is kept, its ties to other columns are not.
    Raises InputError. Example: `askwhy.shapley(model, X[:5], background=askwhy.background(X, 50, "kmeans"))`.
    """
    if how not in HOW:
        raise InputError(f"how={how!r}: choose one of {', '.join(map(repr, HOW))}.")
    if np.ndim(data) != 2 or not len(data):
        raise InputError(f"a background is made of a table [n, d], but the data have the shape {list(np.shape(data))}.")
    if not is_whole(rows, 1):
        raise InputError(f"rows={rows!r}: give the number of rows to keep, 1 or more.")
    rng, count = np.random.default_rng(seed), min(int(rows), len(data))
    taken, weights = HOW[how](data, count, rng)
    return Background(taken, weights / weights.sum(), f"{len(weights)} rows of {len(data)} ({how})")


def pick(data: Any, which: np.ndarray) -> Any:
    return data.iloc[which] if hasattr(data, "iloc") else np.asarray(data)[which]


def by_sample(data: Any, count: int, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    return pick(data, np.sort(rng.choice(len(data), count, replace=False))), np.ones(count)


def by_kmeans(data: Any, count: int, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    from sklearn.cluster import KMeans

    points = coordinates(data)
    found = KMeans(min(count, len(np.unique(points, axis=0))), n_init=3, random_state=int(rng.integers(2**31))).fit(points)
    nearest = [members[np.argmin(((points[members] - centre) ** 2).sum(1))] for members, centre in clusters(found)]
    return pick(data, np.array(nearest)), np.bincount(found.labels_).astype(np.float64)


def clusters(found: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.flatnonzero(found.labels_ == k), centre) for k, centre in enumerate(found.cluster_centers_)]


def coordinates(data: Any) -> np.ndarray:
    """Numbers scaled to a spread of 1 (missing: the mean), categories as one column for each level."""
    values = np.asarray(data)
    found = []
    kinds = frame_kinds(data) if hasattr(data, "dtypes") and hasattr(data, "columns") else kinds_of(values)
    for column, kind in zip(values.T, kinds, strict=True):
        if kind == CATEGORICAL:
            levels = [str(v) for v in column]
            found += [np.array([v == level for v in levels], float) for level in dict.fromkeys(levels)]
        else:
            numbers = as_numbers(column, kind)
            known = ~np.isnan(numbers)
            spread = numbers[known].std() if known.any() else 0.0
            found.append(np.where(known, numbers - (numbers[known].mean() if known.any() else 0), 0) / (spread or 1))
    return np.stack(found, 1)


def by_quantiles(data: Any, count: int, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Row k of a column is a quantile of it; every column in an order of its own."""
    at = (2 * np.arange(count) + 1) * len(data) // (2 * count)
    if not hasattr(data, "iloc"):
        values = np.asarray(data)
        return np.stack([np.sort(column)[at][rng.permutation(count)] for column in values.T], 1), np.ones(count)
    taken = {name: data[name].sort_values().iloc[at].iloc[rng.permutation(count)].array for name in data.columns}
    return type(data)(taken), np.ones(count)


HOW = {"sample": by_sample, "kmeans": by_kmeans, "quantiles": by_quantiles}
