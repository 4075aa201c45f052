"""The trees of scikit-learn: single ones, forests, gradient boosting and isolation forests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sklearn
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models.base import said_clearly, show_shape
from askwhy.models.forest import LEAF, Forest
from askwhy.models.function import frame_maker
from askwhy.models.trees import common
from askwhy.models.trees.common import starts, two_dimensional

FEW = 200  # rows that the trees of a forest answer sooner one after another than in threads
MEANINGS = {  # by what scikit-learn's boosting calls its link
    "HalfLogitLink": ("half the log odds", common.OTHER[1]),  # AdaBoost's exponential loss
    "IdentityLink": common.OWN,
    "LogLink": common.MEAN,
    "LogitLink": common.LOG_ODDS,
    "MultinomialLogit": common.SOFTMAX,
}


def read(model: Any) -> Forest:
    """The trees of a fitted estimator. Raises ModelError, UnsupportedError."""
    check_fitted(model)
    outputs = getattr(model, "n_outputs_", 1)
    if outputs > 1:
        raise UnsupportedError(
            f"this {type(model).__name__} predicts {outputs} targets at once; fit one model for each, and explain them one by one."
        )
    return next(reads(model) for kind, reads in READS.items() if kind in names_of(model))


def check_fitted(model: Any) -> None:
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ModelError(f"this {type(model).__name__} has no trees before it is fitted; call fit first.") from error


def names_of(model: Any) -> list[str]:
    return [kind.__name__ for kind in type(model).__mro__]


# ---- trees side by side -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree; its nodes are counted from 0."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    default_left: np.ndarray
    value: np.ndarray  # [nodes, v]
    cover: np.ndarray
    category: np.ndarray | None = None  # the row of members of a categorical split, counted over all trees


def joined(trees: Sequence[Tree]) -> dict[str, Any]:
    """The fields of a Forest that hold nodes."""
    sizes = [len(tree.left) for tree in trees]
    roots = starts(sizes)
    split = np.concatenate([tree.left for tree in trees]) != LEAF

    def side(name: str, leaf: float = 0, shift: bool = False) -> np.ndarray:
        parts = [getattr(tree, name) + (root if shift else 0) for tree, root in zip(trees, roots, strict=True)]
        return np.where(split, np.concatenate(parts), leaf)

    no_category = [np.full(size, -1) if tree.category is None else tree.category for tree, size in zip(trees, sizes, strict=True)]
    return {
        "left": side("left", LEAF, shift=True).astype(np.int32),
        "right": side("right", LEAF, shift=True).astype(np.int32),
        "feature": side("feature").astype(np.int32),
        "threshold": side("threshold").astype(np.float64),
        "default_left": side("default_left").astype(bool),
        "category": np.where(split, np.concatenate(no_category), -1).astype(np.int32),
        "value": np.where(split[:, None], 0.0, np.concatenate([tree.value for tree in trees])),
        "cover": np.concatenate([tree.cover for tree in trees]).astype(np.float64),
        "roots": roots.astype(np.int32),
    }


def tree_of(tree: Any, value: np.ndarray, columns: np.ndarray | None = None) -> Tree:
    """scikit-learn's own arrays; `columns` are those of the table that the tree was given."""
    feature = np.maximum(tree.feature, 0)
    cover = tree.weighted_n_node_samples
    kept = feature if columns is None else columns[feature]
    return Tree(tree.children_left, tree.children_right, kept, tree.threshold, tree.missing_go_to_left, value, cover)


def forest(model: Any, trees: Sequence[Tree], **rest: Any) -> Forest:
    fields = {"members": np.zeros((0, 0), bool), "output": np.zeros(len(trees), np.int32), **rest}
    library = f"scikit-learn {sklearn.__version__}"
    return Forest(**joined(trees), **fields, width=model.n_features_in_, single=False, library=library)


# ---- what an estimator is given -----------------------------------------------------------------------------------


def asking(model: Any, ask: Callable[[Any], Any]) -> Callable[[Any], np.ndarray]:
    """float64 of what `ask` gives for the rows; an array is given the names of the table that the model was fitted on."""
    names = getattr(model, "feature_names_in_", None)
    named = frame_maker(None if names is None else tuple(names))

    def asked(rows: Any) -> np.ndarray:
        check_dense(rows)
        with said_clearly(show_shape(rows)), np.errstate(over="ignore"):  # a number too large for float32 becomes infinite
            return np.asarray(ask(named(rows) if named and not hasattr(rows, "columns") else rows), np.float64)

    return asked


def check_dense(rows: Any) -> None:
    if hasattr(rows, "toarray"):
        raise InputError(f"the rows are a sparse {type(rows).__name__}; give them as an array, rows.toarray().")


def single_precision(width: int, rows: Any) -> np.ndarray:
    """float32 of numbers of any size, where scikit-learn asks no more."""
    values = rows.to_numpy(np.float64, na_value=np.nan) if hasattr(rows, "columns") else np.asarray(rows)
    if values.ndim != 2 or values.shape[1] != width:
        raise InputError(f"x has the shape {show_shape(values)}; the model was trained on rows of {width} columns.")
    return values.astype(np.float32)


# ---- single trees and forests -------------------------------------------------------------------------------------


