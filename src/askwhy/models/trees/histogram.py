"""The trees of scikit-learn's gradient boosting on histograms."""

from __future__ import annotations

from typing import Any

import numpy as np

from askwhy.models.forest import LEAF, Forest
from askwhy.models.trees.common import starts
from askwhy.models.trees.scikit_learn import Tree, asking, check_fitted, forest, meaning, whole_of

CODES = 256  # categories of a column at most, one bit each in eight words


def read(model: Any) -> Forest:
    """The trees of a fitted HistGradientBoosting estimator. Raises ModelError, UnsupportedError."""
    check_fitted(model)
    unit, link = meaning(model)
    order = order_of(model)
    predictors = [one for together in model._predictors for one in together]
    outputs = model.n_trees_per_iteration_
    words = [one.raw_left_cat_bitsets for one in predictors]
    firsts = starts([len(sets) for sets in words])

    def prepare(rows: Any) -> np.ndarray:
        values = model._preprocess_X(rows, reset=False)
        found = np.empty(values.shape)
        found[:, order] = values
        return found

    return forest(
        model,
        [tree_of(one.nodes, order, first) for one, first in zip(predictors, firsts, strict=True)],
        members=members_of(np.concatenate(words)),
        output=np.arange(len(predictors), dtype=np.int32) % outputs,
        base=np.asarray(model._baseline_prediction, np.float64).ravel(),
        prepare=asking(model, prepare),
        raw=asking(model, model._raw_predict),
        unit=unit,
        link=link,
        whole=whole_of(model, outputs),
    )


def order_of(model: Any) -> np.ndarray:
    """Which column of the table each column is that the trees see: they see the categories first."""
    categorical = model.is_categorical_
    return np.arange(model.n_features_in_) if categorical is None else np.argsort(~categorical, kind="stable")


def members_of(words: np.ndarray) -> np.ndarray:
    """bool [sets, codes] of bits in words of 32, uint32 [sets, 8]."""
    bits = words[:, :, None] >> np.arange(32, dtype=np.uint32) & 1
    return bits.reshape(len(words), CODES).astype(bool)


def tree_of(nodes: np.ndarray, order: np.ndarray, first: int) -> Tree:
    """Unknown and missing categories are NaN in what the trees see, and go where missing values go."""
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, LEAF, nodes[side].astype(np.int64)) for side in ("left", "right"))
    category = np.where(nodes["is_categorical"] == 1, nodes["bitset_idx"].astype(np.int64) + first, -1)
    value, feature = nodes["value"][:, None], order[nodes["feature_idx"]]
    return Tree(left, right, feature, nodes["num_threshold"], nodes["missing_go_to_left"], value, nodes["count"], category)
