"""Drop-column importance: what the error would be had the model never seen a column."""

from __future__ import annotations

from typing import Any

import numpy as np

from askwhy.checks import is_whole
from askwhy.components import Components, features
from askwhy.errors import Cancelled, InputError, ModelError, UnsupportedError
from askwhy.game import Progress
from askwhy.models import wrap
from askwhy.models.base import Items, first_line
from askwhy.models.function import FunctionModel
from askwhy.overall.measures import measure_of
from askwhy.overall.own import estimator_of
from askwhy.tables import pick


def refitted(model: Any, X: Any, y: Any, score: Any, groups: Any, repeats: int, folds: Any, seed: int, tick: Progress | None) -> dict[str, Any]:
    """The rise of the error on each fold when the estimator is fitted on the others without a column; with its standard error.

    Folds share training rows, so that their differences hang together: the variance of their mean is
    (1 / folds + test rows / training rows) times that of one (Nadeau & Bengio 2003).
    """
    estimator = refittable(model)
    y = np.asarray(y)
    items: Items = FunctionModel(len).prepare(X)
    if items.kind != "table" or len(y) != len(items):
        raise InputError(f"X has the shape {list(items.batch.shape)} and y {list(y.shape)}; give a table [n, d] and the truth of each row.")
    components = features(groups).make(items, 0)
    if len(components) < 2:
        raise InputError("there is one column, or one group of all, and without it nothing is left to fit; give another.")
    parts = splits(estimator, X, y, folds, repeats, seed)
    losses, name = np.zeros((len(parts), 1 + len(components))), ""
    calls = 0
    for f, (train, test) in enumerate(parts):
        for k in range(-1, len(components)):
            kept = np.flatnonzero(labels_of(components) != k)
            measure, loss = on_fold(estimator, X, y, train, test, kept, score, "" if k < 0 else components.names[k])
            losses[f, k + 1], name, unit, rows = loss.mean(), measure.name, measure.unit, measure.rows
            calls += len(test)
            if tick is not None and tick(f * losses.shape[1] + k + 2, losses.size) is False:
                raise Cancelled(f"stopped after {f * losses.shape[1] + k + 2} of {losses.size} fits.")
    rises = losses[:, 1:] - losses[:, :1]
    share = float(np.mean([len(test) / len(train) for train, test in parts]))
    usual = float(losses[:, 0].mean())
    details = {
        "error_over": f"{len(parts)} folds (corrected for the training rows that they share)", "fits": losses.size, "measure": name,
        "with_all": -usual if not rows else 1 - usual if name == "accuracy" else usual,
    }  # fmt: skip
    return {
        "values": rises.mean(0), "samples": rises, "std_error": rises.std(0, ddof=1) * np.sqrt(1 / len(parts) + share), "names": components.names,
        "unit": unit, "details": details, "model_calls": calls,
        "params": {"score": name, "repeats": repeats, "folds": folds if isinstance(folds, int) else type(folds).__name__, "groups": str(features(groups))},
    }  # fmt: skip


def refittable(model: Any) -> Any:
    estimator = estimator_of(model)
    if not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        raise UnsupportedError(
            f"how='drop-column' fits the model anew without a column, and a {type(estimator).__name__} cannot be; give the estimator, or ask how='permutation'."
        )
    return estimator


def splits(estimator: Any, X: Any, y: np.ndarray, folds: Any, repeats: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows: stratified for a classifier. Raises InputError."""
    from sklearn.base import is_classifier
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

    if not (hasattr(folds, "split") or is_whole(folds, 2)):
        raise InputError(f"folds={folds!r}: give a whole number from 2 on, or a splitter of scikit-learn.")
    if not hasattr(folds, "split"):
        folds = (RepeatedStratifiedKFold if is_classifier(estimator) else RepeatedKFold)(n_splits=int(folds), n_repeats=repeats, random_state=seed)
    elif repeats > 1:
        raise InputError(f"repeats={repeats} and a splitter of your own do not go together; let the splitter repeat.")
    try:
        found = list(folds.split(X, y))
    except ValueError as error:
        raise InputError(f"folds= cannot split these rows: {first_line(error)}") from error
    if len(found) < 2:
        raise InputError("folds= gives a single split, which has no error bar; give two or more.")
    return found


def on_fold(
    estimator: Any, X: Any, y: np.ndarray, train: np.ndarray, test: np.ndarray, kept: np.ndarray, score: Any, without: str
) -> tuple[Any, np.ndarray]:
    """The measure and its losses on the test rows, fitted on these columns."""
    columns = X.iloc[:, kept] if hasattr(X, "iloc") else np.asarray(X)[:, kept]
    try:
        fitted = anew(estimator).fit(pick(columns, train), y[train])
    except Exception as error:  # whatever the library raises: say what was left out, keep the cause
        raise ModelError(
            f"the {type(estimator).__name__} cannot be fitted{f' without {without!r}' if without else ''}: {first_line(error)}"
        ) from error
    model: Any = wrap(fitted)
    items = model.prepare(pick(columns, test))
    outputs = np.asarray(model.outputs(items, items.batch), np.float64)
    measure, truth = measure_of(score, y[test], len(test), model, outputs.shape[1])
    return measure, measure.loss(truth, outputs)


def anew(estimator: Any) -> Any:
    """The same settings, not fitted. CatBoost copies what it is given, at which scikit-learn's clone stumbles."""
    from sklearn.base import clone

    try:
        return clone(estimator)
    except RuntimeError:
        return type(estimator)(**estimator.get_params())


def labels_of(components: Components) -> np.ndarray:
    assert components.labels is not None, "columns are not windows"
    return components.labels
