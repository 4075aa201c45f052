"""The importance that a library computes itself, and what it calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from askwhy.errors import InputError, UnsupportedError
from askwhy.models import Model
from askwhy.models.boosters import read, reader

XGBOOST = {
    "gain": "mean gain of the loss in the column's splits", "weight": "number of splits", "cover": "mean cover of the column's splits",
    "total_gain": "total gain of the loss", "total_cover": "total cover",
}  # fmt: skip
LIGHTGBM = {"gain": "total gain of the loss in the column's splits", "split": "number of splits"}
CATBOOST = {"PredictionValuesChange": "mean change of the prediction, in % of all columns'"}
SKLEARN = {"impurity": "mean decrease in impurity, as a share of all columns'"}


def own_importance(model: Any, kind: str | None) -> dict[str, Any]:
    """values, names, unit and params. Raises UnsupportedError for a model without any, InputError for an unknown kind."""
    native = estimator_of(model)
    library = type(native).__module__.split(".")[0]
    if reader(native) is not None:
        trees = read(native)
        kinds, ask = BOOSTERS[library]
        chosen = chosen_kind(kind, kinds)
        values = ask(trees.native, chosen, trees.width)
        names = trees.names
    else:
        kinds, chosen, values = SKLEARN, chosen_kind(kind, SKLEARN), of_sklearn(native)
        known = getattr(native, "feature_names_in_", None)
        names = None if known is None else tuple(map(str, known))
    values = np.asarray(values, np.float64)
    names = names or tuple(f"feature {k}" for k in range(len(values)))
    return {"values": values, "names": names, "unit": kinds[chosen], "params": {"kind": chosen, "library": library}}


def estimator_of(model: Any) -> Any:
    """The object of its own library behind a wrapped model."""
    if not isinstance(model, Model):
        return model
    return getattr(model, "native", None) or getattr(getattr(model, "function", None), "__self__", model)


def chosen_kind(kind: str | None, kinds: dict[str, str]) -> str:
    if kind is not None and kind not in kinds:
        raise InputError(f"kind={kind!r}: this model has {', '.join(map(repr, kinds))}.")
    return kind or next(iter(kinds))


def of_sklearn(model: Any) -> np.ndarray:
    from sklearn.exceptions import NotFittedError

    try:
        return np.asarray(model.feature_importances_)
    except NotFittedError as error:
        raise InputError(f"the {type(model).__name__} cannot be asked before it is fitted.") from error
    except AttributeError as error:
        raise UnsupportedError(
            f"a {type(model).__name__} has no importance of its own (feature_importances_); ask how='permutation', "
            "or of a pipeline its last step, whose columns are those that the steps before it make."
        ) from error


def of_xgboost(booster: Any, kind: str, width: int) -> list[float]:
    """Columns that no split looks at are left out by XGBoost; they count 0."""
    found = booster.get_score(importance_type=kind)
    names = booster.feature_names or [f"f{k}" for k in range(width)]
    if any(np.ndim(value) for value in found.values()):
        raise UnsupportedError("a linear booster of several classes has a weight for each; ask how='permutation'.")
    return [float(found.get(name, 0.0)) for name in names]


def of_lightgbm(booster: Any, kind: str, width: int) -> Any:
    return booster.feature_importance(importance_type=kind)


def of_catboost(model: Any, kind: str, width: int) -> Any:
    return model.get_feature_importance(type=kind)


BOOSTERS: dict[str, tuple[dict[str, str], Callable[[Any, str, int], Any]]] = {
    "xgboost": (XGBOOST, of_xgboost),
    "lightgbm": (LIGHTGBM, of_lightgbm),
    "catboost": (CATBOOST, of_catboost),
}
