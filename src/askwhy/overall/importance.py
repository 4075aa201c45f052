"""Which columns matter over all rows: permutation, drop-column, the model's own importance, mean |Shapley value|."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.components import Components, features
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.game import Progress, progress_of
from askwhy.kept import Kept
from askwhy.overall.measures import Measure, measure_of
from askwhy.overall.own import own_importance
from askwhy.overall.support import associations
from askwhy.overall.table import Table, table_of
from askwhy.tables import Background

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "permutation": "permutation importance",
    "drop-column": "drop-column importance",
    "model": "the model's own importance",
    "shapley": "mean |value|",
}
STRONG = 0.7  # association of two columns of which one can stand in for the other


@dataclass(frozen=True, eq=False)
class Importance(Kept):
    """How much each column (or group of columns) matters. values [d], in `unit`; std_error [d] where it is known.

    samples [r, d]: what was averaged: repeats, or folds. details: what the error bars are over, the score with all columns, ...
    """

    values: np.ndarray
    names: tuple[str, ...]
    method: str
    unit: str
    std_error: np.ndarray | None = None
    samples: np.ndarray | None = None
    target: str = ""  # whose score, where it is not the error of all outputs
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most important as (name, value), largest first."""
        if k < 0:
            raise InputError(f"k={k}: give the number of columns to name.")
        return [(self.names[j], float(self.values[j])) for j in np.argsort(-self.values, kind="stable")[:k]]

    def summary(self) -> str:
        """A few lines: the most important, their unit, the cost and how far to trust them."""
        error = dict.fromkeys(self.names) if self.std_error is None else dict(zip(self.names, self.std_error, strict=True))
        parts = ", ".join(f"{name} {value:.3g}{'' if error[name] is None else f' (standard error {error[name]:.2g})'}" for name, value in self.top(5))
        lines = [f"{TITLES[self.method]}{f' for {self.target}' if self.target else ''}, {self.unit}: {parts}", *self.trust()]
        return "\n".join([*lines, f"{self.model_calls} model calls, {self.seconds:.2f} s"])

    def trust(self) -> list[str]:
        """What is known of the error, one sentence each."""
        told = self.details
        said = [f"error bars: {told['error_over']}" if "error_over" in told else "no error bars: the library gives one number for each column"]
        if "with_all" in told:
            said.append(f"{told['measure']} with all columns: {told['with_all']:.4g}")
        if told.get("noise", 0) > 0:
            said.append(f"the values were sampled: a column without any effect would show about {told['noise']:.2g}")
        return [*said, told["note"]] if "note" in told else said

    def plot(self, ax: Axes | None = None, most: int = 15) -> Axes:
        """Bars with 95 % error bars, the most important on top. Returns the axes and never shows them."""
        from askwhy import show

        title = f"{TITLES[self.method]}{f': {self.target}' if self.target else ''}"
        return show.importance(self.values, self.names, ax, error=self.std_error, title=title, most=most, unit=self.unit)

    def __repr__(self) -> str:
        return f"<Importance by {self.method}, {len(self)} columns, {', '.join(name for name, _ in self.top(3))}>"


def importance(
    model: Any, X: Any = None, y: Any = None, *, how: str = "permutation", score: str | Callable[[Any, Any], float] | None = None, groups: Any = None,
    repeats: int | None = None, folds: Any = 5, kind: str | None = None, seed: int = 0, batch_size: int | str = "auto",
    progress: bool | Progress | None = None,
) -> Importance:  # fmt: skip
    """Which columns matter over all rows of X [n, d]; y holds the truth. Give rows that the model was not trained on.

    how: "permutation": the rise of the error when a column is shuffled, over `repeats` (10; Fisher, Rudin & Dominici 2019);
    "drop-column": when the estimator is refitted without it, cross-validated in `folds`, `repeats` (1) times;
    "model": the library's own, `kind` of it ("gain", "split", ...). Mean |Shapley value|: `askwhy.mean_importance(why)`.
    score: "log_loss" (classes) or "squared_error" (numbers) by default, "accuracy", "absolute_error", or a function
    (y, predictions) -> a number, larger being better. groups: columns that go together, as in `askwhy.features`.
    Raises InputError, UnsupportedError. Example: `askwhy.importance(model, X_test, y_test).plot()`.
    """
    began = time.perf_counter()
    if how not in HOW:
        remedy = "; mean |value| is askwhy.mean_importance(askwhy.shapley(model, X, target, background=X))" if how == "shapley" else ""
        raise InputError(f"how={how!r}: choose {', '.join(map(repr, HOW))}{remedy}.")
    if how == "model":
        refuse_given(X=X, y=y, score=score, groups=groups, repeats=repeats)
        found = own_importance(model, kind)
    else:
        refuse_given(how, kind=kind)
        check(X, y, repeats, seed)
        with progress_of(progress, how) as tick:
            found = HOW[how](model, X, y, score, groups, repeats, folds, seed, batch_size, tick)
    return Importance(**found, method=how, seed=seed, seconds=time.perf_counter() - began, versions=versions())


