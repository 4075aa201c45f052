"""A decision tree explains itself: the conditions on the way to a leaf, and what each of them changed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from askwhy.answer import answer
from askwhy.components import features
from askwhy.errors import InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, counted, progress_of
from askwhy.local.linear import source_of
from askwhy.models.forest import LEAF, Forest, check_forest, read_forest
from askwhy.models.function import FunctionModel
from askwhy.registry import method
from askwhy.score import Score, ask
from askwhy.tables import names_of


@method(
    title="Decision path",
    needs="path",
    inputs=("table",),
    asks="Which conditions did this row meet on its way through the decision tree, and how did each change the answer?",
    reads="positive: the conditions on this column raised the score; the values sum to it less its mean over the training rows; details tell the path in words",
    paper="Saabas values: Palczewska et al. 2013, https://arxiv.org/abs/1312.1121",
    when="intrinsic",
    preference=70,
)
def decision_path(model: Any, x: Any, target: Any = None, *, versus: Any = None, progress: bool | Progress | None = None) -> Explanation:
    """For each column the change of the node's score where the path asks it, values [n, d]: sum of s(child) - s(node).

    For one decision tree of scikit-learn. s of a node: the share of the class, or the mean (median) of its training rows;
    base_value: s of the root. details["path"]: a sentence for each row, all conditions on a column in one, as
    "petal width <= 0.8 -> setosa (50 of 50 training rows)". Unlike Shapley values these depend on which column the tree asks first.
    Raises UnsupportedError for other models. Palczewska et al. 2013.
    Example: `askwhy.decision_path(tree, X[:3]).details["path"]`.
    """
    source = source_of(model)
    if "BaseDecisionTree" not in {kind.__name__ for kind in type(source).__mro__}:
        raise UnsupportedError(f"decision_path is for one decision tree of scikit-learn, and this is a {type(source).__name__}; try tree_shap.")
    tree, score = read_forest(source), ask(model, x, target, versus)
    if score.items.kind != "table":
        raise InputError(f"decision_path explains rows of a table [n, d]; an item has the shape {list(score.items.batch.shape[1:])}.")
    given = FunctionModel.given(score.items, score.items.batch)
    rows = tree.prepare(given)
    check_forest(tree, given, rows)
    score.predict()
    values, base, said = np.zeros(rows.shape), np.zeros(len(rows)), []
    with progress_of(progress, "decision_path") as tick:
        for i in range(len(score)):
            path = nodes_of(tree, rows[i])
            steps = score.read(source.tree_.value[path, 0, :], [i] * len(path))
            np.add.at(values[i], tree.feature[path[:-1]], np.diff(steps))
            base[i] = steps[0]
            counted(tick, i + 1, len(score))
            said.append(sentence(conditions(tree, path, rows[i], names_of(score.items)), outcome(source, score, path[-1])))
    gap = values.sum(1) + base - score.prediction
    return answer(
        score,
        values,
        base_value=base,
        residual=gap / np.maximum(np.abs(score.prediction - base), 1e-12),
        components=[features().make(score.items, i) for i in range(len(score))],
        unit=tree.unit,
        details={"path": tuple(said), "note": "; ".join(said[:3]) + (f"; and {len(said) - 3} more paths" if len(said) > 3 else "")},
    )


def nodes_of(tree: Forest, row: np.ndarray) -> np.ndarray:
    """The nodes that a row passes, from the root to its leaf."""
    path = [0]
    while tree.left[path[-1]] != LEAF:
        node = path[-1]
        goes_left = tree.goes_left(np.array([node]), row[[tree.feature[node]]])[0]
        path.append(int(tree.left[node] if goes_left else tree.right[node]))
    return np.array(path)


# ---- in words -----------------------------------------------------------------------------------------------------


def conditions(tree: Forest, path: np.ndarray, row: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """One interval for each column, in the order in which the path first asks them."""
    low, high = np.full(tree.width, -np.inf), np.full(tree.width, np.inf)
    for node, after in pairwise(path):
        k, cut = tree.feature[node], tree.threshold[node]
        if after == tree.left[node]:
            high[k] = min(high[k], cut)  # the cut between known and missing values is infinite
        else:
            low[k] = cut
    asked = dict.fromkeys(tree.feature[path[:-1]].tolist())
    return [f"{names[k]} is missing" if np.isnan(row[k]) else interval(names[k], low[k], high[k]) for k in asked]


def interval(name: str, low: float, high: float) -> str:
    """ "28 < age <= 37", "age > 37"; "age is known" after a split between known and missing values."""
    if np.isinf(low) and np.isinf(high):
        return f"{name} is known"
    if np.isinf(high):
        return f"{name} > {low:.6g}"
    return f"{name} <= {high:.6g}" if np.isinf(low) else f"{low:.6g} < {name} <= {high:.6g}"


def sentence(found: list[str], then: str) -> str:
    return f"{' and '.join(found) or 'every row'} -> {then}"


def outcome(source: Any, score: Score, leaf: int) -> str:
    """What the leaf answers, and from how many training rows."""
    tree = source.tree_
    count, value = int(tree.n_node_samples[leaf]), tree.value[leaf, 0]
    rows, weighted = f"{count} training row{'s' if count > 1 else ''}", tree.weighted_n_node_samples[leaf] != count
    if not hasattr(source, "classes_"):
        middle = "median" if source.criterion == "absolute_error" else "mean"
        return f"{value[0]:.6g} ({middle} of {rows}{', weighted' if weighted else ''})"
    best = int(value.argmax())
    share = f"{value[best]:.1%} of {rows} by weight" if weighted else f"{round(value[best] * count)} of {rows}"
    return f"{score.name(best)} ({share})"
