"""Trees of any library as plain arrays, which reproduce the library's own answer or are refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import ModelError, UnsupportedError

LEAF = -1


@dataclass(frozen=True, eq=False)
class Forest:
    """All nodes of all trees side by side. A row's raw score is base + the values of the leaves that it reaches.

    A row goes left where x <= threshold, or where its category is a member; NaN is a missing value.
    """

    left: np.ndarray  # int32 [nodes]: the node's left child, counted over all trees; LEAF at a leaf
    right: np.ndarray  # int32 [nodes]
    feature: np.ndarray  # int32 [nodes]: the column that a split looks at; 0 at a leaf
    threshold: np.ndarray  # float64 [nodes]
    default_left: np.ndarray  # bool [nodes]: where a missing value goes
    category: np.ndarray  # int32 [nodes]: the row of `members` of a categorical split, -1 at all others
    members: np.ndarray  # bool [categorical splits, codes]: whether a code goes left; a code beyond them goes right
    value: np.ndarray  # float64 [nodes, v]: of the leaves, with the weights of the trees in it; v = 1, or k where each tree answers for all
    cover: np.ndarray  # float64 [nodes]: how much of the training data came here, in rows or in the library's own weight
    roots: np.ndarray  # int32 [trees]
    output: np.ndarray  # int32 [trees]: which raw score a tree adds to; 0 where v = k
    base: np.ndarray  # float64 [k]
    width: int  # columns
    prepare: Callable[[Any], np.ndarray]  # rows as the library takes them -> float64 [n, width]: what the splits compare
    raw: Callable[[Any], np.ndarray]  # the same rows -> [n, k]: the library's own sum
    unit: str  # of the raw scores: "log odds", "probability", "the target's own unit"
    whole: float | None = None  # of two classes with one raw score s: the first has whole - s (0 for log odds, 1 for a probability)
    link: str = "identity"  # from the raw score to what the library predicts: "identity", "logistic", "exp", "softmax", "half logistic", "another"
    single: bool = True  # the library adds up in float32
    library: str = ""  # "xgboost 3.2.0"
    covers: str = "training rows"  # what `cover` counts

    @property
    def outputs(self) -> int:
        return len(self.base)

    def leaves(self, rows: np.ndarray) -> np.ndarray:
        """int [n, trees]: the leaf that each row, as `prepare` gave it, reaches."""
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        going = np.argwhere(self.left[at] != LEAF)
        while len(going):
            row, tree = going.T
            node = at[row, tree]
            at[row, tree] = np.where(self.goes_left(node, rows[row, self.feature[node]]), self.left[node], self.right[node])
            going = going[self.left[at[row, tree]] != LEAF]
        return at

    def goes_left(self, node: np.ndarray, x: np.ndarray) -> np.ndarray:
        """bool: at each node, for the value that it looks at."""
        missing, sets = np.isnan(x), self.category[node]
        left = np.where(missing, self.default_left[node], x <= self.threshold[node])
        sorted_out = (sets >= 0) & ~missing
        if sorted_out.any():
            code = x[sorted_out]
            known = (code >= 0) & (code < self.members.shape[1])
            left[sorted_out] = known & self.members[sets[sorted_out], np.where(known, code, 0).astype(np.intp)]
        return left

    def sums(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n, k] twice: the raw scores, and the sum of the magnitudes that went into them."""
        total, weight = np.tile(self.base, (len(rows), 1)), np.tile(np.abs(self.base), (len(rows), 1))
        found = self.value[self.leaves(rows)]  # [n, trees, v]
        if found.shape[2] > 1:
            return total + found.sum(1), weight + np.abs(found).sum(1)
        for k in range(self.outputs):
            own = found[:, self.output == k, 0]
            total[:, k] += own.sum(1)
            weight[:, k] += np.abs(own).sum(1)
        return total, weight