def refuse_given(how: str = "model", **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name}= means nothing for how={how!r}; leave it out.")


def check(X: Any, y: Any, repeats: Any, seed: Any) -> None:
    if X is None or y is None:
        raise InputError(f"{'X' if X is None else 'y'}= is missing: the error is measured on rows X and their truth y.")
    if isinstance(X, Background):
        raise InputError("X is a background; its rows have no truth y. Give the rows of a test set.")
    for name, value, least in (("repeats", 1 if repeats is None else repeats, 1), ("seed", seed, 0)):
        whole(name, value, least)


# ---- permutation ----------------------------------------------------------------------------------------------------


def by_permutation(
    model: Any, X: Any, y: Any, score: Any, groups: Any, repeats: int | None, folds: Any, seed: int, batch_size: Any, tick: Progress | None
) -> dict[str, Any]:
    table = table_of(model, X)
    n, repeats = len(table), repeats or 10
    if n < 2:
        raise InputError("X has a single row, and there is nothing to shuffle; give a test set.")
    components = features(groups).make(table.score.items, 0)
    table.announce(n * (1 + len(components) * repeats))
    whole = steps(tick, n, 1 + len(components) * repeats)
    outputs = predictions(table, {}, batch_size, whole(0))
    measure, truth = measure_of(score, y, n, table.score.model, outputs.shape[1])
    usual = measure.loss(truth, outputs)
    samples, errors = np.zeros((repeats, len(components))), np.zeros(len(components))
    for k in range(len(components)):
        losses, orders = [], []
        for r in range(repeats):
            orders.append(np.random.default_rng([seed, k, r]).permutation(n))
            cells = {int(c): table.held(int(c), orders[-1]) for c in np.flatnonzero(members(components) == k)}
            losses.append(measure.loss(truth, predictions(table, cells, batch_size, whole(1 + k * repeats + r))))
        samples[:, k] = [loss.mean() - usual.mean() for loss in losses]
        errors[k] = error_over_rows(usual, losses, orders) if measure.rows else error_over_repeats(samples[:, k])
    over = "rows and shuffles" if measure.rows else f"the {repeats} shuffles, not the rows: a mean over rows, as 'log_loss', would tell more"
    details = {"error_over": over, "rows": table.text, **told(measure, usual), **hint(table, components)}
    return {
        "values": samples.mean(0), "std_error": errors, "samples": samples, "names": components.names, "unit": measure.unit, "details": details,
        "params": {"score": measure.name, "repeats": repeats, "groups": str(features(groups))}, "model_calls": table.score.calls,
    }  # fmt: skip


def predictions(table: Table, cells: Mapping[int, Any], batch_size: Any, tick: Progress | None) -> np.ndarray:
    """[n, k]: the model's outputs, with these cells in place of the table's own."""

    def show(start: int, stop: int) -> Any:
        which = np.arange(start, stop)
        return table.changed(which, {k: held[start:stop] for k, held in cells.items()})

    def read(outputs: Any) -> Any:
        return outputs.reshape(len(outputs), -1)

    return table.ask(len(table), show, read, batch_size, tick)


def members(components: Components) -> np.ndarray:
    assert components.labels is not None, "columns are not windows"
    return components.labels


