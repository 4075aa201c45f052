"""LIME: a linear model that stands in for the model near one input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from askwhy.answer import answer, pad
from askwhy.components import absent, recipe
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.game import Game, Progress, over_items, progress_of
from askwhy.registry import method
from askwhy.score import ask


@method(
    title="LIME",
    needs="predictions",
    inputs=("image",),
    asks="Near this picture, which regions raise and which lower the score, when regions are hidden at random and a straight line is fitted to the answers?",
    reads="positive: the region speaks for the class; negative: against it",
    paper="Ribeiro et al. 2016, https://arxiv.org/abs/1602.04938; sampling: Tan et al. 2023 (GLIME), https://arxiv.org/abs/2311.15722",
    preference=20,
)
def lime(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, samples: int = 1000, width: float = 0.25, components: Any = None, baseline: Any = "component_mean",
    num_features: int | None = None, selection: str = "auto", ridge: float = 1.0, sampling: str = "local", precision: str = "float32", seed: int = 0,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """Coefficients [n, d] of a weighted ridge regression of the score on which components are shown, with standard errors.

    width: what "near" means: weight exp(-D^2 / (2 width^2)) with D = 1 - sqrt(share shown), the cosine distance. samples,
    width, components and baseline are choices that change the answer: vary them. num_features, selection: keep the best
    ("none", "forward", "lasso", "highest_weights"; "auto" is forward up to 6, else highest weights). sampling: "local"
    draws neighbours by their weight, so that seeds agree sooner; "uniform" is the original. details: fidelity (R2).
    Ribeiro et al. 2016; Tan et al. 2023. Example: `askwhy.lime(model, photo, samples=500, seed=1).plot()`.
    """
    check_settings(samples, width, selection, sampling, num_features)
    score = ask(model, x, target, versus)
    chosen = recipe(components, score.items)
    score.predict()
    fits, parts, names = [], [], set()
    with progress_of(progress, "lime") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            found = chosen.make(score.items, i)
            rows, name = absent(baseline, score.items, i, found, seed)
            z, weight, together = neighbours(len(found), samples, width, sampling, np.random.default_rng([seed, i]))
            v = Game(score, i, found, rows, batch_size=batch_size, tick=count, precision=precision)
            check_hidden(z, weight, found.names, samples, width)
            fitted = fit(z, v(z), weight, together, num_features, selection, ridge)
            fits.append({**fitted, "deviation": v.deviation})
            parts.append(found)
            names.add(name)
    return answer(
        score,
        pad([f["values"] for f in fits]),
        std_error=pad([f["std_error"] for f in fits], np.nan),
        base_value=np.array([f["intercept"] for f in fits]),
        components=parts,
        params={"components": chosen.text, "baseline": ", ".join(sorted(names))},
        details={
            "fidelity": tuple(f["fidelity"] for f in fits),
            "selected": tuple(f["selected"] for f in fits),
            "effective_samples": tuple(f["effective_samples"] for f in fits),
            **({"bfloat16_deviation": max(f["deviation"] for f in fits)} if precision != "float32" else {}),
        },
    )


def check_settings(samples: int, width: float, selection: str, sampling: str, num_features: int | None) -> None:
    """One clear message for each wrong setting."""
    if samples < 10:
        raise InputError(f"samples={samples}: a regression needs at least 10, better several hundred.")
    if not width > 0:
        raise InputError(f"width={width}: the neighbourhood's width has to be positive; 0.25 is usual for pictures.")
    if selection not in SELECTIONS and selection != "auto":
        raise InputError(f"selection={selection!r}: choose 'auto', {', '.join(map(repr, SELECTIONS))}.")
    if sampling not in ("local", "uniform"):
        raise InputError(f"sampling={sampling!r}: choose 'local' or 'uniform'.")
    if num_features is not None and num_features < 1:
        raise InputError(f"num_features={num_features}: keep at least one, or None for all.")


def check_hidden(z: np.ndarray, weight: np.ndarray, names: Sequence[str], samples: int, width: float) -> None:
    """A component that no neighbour hides, or that none shows, has no coefficient."""
    if len(names) == 1:
        raise InputError("the whole input is one component, so nothing can be compared; choose finer components (more superpixels, or patches).")
    share = weight @ z / weight.sum()
    bad = (share < 1e-9) | (share > 1 - 1e-9)
    if bad.any():
        raise InputError(
            f"width={width}, samples={samples}: no neighbour that counts hides {names[int(bad.argmax())]}, so its effect cannot be seen; widen the neighbourhood, or take more samples."
        )


def log_kernel(share: np.ndarray, width: float) -> np.ndarray:
    """The logarithm of the weight of a neighbour that shows this share of the components: log sqrt(exp(-D^2 / width^2))."""
    return -((1 - np.sqrt(share)) ** 2) / (2 * width**2)


def neighbours(d: int, samples: int, width: float, sampling: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """z bool [samples, d], the first all present; their weights; and how many in a row belong together (1 or 2).

    Every way has the same expected regression. "uniform": each component shown with probability 1/2, weighted by the
    kernel. "local": the number shown follows binomial(d, 1/2) times the kernel, taken at evenly spread quantiles, and
    all weigh the same; where the neighbourhood is wide enough, each z comes with its complement, since in a pair the
    effects of two components together cancel.
    """
    from scipy.special import expit

    if sampling == "uniform":
        z = rng.random((samples, d)) < 0.5
        z[0] = True
        return z, np.exp(log_kernel(z.mean(1), width)), 1
    near = log_kernel(np.arange(d + 1) / d, width)  # of a z that shows 0..d components
    of_pair, both = expit(near - near[::-1]), np.logaddexp(near, near[::-1])
    worth = np.average(1 / (of_pair**2 + (1 - of_pair) ** 2), weights=chance(d, both))  # how many samples a pair counts for
    paired = worth > 1.5
    count = quantiles(chance(d, both if paired else near), -(-samples // 2) if paired else samples, rng)
    z = rng.random((len(count), d)).argsort(1).argsort(1) < count[:, None]
    z[0] = True
    if not paired:
        return z, np.ones(samples), 1
    z = np.stack([z, ~z], 1).reshape(-1, d)[:samples]
    return z, of_pair[z.sum(1)], 2


def chance(d: int, log_factor: np.ndarray) -> np.ndarray:
    """[d + 1]: the probability that 0..d components are shown, binomial(d, 1/2) times a factor."""
    from scipy.special import gammaln

    shown = np.arange(d + 1)
    logs = gammaln(d + 1) - gammaln(shown + 1) - gammaln(d - shown + 1) + log_factor
    share = np.exp(logs - logs.max())
    return share / share.sum()


def quantiles(share: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers 0..d with these shares, evenly spread, so that no draw misses a part of the neighbourhood."""
    spread = (np.arange(count) + rng.random()) / count
    return np.minimum(np.searchsorted(np.cumsum(share), spread), len(share) - 1)