def of_trees(model: Any) -> Forest:
    """A tree, or the mean of several. A leaf of a classifier holds the share of each class."""
    single = not hasattr(model, "estimators_")
    members = [model] if single else model.estimators_
    check = partial(model._validate_X_predict, check_input=True) if single else model._validate_X_predict
    classes = getattr(model, "n_classes_", 0)
    kept = slice(1, 2) if classes == 2 else slice(None)  # of two classes the second says all
    trees = [tree_of(one.tree_, (one.tree_.value[:, 0, :] / len(members))[:, kept]) for one in members]
    ask = model.predict_proba if classes else model.predict

    def raw(rows: Any) -> np.ndarray:
        if single or len(rows) > FEW:
            return two_dimensional(ask(rows))[:, kept]
        x = check(rows)  # the threads of a forest take longer to start than a few rows to answer
        return np.sum([one.tree_.predict(x).reshape(len(x), -1) for one in members], 0)[:, kept] / len(members)

    return forest(
        model,
        trees,
        base=np.zeros(trees[0].value.shape[1]),
        prepare=asking(model, check),
        raw=asking(model, raw),
        unit="probability" if classes else common.OWN[0],
        whole=1.0 if classes == 2 else None,
    )


# ---- gradient boosting --------------------------------------------------------------------------------------------


def of_boosting(model: Any) -> Forest:
    """One tree for each raw score and round, after a first guess that is the same for all rows."""
    check_first_guess(model)
    unit, link = meaning(model)
    rounds, outputs = model.estimators_.shape
    trees = [tree_of(one.tree_, model.learning_rate * one.tree_.value[:, 0, :]) for one in model.estimators_.ravel()]
    ask = model.decision_function if hasattr(model, "classes_") else model.predict
    return forest(
        model,
        trees,
        output=np.tile(np.arange(outputs, dtype=np.int32), rounds),
        base=model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0].astype(np.float64),
        prepare=asking(model, partial(finite, model.n_features_in_)),
        raw=asking(model, lambda rows: two_dimensional(ask(rows))),
        unit=unit,
        link=link,
        whole=whole_of(model, outputs),
    )


def finite(width: int, rows: Any) -> np.ndarray:
    """float32, as gradient boosting takes it: it refuses missing values, which its trees would not."""
    return single_precision(width, check_array(rows, dtype=np.float32))


def check_first_guess(model: Any) -> None:
    start = model.init_
    constant = isinstance(start, (DummyClassifier, DummyRegressor)) and start.strategy != "stratified"
    if not constant and not isinstance(start, str):
        raise UnsupportedError(
            f"this {type(model).__name__} starts from a {type(start).__name__} (init=), whose guess is no tree and may depend on the row; "
            f"{common.BLACK_BOX}"
        )


def meaning(model: Any) -> common.Meaning:
    name = type(model._loss.link).__name__
    if name not in MEANINGS:
        raise UnsupportedError(f"the loss {model.loss!r} has a link that askwhy does not know, {name}; {common.BLACK_BOX}")
    return MEANINGS[name]


def whole_of(model: Any, outputs: int) -> float | None:
    """Of two classes with one raw score: the first has that with the other sign."""
    return 0.0 if hasattr(model, "classes_") and outputs == 1 else None


# ---- isolation forests --------------------------------------------------------------------------------------------


def of_isolation(model: Any) -> Forest:
    """How many splits it takes until a row is alone, on average over the trees: few for an outlier.

    This mean E is what adds up over the trees. The library's own score is -2^(-E / c) with c = `average_path` of the rows that
    a tree was grown from, so that E can be had back from it, exactly but for rounding.
    """
    usual = float(average_path(np.array([model.max_samples_]))[0])
    count, width = len(model.estimators_), model.n_features_in_
    trees = [isolating(one, columns, width, count) for one, columns in zip(model.estimators_, model.estimators_features_, strict=True)]
    return forest(
        model,
        trees,
        base=np.zeros(1),
        prepare=asking(model, partial(single_precision, width)),
        raw=asking(model, lambda rows: two_dimensional(-usual * np.log2(-model.score_samples(rows)))),
        unit="splits until alone",
    )


def isolating(one: Any, columns: np.ndarray, width: int, count: int) -> Tree:
    """A tree on all columns was given them as they are, whatever order `estimators_features_` tells."""
    tree = one.tree_
    splits = tree.compute_node_depths() - 1 + average_path(tree.n_node_samples)
    return tree_of(tree, splits[:, None] / count, columns if one.n_features_in_ < width else None)


def average_path(rows: np.ndarray) -> np.ndarray:
    """Mean depth at which a row is alone in a random tree on so many rows: 2 H(n - 1) - 2 (n - 1) / n (Liu et al. 2008).

    H(n) = ln n + Euler's constant, as the paper has it, and exactly 1 for two rows.
    """
    n = np.maximum(rows, 3).astype(np.float64)
    large = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(rows > 2, large, rows == 2)


READS: dict[str, Callable[[Any], Forest]] = {
    "BaseDecisionTree": of_trees,
    "BaseForest": of_trees,
    "BaseGradientBoosting": of_boosting,
    "IsolationForest": of_isolation,
}
