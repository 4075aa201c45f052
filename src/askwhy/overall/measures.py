"""How wrong predictions are, row by row; and the truth as the model's outputs have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.models.base import Model, is_missing

Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]  # truth [n], outputs [n, k] -> [n], or [1] where it is no mean over rows


@dataclass(frozen=True)
class Measure:
    """What importance is counted in. A loss: less is better."""

    name: str
    unit: str
    loss: Loss
    rows: bool = True  # whether the loss is a mean over rows, so that rows can be counted one by one


def log_loss(truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    if outputs.shape[1] < 2 or (outputs < 0).any() or np.abs(outputs.sum(1) - 1).max() > 1e-4:
        raise InputError(
            "score='log_loss' needs probabilities of two classes or more that sum to 1, and the model gives others; "
            "wrap(model, output='probabilities'), or choose score='accuracy'."
        )
    return -np.log(np.maximum(outputs[np.arange(len(truth)), truth], np.finfo(np.float64).eps))


def wrong_class(truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return (outputs.argmax(1) != truth).astype(np.float64)


def squared_error(truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return ((outputs - truth) ** 2).mean(1)


def absolute_error(truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.abs(outputs - truth).mean(1)


OF_CLASSES = {"log_loss": Measure("log_loss", "rise in log loss (nats)", log_loss), "accuracy": Measure("accuracy", "drop in accuracy", wrong_class)}
OF_NUMBERS = {
    "squared_error": Measure("squared_error", "rise in squared error (squared units of y)", squared_error),
    "absolute_error": Measure("absolute_error", "rise in absolute error (units of y)", absolute_error),
}


def measure_of(score: Any, y: Any, n: int, model: Model, width: int) -> tuple[Measure, np.ndarray]:
    """The measure that is meant, and the truth as it takes it: class numbers [n], numbers [n, k], or y for a function. Raises InputError."""
    y = np.asarray(y)
    if len(y) != n or not n:
        raise InputError(f"y has {len(y)} entries for {n} rows; give the truth of each row.")
    gaps = [k for k, one in enumerate(y.ravel().tolist()) if is_missing(one)]
    if gaps:
        raise InputError(f"y holds a missing value, first in row {gaps[0] * n // y.size}; leave such rows out.")
    if callable(score):
        return of_function(score), y
    known = {**OF_CLASSES, **OF_NUMBERS}
    if score is None:
        score = "log_loss" if width > 1 and y.ndim == 1 and (model.labels or y.dtype.kind in "iubOUST") else "squared_error"
    if score not in known:
        raise InputError(
            f"score={score!r}: choose {', '.join(map(repr, known))}, or give a function (y, predictions) -> a number, larger being better."
        )
    return known[score], classes_of(y, model.labels, width) if score in OF_CLASSES else numbers_of(y, width)


def of_function(score: Callable[[Any, Any], Any]) -> Measure:
    """The user's own: larger is better. It is given one column of predictions as [n]."""
    name = getattr(score, "__name__", type(score).__name__)

    def loss(truth: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        found = score(truth, outputs[:, 0] if outputs.shape[1] == 1 else outputs)
        if np.ndim(found) or not np.isfinite(found):
            raise InputError(f"score= ({name}) returned {found!r}; it has to return one finite number.")
        return np.array([-float(found)])

    return Measure(name, f"drop in {name}", loss, rows=False)


def classes_of(y: np.ndarray, labels: tuple[str, ...] | None, width: int) -> np.ndarray:
    """Class numbers: by the model's labels, else as they are."""
    if y.ndim != 1 or width < 2:
        raise InputError(
            f"y has the shape {list(y.shape)} and the model {width} output(s); a measure of classes needs y [n] and an output for each class."
        )
    if labels:
        place = {label: k for k, label in enumerate(labels)}
        found = [place.get(str(value), place.get(spelled(value))) for value in y.tolist()]
        if None not in found:
            return np.array(found)
    if y.dtype.kind in "biu" and y.min() >= 0 and y.max() < width:
        return y.astype(int)
    odd = y.tolist()[found.index(None) if labels else 0]
    known = (
        f"the classes {', '.join(labels[:8])}" if labels else f"{width} classes without names: wrap(model, labels=[...]), or give y as their numbers"
    )
    raise InputError(f"y holds {odd!r}, and the model has {known}.")


def spelled(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def numbers_of(y: np.ndarray, width: int) -> np.ndarray:
    """[n, k]"""
    try:
        truth = y.astype(np.float64).reshape(len(y), -1)
    except (TypeError, ValueError) as error:
        raise InputError(f"y holds {y.ravel().tolist()[0]!r}, which is no number; choose score='log_loss' or 'accuracy' for classes.") from error
    if truth.shape[1] != width:
        raise InputError(
            f"y has {truth.shape[1]} number(s) for each row, and the model gives {width}; give a truth for each output, or a function as score=."
        )
    return truth
