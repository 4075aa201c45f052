"""Where the rows are: how columns hang together, and which values of one never come with a value of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from askwhy.models.base import CATEGORICAL
from askwhy.tables import column_of

if TYPE_CHECKING:
    from askwhy.overall.axis import Axis
    from askwhy.overall.table import Table

EACH = 50  # rows in a bin of the other column, lest its range be chance
ROOM = 0.1  # of the range of a bin's rows: how far beyond it a value may lie; of columns that do not hang together the outermost values do


def binned(table: Table, k: int, count: int) -> tuple[np.ndarray, int]:
    """int [n]: the bin of equal share (numbers) or the level of each row, the last for missing values; and how many there are."""
    if table.kinds[k] == CATEGORICAL:
        column = column_of(table.names[k], CATEGORICAL, table.values[:, k], k, "quartile")
        return column.codes(table.values[:, k]), len(column)
    numbers = table.numbers(k)
    missing = np.isnan(numbers)
    edges = cuts(numbers[~missing], count)
    return np.where(missing, len(edges) + 1, np.searchsorted(edges, numbers)), len(edges) + 2


def cuts(numbers: np.ndarray, count: int) -> np.ndarray:
    return np.unique(np.quantile(numbers, np.arange(1, count) / count)) if len(numbers) else np.empty(0)


def coordinate(table: Table, k: int) -> np.ndarray:
    """[n]: ranks of numbers, or numbered levels; NaN where a value is missing."""
    if table.kinds[k] == CATEGORICAL:
        codes, count = binned(table, k, 1)
        return np.where(codes == count - 1, np.nan, codes)
    from scipy.stats import rankdata

    return rankdata(table.numbers(k), nan_policy="omit")


def associations(table: Table) -> np.ndarray:
    """[d, d], 0 to 1: |Spearman's rho| of two columns of numbers, the correlation ratio of ranks for numbers and levels, Cramer's V of levels."""
    places = [coordinate(table, k) for k in range(len(table.names))]
    plain = [k for k, one in enumerate(places) if table.kinds[k] != CATEGORICAL and not np.isnan(one).any() and np.ptp(one) > 0]
    found = np.zeros((len(places), len(places)))
    if len(plain) > 1:
        found[np.ix_(plain, plain)] = np.abs(np.corrcoef([places[k] for k in plain]))
    for a, b in zip(*np.triu_indices(len(places), 1), strict=True):
        if a not in plain or b not in plain:
            found[a, b] = found[b, a] = between(places[a], places[b], table.kinds[a], table.kinds[b])
    np.fill_diagonal(found, 0)
    return found


def associated(table: Table, k: int) -> np.ndarray:
    """[d]: how strongly each column hangs together with column k, which counts 0 itself."""
    own = coordinate(table, k)
    return np.array([0.0 if j == k else between(own, coordinate(table, j), table.kinds[k], table.kinds[j]) for j in range(len(table.names))])


def between(a: np.ndarray, b: np.ndarray, kind_a: str, kind_b: str) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    if kind_a != CATEGORICAL and kind_b != CATEGORICAL:
        return float(abs(np.corrcoef(a, b)[0, 1]))
    if kind_a == CATEGORICAL and kind_b == CATEGORICAL:
        return cramer(a.astype(int), b.astype(int))
    return ratio(a, b.astype(int)) if kind_b == CATEGORICAL else ratio(b, a.astype(int))


def ratio(numbers: np.ndarray, codes: np.ndarray) -> float:
    """The share of the variance that the levels explain, less what they would by chance (epsilon squared), as a root."""
    _, codes, count = np.unique(codes, return_inverse=True, return_counts=True)
    if len(count) == len(codes):
        return 0.0
    means = np.bincount(codes, numbers) / count
    inside = ((numbers - means[codes]) ** 2).sum() / (len(codes) - len(count))
    return float(np.sqrt(max(0.0, 1 - inside / numbers.var(ddof=1))))


def cramer(a: np.ndarray, b: np.ndarray) -> float:
    """Cramer's V without its bias (Bergsma 2013)."""
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    n, rows, columns = len(a), a.max() + 1, b.max() + 1
    seen = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)
    expected = np.outer(seen.sum(1), seen.sum(0)) / n
    chance = (rows - 1) * (columns - 1) / (n - 1)
    phi = max(0.0, ((seen - expected) ** 2 / expected).sum() / n - chance)
    rows, columns = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    return float(np.sqrt(min(1.0, phi / max(min(rows, columns) - 1, 1e-12))))


def off_data(table: Table, axis: Axis) -> tuple[np.ndarray, int | None]:
    """[g]: the share of rows that, given this value, have one that no row with a similar value of another column has; and which column that is.

    Similar: in the same tenth (fewer bins where there are few rows), or of the same level. The other column is the one with the largest share.
    """
    worst, who = np.zeros(len(axis)), None
    for j in range(len(table.names)):
        if j == axis.place:
            continue
        bins, size = binned(table, j, int(np.clip(len(table) // EACH, 1, 10)))
        found = np.bincount(bins, table.weights, size) @ unseen(axis, bins, size)
        if found.sum() > worst.sum():
            worst, who = found, j
    return worst, who


def unseen(axis: Axis, bins: np.ndarray, size: int) -> np.ndarray:
    """bool [bins, g]: values beyond the range of the bin's rows by more than a tenth of it, or levels that none of them has."""
    known = ~np.isnan(axis.at)
    if axis.kind == CATEGORICAL:
        seen = np.zeros((size, len(axis)), bool)
        seen[bins[known], axis.at[known].astype(int)] = True
        return ~seen
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, bins[known], axis.at[known])
    np.maximum.at(high, bins[known], axis.at[known])
    room = np.where(high >= low, (high - low) * ROOM, 0)
    return (axis.ticks < (low - room)[:, None]) | (axis.ticks > (high + room)[:, None])


def off_pairs(table: Table, first: Axis, second: Axis) -> np.ndarray:
    """0 or 1, [g1, g2]: pairs of values of which one never comes with something similar to the other."""
    count = int(np.clip(len(table) // EACH, 1, 10))
    one, two = (seen_from(table, a, b, count) for a, b in ((first, second), (second, first)))
    return (one | two.T).astype(np.float64)


def seen_from(table: Table, axis: Axis, other: Axis, count: int) -> np.ndarray:
    """bool [g, g of other]: whether no row with a similar value of the other has such a value."""
    if other.kind == CATEGORICAL:
        bins = np.where(np.isnan(other.at), len(other), other.at).astype(int)
        return unseen(axis, bins, len(other) + 1)[: len(other)].T
    edges = cuts(other.at[~np.isnan(other.at)], count)
    bins = np.where(np.isnan(other.at), len(edges) + 1, np.searchsorted(edges, other.at))
    return unseen(axis, bins, len(edges) + 2)[np.searchsorted(edges, other.ticks)].T