def error_over_rows(usual: np.ndarray, losses: list[np.ndarray], orders: list[np.ndarray]) -> float:
    """The standard error of a mean over pairs of rows, a U-statistic: each row counts as the one whose cell is replaced, and as the one that gives it."""
    rise = np.array(losses) - usual
    given = np.empty_like(rise)
    for r, order in enumerate(orders):
        given[r, order] = rise[r]
    return float((rise.mean(0) + given.mean(0)).std(ddof=1) / np.sqrt(len(usual)))


def error_over_repeats(samples: np.ndarray) -> float:
    return float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else float("nan")


def steps(tick: Progress | None, n: int, count: int) -> Callable[[int], Progress | None]:
    """Progress of call k of `count` calls about n rows each."""
    return lambda k: None if tick is None else lambda done, total: tick(k * n + done, count * n)


def told(measure: Measure, usual: np.ndarray) -> dict[str, Any]:
    """The measure with nothing changed, as its name has it."""
    loss = float(usual.mean())
    return {"measure": measure.name, "with_all": -loss if not measure.rows else 1 - loss if measure.name == "accuracy" else loss}


def hint(table: Table, components: Components) -> dict[str, Any]:
    """What shuffling cannot tell: how much a column matters beside another that says the same."""
    strong, labels = associations(table), members(components)
    strong[labels[:, None] == labels] = 0
    if strong.max(initial=0) < STRONG:
        return {}
    a, b = np.unravel_index(strong.argmax(), strong.shape)
    return {
        "note": f"{table.names[a]} goes with {table.names[b]} ({strong[a, b]:.2f} of 1): shuffling one makes rows that do not exist, "
        "and each stands in for the other; groups= shuffles them together"
    }


# ---- drop-column, Shapley values ------------------------------------------------------------------------------------


def by_refitting(
    model: Any, X: Any, y: Any, score: Any, groups: Any, repeats: int | None, folds: Any, seed: int, batch_size: Any, tick: Progress | None
) -> dict[str, Any]:
    from askwhy.overall.refit import refitted

    return refitted(model, X, y, score, groups, repeats or 1, folds, seed, tick)


def mean_importance(why: Explanation) -> Importance:
    """The mean of |value| over the rows of an Explanation of one target with a value for each column: values [n, d].

    For Shapley values: how far a column moves the score on average, in the unit of the values. The standard error is over
    rows. Sampled values are a little too large in magnitude; details["noise"] says what a column without effect would show.
    Raises InputError. Example: `askwhy.mean_importance(askwhy.shapley(model, X, 1, background=X)).plot()`.
    """
    names = parts_of(why)
    values = np.abs(why.values)
    error = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(len(names), np.nan)
    noise = 0.0 if why.std_error is None else float(np.sqrt(2 / np.pi) * np.nan_to_num(why.std_error).mean(0).max())
    target = f"{why.target[0]}{f' rather than {why.versus[0]}' if why.versus else ''}" if why.target else ""
    return Importance(
        values.mean(0), names, "shapley", f"mean |value| ({why.unit})", error, target=target,
        params={"values": why.method, **why.params}, details={"error_over": f"{len(values)} rows", "noise": noise},
        model_calls=why.model_calls, seconds=why.seconds, seed=why.seed, versions=why.versions,
    )  # fmt: skip


def parts_of(why: Any) -> tuple[str, ...]:
    """The names of the columns, which have to be those of every row. Raises InputError."""
    if not isinstance(why, Explanation):
        raise InputError(f"mean_importance takes an Explanation, as askwhy.shapley gives it, and this is a {type(why).__name__}.")
    if why.values.ndim != 2:
        raise InputError(
            f"the values have the shape {list(why.values.shape)}; give one target, or one output as why[name], with a value for each column, [n, d]."
        )
    for what, asked in (("targets", why.target), ("second targets", why.versus or ())):
        if len(set(asked)) > 1:
            raise InputError(f"the rows are explained for different {what} ({', '.join(sorted(set(asked))[:5])}); explain all for one, as target=.")
    if why.components is None:
        return tuple(f"feature {k}" for k in range(why.values.shape[1]))
    if len(set(why.components)) > 1:
        raise InputError("the components of the rows differ, so that there is no mean over them; explain the columns of a table.")
    return why.components[0]


HOW: dict[str, Any] = {"permutation": by_permutation, "drop-column": by_refitting, "model": None}
