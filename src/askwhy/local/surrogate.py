"""The simple model that stands in near one input: a ridge line, a lasso, or a small tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from askwhy.errors import InputError

DEPTH = 3  # of a tree: seven questions can be read at a glance
Tell = Callable[[int, float], str]  # (column, threshold) -> "age > 37", the condition in words


@dataclass(frozen=True, eq=False)
class Samples:
    """Neighbours of one input, as the surrogate sees them; the first is the input itself."""

    z: np.ndarray  # [m, d]
    weight: np.ndarray  # [m]
    together: int = 1  # how many in a row were drawn together
    control: np.ndarray | None = None  # [m, c]: what moves the score, and has the mean 0 whatever z is
    far: np.ndarray = field(default_factory=lambda: np.empty(0))  # [m]: the squared distances
    rows: Any = None  # [m, d]: of a table, what the model is given


def fit(
    s: Samples, y: np.ndarray, usable: np.ndarray, tell: Tell, surrogate: str = "ridge", num_features: int | None = None,
    selection: str = "auto", ridge: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """The surrogate on the `usable` columns: values, std_error [d] (NaN where not selected), intercept, fidelity."""
    d = len(usable)
    x = s.z.astype(np.float64)
    chosen = np.flatnonzero(usable)
    if num_features is not None and num_features < len(chosen):
        chosen = chosen[select(x[:, chosen], y, s.weight, num_features, selection)]
    seen = x if len(chosen) == d else x[:, chosen]
    found = SURROGATES[surrogate](seen, y, s, ridge, lambda j, threshold: tell(int(chosen[j]), threshold))
    values, error = np.zeros(d), np.full(d, np.nan)
    values[chosen], error[chosen] = found.pop("values"), found.pop("std_error")
    effective = round(float(s.weight.sum() ** 2 / (s.weight**2).sum()))
    fidelity = explained(y, y - found.pop("said"), s.weight)
    return {
        **found, "values": values, "std_error": error, "usable": usable,
        "fidelity": fidelity, "selected": len(chosen), "effective_samples": effective,
    }  # fmt: skip


def explained(y: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> float:
    """R2: the share of the scores' spread that the surrogate follows."""
    spread = weight @ (y - weight @ y / weight.sum()) ** 2
    return float(1 - weight @ residual**2 / spread) if np.ptp(y) > 0 else 1.0


# ---- the surrogates -------------------------------------------------------------------------------------------------


