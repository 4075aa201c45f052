"""How alike two representations of the same items are, from their n x n matrices of products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from askwhy.errors import InputError

BLOCK = 4096  # columns that are turned into float64 together
SAME = 1e-12  # variance as a share of the mean square, below which there is only the rounding of float32
Found = tuple[np.ndarray, np.ndarray | None]  # values [a, b], and their standard error


@dataclass(frozen=True, eq=False)
class Measure:
    """What is made of a matrix of products, how two lists of that are compared, and what it is when its items are shuffled."""

    prepare: Callable[[np.ndarray], np.ndarray | None]  # None where there is nothing to compare
    compare: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], Found]
    axes: int  # of `prepare`'s result that count items
    shuffles: int
    error_over: str = ""

    def shuffled(self, one: np.ndarray, order: np.ndarray) -> np.ndarray:
        return one[np.ix_(order, order)] if self.axes == 2 else one[order]


def products(rows: np.ndarray) -> np.ndarray | None:
    """float64 [n, n]: products of the rows [n, d] around their mean; None where all rows are the same."""
    found, square = np.zeros((len(rows), len(rows))), 0.0
    for start in range(0, rows.shape[1], BLOCK):
        part = rows[:, start : start + BLOCK].astype(np.float64)
        square += float((part**2).sum())
        part -= part.mean(0)
        found += part @ part.T
    return found if np.trace(found) > SAME * square else None


def rbf(found: np.ndarray) -> np.ndarray:
    """exp(-d^2 / 2 s^2) of the distances d; s is the median of d over pairs of items. Raises InputError."""
    square = np.diag(found)[:, None] + np.diag(found)[None] - 2 * found
    middle = float(np.median(square[np.triu_indices(len(found), 1)]))
    if not middle > SAME * square.max():
        raise InputError("kernel='rbf': most of the items are the same in a layer, so that their median distance is 0; take kernel='linear'.")
    return np.asarray(np.exp(-square.clip(0) / (2 * middle)))


# ---- centred kernel alignment ---------------------------------------------------------------------------------------


def centred(found: np.ndarray) -> np.ndarray:
    """H K H, with H = I - 1/n."""
    mean = found.mean(0)
    return np.asarray(found - mean - mean[:, None] + mean.mean())


def u_centred(found: np.ndarray) -> np.ndarray | None:
    """Rows sum to 0 without the diagonal, which is 0: the product of two such matrices is the unbiased HSIC of Song et al. (2012).

    None where it is 0 but for rounding: all items are equally far apart, or would be if single ones were nearer to, or farther from, all.
    """
    n = len(found)
    out = found.copy()
    np.fill_diagonal(out, 0)
    sums = out.sum(0)
    out += sums.sum() / ((n - 1) * (n - 2)) - (sums + sums[:, None]) / (n - 2)
    np.fill_diagonal(out, 0)
    return out if np.vdot(out, out) > SAME * np.vdot(found, found) else None


def cka(first: Sequence[np.ndarray], second: Sequence[np.ndarray], debiased: bool) -> Found:
    """<A, B> / sqrt(<A, A> <B, B>) of centred matrices, with the jackknife's standard error over items.

    The error is NaN where it is 0 / 0 without one of the items.
    """
    n = len(first[0])
    mixed = np.stack([np.stack([one[i] for one in first]) @ np.stack([one[i] for one in second]).T for i in range(n)])  # [n, a, b], by row
    own = [np.stack([(one**2).sum(1) for one in side], 1) for side in (first, second)]  # [n, a], [n, b]
    corners = [np.stack([np.diag(one) for one in side], 1) for side in (first, second)]
    parts = [(mixed, corners[0][:, :, None] * corners[1][:, None]), *((rows, corner**2) for rows, corner in zip(own, corners, strict=True))]
    whole = [rows.sum(0) for rows, _ in parts]
    less = [without_one(rows, corner, n - 3 if debiased else n - 1) for rows, corner in parts]
    values, each = (
        aligned(*whole),
        aligned(less[0], *(np.where(one > SAME * all_, one, np.nan) for one, all_ in zip(less[1:], whole[1:], strict=True))),
    )
    return values, np.sqrt((n - 1) / n * ((each - each.mean(0)) ** 2).sum(0))


def without_one(rows: np.ndarray, corner: np.ndarray, rest: int) -> np.ndarray:
    """[n, ...]: the product of two centred matrices without one item, centred anew. rest: n - 3 (unbiased) or n - 1.

    Their rows sum to 0, so without an item each sum is minus the entry of that item.
    """
    return np.asarray(rows.sum(0) - 2 * rows + corner - 2 * (rows - corner) / rest + corner / rest**2)


def aligned(mixed: np.ndarray, own_a: np.ndarray, own_b: np.ndarray) -> np.ndarray:
    return np.asarray(mixed / np.sqrt(own_a[..., :, None] * own_b[..., None, :]))


# ---- others ---------------------------------------------------------------------------------------------------------


def factor(found: np.ndarray) -> np.ndarray:
    """[n, r] with the same products and the length 1: principal components."""
    values, vectors = np.linalg.eigh(found)
    kept = values > SAME * values[-1]
    out = vectors[:, kept] * np.sqrt(values[kept])
    return np.asarray(out / np.linalg.norm(out))


def procrustes(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Found:
    """The largest <A Q, B> over rotations Q, of A and B of length 1: the sum of the singular values of A' B."""
    return np.array([[np.linalg.svd(a.T @ b, compute_uv=False).sum() for b in second] for a in first]), None


