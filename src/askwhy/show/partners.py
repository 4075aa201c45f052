"""Which second feature a feature's values depend on most."""

from __future__ import annotations

from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.show.feature import Feature, feature_of

ROWS = 25  # in a bin of the first feature, at least
BINS, GROUPS, LEVELS = 20, 3, 5  # of the first feature; of numbers and of levels of a second one: more would be too few rows each
ROUNDING = 1e-12  # share of the variance that may be an error of single precision


def strongest_partner(values: np.ndarray, features: Any, j: int, interactions: np.ndarray | None = None) -> np.ndarray:
    """The other features [d - 1], the one that interacts most with feature j first: a picture's colour is order[0].

    From exact interaction values [n, d, d]: by mean |interaction|. Without them by `partner_shares` of feature j's values [n].
    Raises InputError. Example: `askwhy.show.strongest_partner(why.values[:, 2], X, 2)`.
    """
    table = np.asarray(features)
    check(values, table, j, interactions)
    strength = partner_shares(values, table, j) if interactions is None else np.abs(interactions[:, j]).mean(0)
    order = np.argsort(-strength, kind="stable")
    return order[order != j]


def partner_shares(values: np.ndarray, features: Any, j: int) -> np.ndarray:
    """[d]: the share of the variance of feature j's values that a second feature explains among rows of about the same x_j.

    Rows fall into bins by x_j and the straight line inside each bin is removed; each second feature parts a bin into thirds by
    rank (or its levels). The share is epsilon squared (Kelley 1935), (between - df mean_within) / total: noise has none, however many levels.
    """
    table = np.asarray(features)
    bins = groups_of(feature_of(table[:, j]), int(np.clip(len(table) // ROWS, 1, BINS)))
    values = np.asarray(values, np.float64)
    left = without_lines(values, feature_of(table[:, j]), bins)
    if (left**2).sum() <= ROUNDING * ((values - values.mean()) ** 2).sum():
        return np.zeros(table.shape[1])
    return np.array([0.0 if k == j else epsilon_squared(left, bins, groups_of(feature_of(column), GROUPS)) for k, column in enumerate(table.T)])


def check(values: np.ndarray, table: np.ndarray, j: int, interactions: np.ndarray | None) -> None:
    """Raises InputError."""
    if table.ndim != 2 or np.shape(values) != table.shape[:1]:
        raise InputError(f"values has the shape {list(np.shape(values))} and features {list(table.shape)}; give one value for each row.")
    if not 0 <= j < table.shape[1]:
        raise InputError(f"there is no feature {j}: the table has {table.shape[1]}, counted from 0.")
    if interactions is not None and np.shape(interactions) != (*table.shape, table.shape[1]):
        raise InputError(f"interactions has the shape {list(np.shape(interactions))}; for these features it is {[*table.shape, table.shape[1]]}.")


def groups_of(feature: Feature, count: int) -> np.ndarray:
    """int [n]: of numbers by rank, of categories by level, rare ones together; missing values are a group of their own."""
    places = np.minimum(feature.numbers, LEVELS) if feature.levels else np.minimum(np.floor(feature.shades * count), count - 1)
    return np.where(feature.missing, np.nanmax(places, initial=-1) + 1, places).astype(int)


def without_lines(values: np.ndarray, feature: Feature, bins: np.ndarray) -> np.ndarray:
    """What is left of the values after a straight line in x_j in each bin."""
    x = np.zeros(len(values)) if feature.levels else np.nan_to_num(feature.numbers)
    x, values = x - means(x, bins), values - means(values, bins)
    covariance, variance = means(x * values, bins), means(x * x, bins)
    return values - np.divide(covariance, variance, out=np.zeros_like(x), where=variance > 0) * x


def means(values: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """[n]: of each row, the mean of its bin."""
    return (np.bincount(bins, values) / np.maximum(np.bincount(bins), 1))[bins]


def epsilon_squared(values: np.ndarray, bins: np.ndarray, groups: np.ndarray) -> float:
    """Values whose mean is zero in each bin, parted once more by groups."""
    total, (_, cells) = float((values**2).sum()), np.unique(bins * (groups.max() + 1) + groups, return_inverse=True)
    between = float((means(values, cells) ** 2).sum())
    parts, kinds = int(cells.max()) + 1, len(np.unique(bins))
    if total <= 0 or parts == kinds or parts == len(values):
        return 0.0
    noise = (parts - kinds) * (total - between) / (len(values) - parts)
    return max(0.0, (between - noise) / total)