def by_ridge(x: np.ndarray, y: np.ndarray, s: Samples, ridge: float, tell: Tell) -> dict[str, Any]:
    """Weighted ridge with a free intercept.

    Controls are uncorrelated with every column, so they change no coefficient in the mean; what they say about the score
    is taken off, and with it their part of the noise.
    """
    total = s.weight.sum()
    centre = s.weight @ x / total
    centred = np.subtract(x, centre, out=x)  # `fit` made x for this; a new array of that size costs as much as the sums over it
    scaled = centred if (s.weight == 1).all() else centred * np.sqrt(s.weight)[:, None]
    bread = inverse(scaled.T @ scaled, ridge)

    def line(calm: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        level = s.weight @ calm / total
        coefficients = bread @ (centred.T @ (s.weight * (calm - level)))
        return coefficients, level, level + centred @ coefficients

    (coefficients, level, said), calm, spent = line(y), y, 0
    if s.control is not None and len(y) > 10 * (x.shape[1] + s.control.shape[1]):
        calm, spent = y - foreseen(s.control, y - said), s.control.shape[1]
        coefficients, level, said = line(calm)
    error = standard_errors(centred, calm - said, s.weight, s.together, bread, spent)
    return {"values": coefficients, "std_error": error, "intercept": float(level - centre @ coefficients), "said": said}


def inverse(gram: np.ndarray, ridge: float) -> np.ndarray:
    """Of a Gram matrix with a penalty; without one it may be singular."""
    return np.linalg.inv(gram + ridge * np.eye(len(gram))) if ridge > 0 else np.linalg.pinv(gram, hermitian=True)


def foreseen(control: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The part of the residual that is a line in the controls."""
    gram = control.T @ control
    return control @ np.linalg.solve(gram + 1e-3 * np.eye(len(gram)), control.T @ residual)


def standard_errors(centred: np.ndarray, residual: np.ndarray, weight: np.ndarray, together: int, bread: np.ndarray, spent: int = 0) -> np.ndarray:
    """Of ridge coefficients, by the sandwich formula, which does not assume that the model is linear (White 1980).

    Samples that were drawn together count as one (Liang & Zeger 1986). `centred` is overwritten.
    """
    n, d = centred.shape
    pull = np.multiply(centred, (weight * residual)[:, None], out=centred)
    if together > 1:
        pull = np.add.reduceat(pull, np.arange(0, n, together))  # [draws, d]
    spare = max(n - d - spent - 1, 1)
    return np.sqrt(np.diag(bread @ (pull.T @ pull) @ bread) * n / spare)


def by_lasso(x: np.ndarray, y: np.ndarray, s: Samples, ridge: float, tell: Tell) -> dict[str, Any]:
    """The lasso whose penalty has the least BIC; errors are those of least squares on what it keeps, NaN for the rest."""
    from sklearn.linear_model import LassoLarsIC

    if len(y) <= x.shape[1] + 1:
        raise InputError(f"samples={len(y)} are too few for the lasso over {x.shape[1]} components; take more than that, better several hundred.")
    centre, level = s.weight @ x / s.weight.sum(), s.weight @ y / s.weight.sum()
    centred, root = x - centre, np.sqrt(s.weight)
    coefficients = (
        LassoLarsIC("bic", fit_intercept=False).fit(centred * root[:, None], (y - level) * root).coef_ if np.ptp(y) > 0 else np.zeros(x.shape[1])
    )
    kept = np.flatnonzero(coefficients)
    scaled = centred[:, kept] * root[:, None]
    error = np.full(x.shape[1], np.nan)
    error[kept] = standard_errors(centred[:, kept], y - level - centred @ coefficients, s.weight, s.together, inverse(scaled.T @ scaled, 0))
    intercept = float(level - centre @ coefficients)
    return {"values": coefficients, "std_error": error, "intercept": intercept, "said": intercept + x @ coefficients}


def by_tree(x: np.ndarray, y: np.ndarray, s: Samples, ridge: float, tell: Tell) -> dict[str, Any]:
    """A small regression tree; each step on the input's own path gives the change of the mean to the column it asks about."""
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=max(2, len(y) // 50), random_state=0).fit(x, y, s.weight)
    inner, means = tree.tree_, tree.tree_.value[:, 0, 0]
    path = tree.decision_path(x[:1]).indices
    values = np.zeros(x.shape[1])
    np.add.at(values, inner.feature[path[:-1]], np.diff(means[path]))
    none = np.full(x.shape[1], np.nan)
    return {"values": values, "std_error": none, "intercept": float(means[0]), "said": tree.predict(x), "tree": "\n".join(told(inner, tell))}


def told(tree: Any, tell: Tell, node: int = 0, depth: int = 0) -> Iterator[str]:
    """A tree in words, line by line."""
    mark = "  " * depth
    if tree.children_left[node] < 0:
        yield f"{mark}{tree.value[node, 0, 0]:.4g}"
        return
    yield f"{mark}if {tell(tree.feature[node], tree.threshold[node])}:"
    yield from told(tree, tell, tree.children_right[node], depth + 1)
    yield f"{mark}else:"
    yield from told(tree, tell, tree.children_left[node], depth + 1)


SURROGATES: dict[str, Callable[[np.ndarray, np.ndarray, Samples, float, Tell], dict[str, Any]]] = {
    "ridge": by_ridge,
    "lasso": by_lasso,
    "tree": by_tree,
}


# ---- which columns it may use ---------------------------------------------------------------------------------------


def select(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int, selection: str) -> np.ndarray:
    """The columns to keep, as in the paper's implementation."""
    if selection == "auto":
        selection = "forward" if k <= 6 else "highest_weights"
    return SELECTIONS[selection](x, y, weight, k)


def _all(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    return np.arange(x.shape[1])


def _forward(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    """Add the column that raises the weighted R2 most, k times; what a kept column says is taken off the others."""
    root = np.sqrt(weight)
    left = (x - np.average(x, axis=0, weights=weight)) * root[:, None]
    still, at_first = (y - np.average(y, weights=weight)) * root, (left**2).sum(0)
    kept: list[int] = []
    for _ in range(k):
        lengths = (left**2).sum(0)
        free = lengths > 1e-9 * at_first  # neither kept already, nor a sum of those
        gains = np.where(free, (still @ left) ** 2 / np.where(free, lengths, 1), -1)
        kept.append(int(np.argmax(gains)))
        step = left[:, kept[-1]] / np.sqrt(max(lengths[kept[-1]], 1e-300))
        still = still - step * (step @ still)
        left = left - np.outer(step, step @ left)
    return np.sort(kept)


def _lasso(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    """The last step of the lasso path with at most k columns."""
    from sklearn.linear_model import lars_path

    root = np.sqrt(weight)
    centred = (x - np.average(x, axis=0, weights=weight)) * root[:, None]
    _, _, path = lars_path(centred, (y - np.average(y, weights=weight)) * root, method="lasso")
    steps = [np.flatnonzero(step) for step in path.T]
    return next((kept for kept in reversed(steps) if 0 < len(kept) <= k), np.arange(min(k, x.shape[1])))


def _highest(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    """The k largest coefficients of a fit on all columns."""
    from sklearn.linear_model import Ridge

    coefficients = Ridge(alpha=0.01).fit(x, y, sample_weight=weight).coef_
    return np.sort(np.argsort(-np.abs(coefficients), kind="stable")[:k])


SELECTIONS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "none": _all,
    "forward": _forward,
    "lasso": _lasso,
    "highest_weights": _highest,
}
