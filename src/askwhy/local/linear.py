"""Linear models explain themselves: each coefficient times its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.absence import absent
from askwhy.answer import answer
from askwhy.components import features, undivided
from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, counted, progress_of, weights_of
from askwhy.models import Model, wrap
from askwhy.models.base import Items
from askwhy.registry import method
from askwhy.score import Score, ask

BLACK_BOX = "aw.shapley(model, x, background=rows) explains it as a black box."


@method(
    title="Coefficients times values",
    needs="coefficients",
    inputs=("table",),
    asks="How much does each column of this row add to the linear model's score, compared with its mean?",
    reads="positive: the column raises the linear score; the values sum to that score less what the means give",
    paper="situational importance: Strumbelj & Kononenko 2014, https://doi.org/10.1007/s10115-013-0679-x",
    when="intrinsic",
    preference=70,
)
def linear_effects(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, background: Any = None, progress: bool | Progress | None = None
) -> Explanation:
    """w_j (x_j - mean_j) for each column, values [n, d]: the exact parts of a linear score, and its Shapley values where columns are independent.

    For scikit-learn's models with `coef_`, also behind StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler in a Pipeline.
    The score is the linear one: of a classifier `decision_function` (`unit` says whether these are log odds), of
    three and more classes only differences mean something (versus=). background: rows [k, d] whose mean is compared with;
    without it the mean is 0, and base_value the intercept. residual: the gap to the model's own score, of rounding only.
    Raises UnsupportedError for what is not linear. Strumbelj & Kononenko 2014.
    Example: `askwhy.linear_effects(LogisticRegression().fit(X, y), X[:3], background=X).plot(how="waterfall")`.
    """
    source = source_of(model)
    line = line_of(source)
    score = ask(linear_model(model, source), x, target, versus)
    check_question(score, line)
    with progress_of(progress, "linear_effects") as tick:
        score.predict()
        counted(tick, len(score), len(score))
    rows, mean, text = numbers(score.items.batch), *mean_of(background, score.items)
    weights, constant = asked(score, line.weights, np.subtract), asked(score, line.constant, np.subtract)
    values = weights * (rows - mean)
    base = constant + weights @ mean
    gap = values.sum(1) + base - score.prediction
    size = (asked(score, np.abs(line.weights), np.add) * (np.abs(rows) + np.abs(mean))).sum(1) + asked(score, line.size, np.add)
    check_linear(source, gap, size, score.items.batch)
    return answer(
        score,
        values,
        base_value=base,
        residual=gap / np.maximum(np.abs(score.prediction - base), 1e-12),
        components=[features().make(score.items, i) for i in range(len(score))],
        unit=scale_of(source),
        params={"value_function": scale_of(source), "background": text},
    )


def source_of(model: Any) -> Any:
    """The object that the user wrapped, or gave as it is."""
    source = getattr(model, "source", None) if isinstance(model, Model) else model
    return model if source is None else source


def linear_model(model: Any, source: Any) -> Model:
    """The same question to the linear score."""
    given = {name: getattr(model, name) for name in ("labels", "transform")} if isinstance(model, Model) else {}
    return wrap(source, output="logits" if hasattr(source, "decision_function") else None, **given)


def check_question(score: Score, line: Line) -> None:
    if score.items.kind != "table":
        raise InputError(f"linear_effects explains rows of a table [n, d]; an item has the shape {list(score.items.batch.shape[1:])}.")
    if any(callable(target) for target in (*score.targets, *(score.versus or []))):
        raise UnsupportedError("a function as the target may not be linear in the model's scores; give the class, and versus= for a difference.")
    classes = getattr(score.model, "classes", None)
    if classes and classes != len(line.constant):
        raise UnsupportedError(f"the model has {len(line.constant)} rows of coefficients for {classes} classes (one against one?); {BLACK_BOX}")
    if score.items.batch.shape[1] != line.weights.shape[1]:
        raise InputError(f"x has {score.items.batch.shape[1]} columns, the model was trained on {line.weights.shape[1]}.")


def numbers(batch: Any) -> np.ndarray:
    try:
        return np.asarray(batch, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a linear model multiplies numbers, and x holds something else: {error}.") from error


def mean_of(background: Any, items: Items) -> tuple[np.ndarray, str]:
    """[d]: what a value is compared with, and its name."""
    if background is None:
        return np.zeros(items.batch.shape[1]), "none: a mean of 0"
    rows, text = absent(background, items, 0, undivided(items), weighted=True)
    return np.average(numbers(rows), axis=0, weights=weights_of(background)), text


def asked(score: Score, part: np.ndarray, join: np.ufunc) -> np.ndarray:
    """[n, ...]: what the questions ask of a part of the line [k, ...], joined with that of versus= where it is given."""
    found = part[np.array(score.targets)]
    return found if score.versus is None else join(found, part[np.array(score.versus)])


def check_linear(source: Any, gap: np.ndarray, size: np.ndarray, batch: np.ndarray) -> None:
    """Rounding only."""
    kind = np.float32 if batch.dtype == np.float32 else np.float64
    wrong = np.flatnonzero(~(np.abs(gap) <= 8 * (batch.shape[1] + 8) * np.finfo(kind).eps * size + 1e-300))
    if len(wrong):
        raise UnsupportedError(
            f"the score of this {type(source).__name__} is not its coefficients times the values: for row {wrong[0]} they differ by {gap[wrong[0]]:.3g}; {BLACK_BOX}"
        )


def scale_of(source: Any) -> str:
    """What the linear score is."""
    if not hasattr(source, "decision_function"):
        return "the target's own unit"
    last = last_step(source)
    together = type(last).__name__.startswith("Logistic") or hasattr(last, "priors_")
    if together and len(source.classes_) > 2:
        return "log odds before softmax"
    return "log odds" if together or getattr(last, "loss", None) == "log_loss" else "margin"


# ---- the line -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Line:
    """score_k = weights_k x + constant_k."""

    weights: np.ndarray  # [k, d]
    constant: np.ndarray  # [k]
    size: np.ndarray  # [k]: the magnitudes that went into the constant, for what rounding may do


def line_of(source: Any) -> Line:
    """A linear model in the units of its raw columns. Raises ModelError, UnsupportedError."""
    steps = [step for _, step in source.steps] if hasattr(source, "steps") else [source]
    weights, constant = coefficients(steps[-1])
    size = np.abs(constant)
    for step in reversed(steps[:-1]):
        factor, shift = (np.broadcast_to(part, weights.shape[1]) for part in scaling(step))
        constant, size = constant + weights @ shift, size + np.abs(weights) @ np.abs(shift)
        weights = weights * factor
    return Line(weights, constant, size)


def last_step(source: Any) -> Any:
    return source.steps[-1][1] if hasattr(source, "steps") else source


def coefficients(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """[k, d] and [k], one row for each score; of two classes the first has the negative of the second."""
    if not hasattr(model, "coef_"):
        if hasattr(model, "fit") and not hasattr(model, "n_features_in_"):
            raise ModelError(f"this {type(model).__name__} has no coefficients before it is fitted; call fit first.")
        raise UnsupportedError(f"a {type(model).__name__} has no coefficients (coef_), which linear_effects reads; {BLACK_BOX}")
    found = model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_
    weights = np.atleast_2d(np.asarray(found, np.float64))
    constant = np.broadcast_to(np.asarray(getattr(model, "intercept_", 0.0), np.float64), (len(weights),))
    two = len(getattr(model, "classes_", ())) == 2 and len(weights) == 1
    return (np.concatenate([-weights, weights]), np.concatenate([-constant, constant])) if two else (weights, constant)


def scaling(step: Any) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the shift of a step that scales each column alone."""
    if step is None or step == "passthrough":
        return np.ones(1), np.zeros(1)
    found = SCALERS.get(type(step).__name__)
    if found is None or getattr(step, "clip", False):
        raise UnsupportedError(
            f"the step {type(step).__name__}{'(clip=True)' if found else ''} of the pipeline does not scale each column by a fixed factor; {BLACK_BOX}"
        )
    return found(step)


def divided(step: Any, center: Any) -> tuple[np.ndarray, np.ndarray]:
    factor = np.ones(1) if step.scale_ is None else 1 / np.asarray(step.scale_)
    return factor, np.zeros(1) if center is None else -np.asarray(center) * factor


SCALERS: dict[str, Callable[[Any], tuple[np.ndarray, np.ndarray]]] = {
    "MaxAbsScaler": lambda step: divided(step, None),
    "MinMaxScaler": lambda step: (step.scale_, step.min_),
    "RobustScaler": lambda step: divided(step, step.center_),
    "StandardScaler": lambda step: divided(step, step.mean_ if step.with_mean else None),
}