def fit(z: np.ndarray, y: np.ndarray, weight: np.ndarray, together: int, num_features: int | None, selection: str, ridge: float) -> dict[str, Any]:
    """Weighted ridge on the selected components: values, std_error [d] (NaN where not selected), intercept, fidelity."""
    from sklearn.linear_model import Ridge

    d = z.shape[1]
    x = z.astype(np.float64)
    chosen = np.arange(d) if num_features is None or num_features >= d else select(x, y, weight, num_features, selection)
    line = Ridge(alpha=ridge).fit(x[:, chosen], y, sample_weight=weight)
    values, error = np.zeros(d), np.full(d, np.nan)
    values[chosen] = line.coef_
    error[chosen] = standard_errors(x[:, chosen], y - line.predict(x[:, chosen]), weight, together, ridge)
    effective = round(float(weight.sum() ** 2 / (weight**2).sum()))
    fidelity = float(line.score(x[:, chosen], y, weight)) if np.ptp(y) > 0 else 1.0
    return {
        "values": values,
        "std_error": error,
        "intercept": float(line.intercept_),
        "fidelity": fidelity,
        "selected": len(chosen),
        "effective_samples": effective,
    }


def standard_errors(x: np.ndarray, residual: np.ndarray, weight: np.ndarray, together: int, ridge: float) -> np.ndarray:
    """Of ridge coefficients, by the sandwich formula, which does not assume that the model is linear (White 1980).

    Samples that were drawn together count as one (Liang & Zeger 1986).
    """
    n, d = x.shape
    centred = x - np.average(x, axis=0, weights=weight)
    bread = np.linalg.pinv((centred * weight[:, None]).T @ centred + ridge * np.eye(d))
    pull = np.add.reduceat(centred * (weight * residual)[:, None], np.arange(0, n, together))  # [draws, d]
    spare = max(n - d - 1, 1)
    return np.sqrt(np.diag(bread @ (pull.T @ pull) @ bread) * n / spare)


def select(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int, selection: str) -> np.ndarray:
    """The columns to keep, as in the paper's implementation."""
    if selection == "auto":
        selection = "forward" if k <= 6 else "highest_weights"
    return SELECTIONS[selection](x, y, weight, k)


def _all(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    return np.arange(x.shape[1])


def _forward(x: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    """Add the column that raises the weighted R2 most, k times."""
    from sklearn.linear_model import LinearRegression

    kept: list[int] = []
    for _ in range(k):
        rest = [j for j in range(x.shape[1]) if j not in kept]
        gains = [LinearRegression().fit(x[:, [*kept, j]], y, weight).score(x[:, [*kept, j]], y, weight) for j in rest]
        kept.append(rest[int(np.argmax(gains))])
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