READERS: dict[str, str] = {  # name of a class -> the module of `models.trees` that reads it
    "catboost.core.CatBoost": "catboost",
    "lightgbm.basic.Booster": "lightgbm",
    "lightgbm.sklearn.LGBMModel": "lightgbm",
    "xgboost.core.Booster": "xgboost",
    "xgboost.sklearn.XGBModel": "xgboost",
    "sklearn.ensemble._forest.ExtraTreesClassifier": "scikit_learn",
    "sklearn.ensemble._forest.ExtraTreesRegressor": "scikit_learn",
    "sklearn.ensemble._forest.RandomForestClassifier": "scikit_learn",
    "sklearn.ensemble._forest.RandomForestRegressor": "scikit_learn",
    "sklearn.ensemble._gb.GradientBoostingClassifier": "scikit_learn",
    "sklearn.ensemble._gb.GradientBoostingRegressor": "scikit_learn",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": "histogram",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor": "histogram",
    "sklearn.ensemble._iforest.IsolationForest": "scikit_learn",
    "sklearn.tree._classes.DecisionTreeClassifier": "scikit_learn",
    "sklearn.tree._classes.DecisionTreeRegressor": "scikit_learn",
    "sklearn.tree._classes.ExtraTreeClassifier": "scikit_learn",
    "sklearn.tree._classes.ExtraTreeRegressor": "scikit_learn",
}


def kind_of(model: Any) -> str | None:
    """Which module reads a model's trees, by the name of its class, so that no library is imported for it."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
    return next((READERS[name] for name in names if name in READERS), None)


def read_forest(model: Any) -> Forest:
    """The trees of a fitted model. Raises UnsupportedError for trees that cannot be read."""
    kind = kind_of(model)
    if kind is None:
        raise UnsupportedError(f"a {type(model).__name__} has no trees that askwhy can read; it reads XGBoost, LightGBM, CatBoost and scikit-learn.")
    return importlib.import_module(f"askwhy.models.trees.{kind}").read(model)  # type: ignore[no-any-return]


PARTS = ("tree_", "estimators_", "_predictors", "_Booster")  # what another fit puts in the place of another
COUNTS = ("num_boosted_rounds", "current_iteration")  # of boosters, which are trained further as they are


def state_of(model: Any) -> tuple[list[Any], list[Any]]:
    """Parts of a model that stay the same objects, and numbers and names that stay equal, until it is fitted again."""
    parts = [getattr(model, name, None) for name in PARTS]
    counts = [len(part) for part in parts if isinstance(part, list)] + [getattr(model, name)() for name in COUNTS if hasattr(model, name)]
    return parts, counts + ([model.get_metadata()["model_guid"]] if kind_of(model) == "catboost" else [])


def same(one: tuple[list[Any], list[Any]], other: tuple[list[Any], list[Any]]) -> bool:
    return all(a is b for a, b in zip(one[0], other[0], strict=True)) and one[1] == other[1]


def check_forest(forest: Forest, given: Any, rows: np.ndarray) -> np.ndarray:
    """[n, k]: the library's own raw scores of `given`, after a check that the arrays give the same. Raises ModelError."""
    own = np.asarray(forest.raw(given), np.float64).reshape(len(rows), -1)
    compare_forest(forest, own, rows)
    return own


def compare_forest(forest: Forest, own: np.ndarray, rows: np.ndarray) -> None:
    """The library's raw scores [n, k] have to be what the arrays give, to its precision. Raises ModelError."""
    found, weight = forest.sums(rows)
    precision = np.finfo(np.float32 if forest.single else np.float64).eps
    allowed = precision * (2 + np.sqrt(len(forest.roots))) * 4 * weight + 1e-300
    wrong = np.argwhere(~(np.abs(own - found) <= allowed))
    if len(wrong):
        i, k = wrong[0]
        raise ModelError(
            f"the trees as they were read give {found[i, k]:.9g} for row {i}, but {forest.library} itself gives {own[i, k]:.9g}: "
            "this version writes its models in a way that askwhy does not know. Please report it; aw.shapley explains the model as a black box."
        )
