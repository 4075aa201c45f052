"""What is near what in a layer: how much of it a picture keeps, and how far groups are apart, with errors and the level of chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

HALVES = 50  # of the items, for the error of the silhouette
FEW = 12  # items, below which nothing can be said about an error
SHUFFLES = 100  # of the labels, for the level of chance


def coordinates(rows: np.ndarray) -> np.ndarray:
    """rows [n, d] on their principal axes, [n, min(n, d)]: the same distances, the widest axis first, in the units of the rows."""
    centred = rows.astype(np.float64)
    centred -= centred.mean(0)
    n, d = centred.shape
    if d <= n:
        found = centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    else:  # the same from the n x n products: a feature map is a hundred times as wide as there are items
        squares, found = np.linalg.eigh(centred @ centred.T)
        found = (found * np.sqrt(squares.clip(0)))[:, ::-1]
    return found * np.where(found[np.abs(found).argmax(0), range(found.shape[1])] < 0, -1, 1)


def distances_of(rows: np.ndarray) -> np.ndarray:
    """Euclidean, [n, n]."""
    from sklearn.metrics import pairwise_distances

    return pairwise_distances(rows)  # type: ignore[no-any-return]


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    """[n, count]: the nearest others of each item, the nearest first; of equally near ones the first."""
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    return others.argsort(1, kind="stable")[:, :count]


# ---- how much of a layer a picture keeps ----------------------------------------------------------------------------


def kept_of(rows: np.ndarray, points: np.ndarray, k: int) -> tuple[float, float, float]:
    """Trustworthiness and continuity (Venna & Kaski 2001), and the share of the k nearest neighbours that are lost.

    Trustworthiness falls where the picture shows neighbours that are none in the layer, continuity where neighbours are torn apart.
    """
    from sklearn.manifold import trustworthiness

    near, shown = nearest(distances_of(rows), k), nearest(distances_of(points), k)
    lost = 1 - np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(near, shown, strict=True)])
    return float(trustworthiness(rows, points, n_neighbors=k)), float(trustworthiness(points, rows, n_neighbors=k)), float(lost)


# ---- how far groups are apart ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Apart:
    """How well the nearest others tell an item's label, and how clear the groups are; chance: the mean with shuffled labels."""

    score: float  # share of items that are told right, or R^2 of numbers
    silhouette: float  # -1 to 1; NaN for numbers
    score_error: float  # standard errors
    silhouette_error: float
    chance: float


def apart(distances: np.ndarray, labels: np.ndarray, k: int, seed: int) -> Apart:
    """labels [n]: int64 codes of classes, from 0 on, or float64 numbers. The errors are NaN of fewer than 12 items."""
    rng = np.random.default_rng(seed)
    near = nearest(distances, k)
    clear = (float("nan"),) * 2 if labels.dtype.kind == "f" else silhouette(distances, labels, rng)
    chance = np.mean([told(near, rng.permutation(labels))[0] for _ in range(SHUFFLES)])
    score, each = told(near, labels)
    least = 0.0 if labels.dtype.kind == "f" else 1 / len(labels)  # where all are told right, the next one may still be told wrong
    return Apart(score, clear[0], max(error_of(each, near), least), clear[1], float(chance))


def told(near: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Leave-one-out: the share of items whose class most of their k nearest have, or R^2 of the mean of their numbers; and what each item adds."""
    others, n = labels[near], len(labels)
    if labels.dtype.kind == "f":
        wrong, usual = (labels - others.mean(1)) ** 2, ((labels - labels.mean()) * n / (n - 1)) ** 2  # beside the mean of the others
        share = wrong.sum() / usual.sum()
        return float(1 - share), (share * usual - wrong) / usual.mean()
    votes = np.stack([(others == code).sum(1) for code in range(labels.max() + 1)], 1)
    right = (votes.argmax(1) == labels).astype(np.float64)
    return float(right.mean()), right - right.mean()


def error_of(each: np.ndarray, near: np.ndarray) -> float:
    """The standard error of a mean over items that are told by their neighbours: two of them go together by the share of neighbours they have
    in common, themselves included (Conley 1999)."""
    n, k = near.shape
    if n < FEW:
        return float("nan")
    through = each + np.bincount(near.ravel(), np.repeat(each, k), n)
    return float(np.sqrt((through**2).sum() / (k + 1)) / n)


def silhouette(distances: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The mean over items, and its standard error by the delete-half jackknife: its deviation between random halves of the items."""
    n, half = len(labels), len(labels) // 2
    found = float(silhouettes(distances, labels).mean())
    if n < FEW:
        return found, float("nan")
    draws = (np.sort(rng.permutation(n)[:half]) for _ in range(HALVES))
    parts = [silhouettes(distances[np.ix_(some, some)], labels[some]).mean() for some in draws]
    return found, float(np.std(parts) * np.sqrt(half / (n - half)))


def silhouettes(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(b - a) / max(a, b) of each item (Rousseeuw 1987): a the mean distance to its class, b to the nearest other; 0 for an only one of its class."""
    own, at = np.eye(labels.max() + 1)[labels], np.arange(len(labels))  # [n, classes]
    sums, counts = distances @ own, own.sum(0)
    inside = sums[at, labels] / np.maximum(counts[labels] - 1, 1)
    others = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    others[at, labels] = np.inf
    beside = others.min(1)
    known = (counts[labels] > 1) & np.isfinite(beside) & (np.maximum(inside, beside) > 0)
    beside = np.where(known, beside, 1.0)
    return np.where(known, (beside - inside) / np.maximum(inside, beside), 0.0)


def jackknife(without: Any) -> float:
    """The standard error of a statistic from its values [g] without each of g parts."""
    found = np.asarray(without, np.float64)
    return float(np.sqrt((len(found) - 1) * np.mean((found - found.mean()) ** 2)))