def neighbours_of(found: np.ndarray, k: int) -> np.ndarray:
    """bool [n, n]: whether column j is one of the k items nearest to row i."""
    square = np.diag(found)[None] - 2 * found  # the squared distance but for the row's own length
    np.fill_diagonal(square, np.inf)
    nearest = np.argsort(square, axis=1, kind="stable")[:, :k]
    out = np.zeros(found.shape, bool)
    np.put_along_axis(out, nearest, True, axis=1)
    return out


def shared(first: Sequence[np.ndarray], second: Sequence[np.ndarray], k: int) -> Found:
    """The mean share of the k nearest neighbours that an item has in both, and its standard error over items."""
    each = np.array([[(a & b).sum(1) / k for b in second] for a in first])  # [a, b, n]
    return each.mean(2), each.std(2, ddof=1) / np.sqrt(each.shape[2])


def measures(debiased: bool, neighbours: int) -> dict[str, Measure]:
    return {
        "cka": Measure(u_centred if debiased else centred, partial(cka, debiased=debiased), 2, 10, "the items (jackknife)"),
        "procrustes": Measure(factor, procrustes, 1, 2),
        "knn": Measure(partial(neighbours_of, k=neighbours), partial(shared, k=neighbours), 2, 10, "the items, as if they were independent"),
    }


def compared(measure: Measure, first: Sequence[Any], second: Sequence[Any], seed: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """values [a, b], their standard error, and the values [shuffles, a, b] when the items of the second are shuffled. NaN for what is None."""
    shape, live = (len(first), len(second)), [[k for k, one in enumerate(side) if one is not None] for side in (first, second)]
    if not live[0] or not live[1]:
        return np.full(shape, np.nan), None, np.full((0, *shape), np.nan)
    at = np.ix_(*live)
    a, b = [first[k] for k in live[0]], [second[k] for k in live[1]]
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(a[0])) for _ in range(measure.shuffles)]
    values, error = measure.compare(a, b)
    chance = [measure.compare(a, [measure.shuffled(one, order) for one in b])[0] for order in orders]
    return placed(values, shape, at), None if error is None else placed(error, shape, at), np.stack([placed(one, shape, at) for one in chance])


def placed(values: np.ndarray, shape: tuple[int, int], at: Any) -> np.ndarray:
    out = np.full(shape, np.nan)
    out[at] = values
    return out
