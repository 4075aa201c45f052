"""What stands for absent columns of a table when it has to fit those that are present: conditional distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from askwhy.components import Components
from askwhy.errors import InputError, UnsupportedError
from askwhy.game import Given
from askwhy.models.base import CATEGORICAL, Items
from askwhy.tables import kinds_of, names_of

DRAWS = 100  # rows drawn for each coalition
NUGGET = 1e-6  # of the variances, so that columns that follow from others can be inverted


def gaussian(x: np.ndarray, rows: np.ndarray, weights: np.ndarray, labels: np.ndarray, bandwidth: float, seed: int) -> Given:
    """Draws from the normal distribution with the background's mean and covariance, given the present columns."""
    mean = weights @ rows
    spread = (rows - mean).T @ ((rows - mean) * weights[:, None])
    spread[np.diag_indices(len(mean))] += NUGGET * np.maximum(np.diag(spread), 1e-12)
    noise = np.random.default_rng(seed).standard_normal((DRAWS // 2, len(mean)))
    noise = np.concatenate([noise, -noise])  # their mean is exactly 0

    def draws(present: np.ndarray) -> np.ndarray:
        absent = ~present
        out = np.broadcast_to(x, (DRAWS, len(x))).copy()
        if not absent.any():
            return out
        pull = np.linalg.solve(spread[np.ix_(present, present)], spread[np.ix_(present, absent)])  # [present, absent]
        left = spread[np.ix_(absent, absent)] - spread[np.ix_(absent, present)] @ pull
        values, vectors = np.linalg.eigh(left)
        root = vectors * np.sqrt(np.maximum(values, 0))
        out[:, absent] = mean[absent] + (x - mean)[present] @ pull + noise[:, absent] @ root.T
        return out

    return lambda z: (np.stack([draws(row) for row in z[:, labels]]), np.full((len(z), DRAWS), 1 / DRAWS))


def empirical(x: np.ndarray, rows: np.ndarray, weights: np.ndarray, labels: np.ndarray, bandwidth: float, seed: int) -> Given:
    """The background's rows, weighted by how near they are to x in the present columns (Aas, Jullum & Loland 2021).

    w = exp(-D^2 / (2 bandwidth^2)), D^2 the Mahalanobis distance in these columns over their number.
    """
    mean = weights @ rows
    spread = (rows - mean).T @ ((rows - mean) * weights[:, None])
    spread[np.diag_indices(len(mean))] += NUGGET * np.maximum(np.diag(spread), 1e-12)

    def weigh(present: np.ndarray) -> np.ndarray:
        if not present.any():
            return weights
        off = (rows - x)[:, present]
        distance = np.einsum("ki,ki->k", off, np.linalg.solve(spread[np.ix_(present, present)], off.T).T) / present.sum()
        near = weights * np.exp(-(distance - distance.min()) / (2 * bandwidth**2))
        return near / near.sum()

    return lambda z: (np.broadcast_to(rows, (len(z), *rows.shape)), np.stack([weigh(row) for row in z[:, labels]]))


CONDITIONAL: dict[str, Callable[..., Given]] = {"gaussian": gaussian, "empirical": empirical}


def conditional(name: str, items: Items, i: int, rows: Any, weights: np.ndarray | None, found: Components, bandwidth: float, seed: int) -> Given:
    """z [m, d] -> rows [m, k, columns] and their weights [m, k]. Raises UnsupportedError where columns are no numbers."""
    if items.kind != "table" or found.labels is None:
        raise UnsupportedError(f"value_function={name!r} needs a table, where the other columns tell what an absent one may be; use 'baseline'.")
    batch = items.batch if isinstance(items.batch, np.ndarray) else items.batch.cpu().numpy()
    kinds = items.kinds or kinds_of(batch)
    if CATEGORICAL in kinds or "date" in kinds:
        odd = names_of(items)[next(k for k, kind in enumerate(kinds) if kind != "numeric")]
        raise UnsupportedError(f"value_function={name!r} needs numbers in every column, and {odd!r} holds others; use 'marginal', or encode it.")
    if len(rows) < 2:
        raise InputError(f"value_function={name!r} needs a background of many rows; give background=X.")
    if not bandwidth > 0:
        raise InputError(f"bandwidth={bandwidth}: how near a row has to be; give a positive number, 0.1 is usual.")
    x, numbers = batch[i].astype(np.float64), np.asarray(rows, dtype=np.float64)
    if np.isnan(x).any() or np.isnan(numbers).any():
        raise InputError(f"value_function={name!r} needs numbers without gaps; fill the missing values, or use 'marginal'.")
    shares = np.full(len(numbers), 1 / len(numbers)) if weights is None else weights / weights.sum()
    return CONDITIONAL[name](x, numbers, shares, found.labels, bandwidth, seed)
