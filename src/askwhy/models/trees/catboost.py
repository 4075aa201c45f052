"""The trees of CatBoost, oblivious and others, from its own JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from askwhy._lazy import load
from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models.base import first_line, show_shape
from askwhy.models.forest import LEAF, Forest
from askwhy.models.trees import common
from askwhy.models.trees.common import two_dimensional
from askwhy.models.trees.scikit_learn import Tree, check_dense, joined

MEANINGS: dict[str, common.Meaning] = {  # by the loss
    **dict.fromkeys(("CrossEntropy", "Logloss", "MultiClassOneVsAll", "MultiCrossEntropy", "MultiLogloss"), common.LOG_ODDS),
    **dict.fromkeys(("Expectile", "Huber", "LogCosh", "Lq", "MAE", "MAPE", "MultiQuantile", "MultiRMSE", "Quantile", "RMSE"), common.OWN),
    **dict.fromkeys(("PairLogit", "PairLogitPairwise", "QueryRMSE", "QuerySoftMax", "YetiRank", "YetiRankPairwise"), common.RANKING),
    "MultiClass": common.SOFTMAX,
    "Poisson": common.COUNT,
    "Tweedie": common.MEAN,
}
MISSING = {"AsIs": -np.inf, "AsFalse": -np.inf, "AsTrue": np.inf}  # a missing value is above no border, or above all


def read(model: Any) -> Forest:
    """The trees of a fitted CatBoost model. Raises ModelError, UnsupportedError."""
    if not model.is_fitted():
        raise ModelError(f"this {type(model).__name__} has no trees before it is fitted; call fit first.")
    catboost = load("catboost", "boosters")
    check_readable(model)
    told = as_json(model)
    loss = told.get("model_info", {}).get("params", {}).get("loss_function", {}).get("type", "")
    if loss == "RMSEWithUncertainty":
        raise UnsupportedError(f"RMSEWithUncertainty predicts a mean and a spread, which share the trees; {common.BLACK_BOX}")
    unit, link = MEANINGS.get(loss, common.OTHER)
    scale, base = told["scale_and_bias"]
    columns = Columns(told["features_info"])
    trees = [flat(one, scale, len(base), columns) for one in told.get("oblivious_trees") or told["trees"]]
    return Forest(
        **joined(trees),
        members=columns.members(),
        output=np.zeros(len(trees), np.int32),
        base=np.asarray(base, np.float64),
        width=len(model.feature_names_),
        prepare=columns.preparing(len(model.feature_names_)),
        raw=asking(partial(catboost.CatBoost.predict, model, prediction_type="RawFormulaVal")),  # the predict of rankers knows no types
        unit=unit,
        link=link,
        whole=0.0 if len(base) == 1 and len(model.classes_) == 2 else None,
        single=False,
        library=f"catboost {catboost.__version__}",
    )


def check_readable(model: Any) -> None:
    """CatBoost writes neither texts nor embeddings as JSON, and without the leaves' weights it would end the whole process."""
    if not model._object._has_leaf_weights_in_model():
        raise UnsupportedError(
            f"this {type(model).__name__} has lost the weights of its leaves, as some formats do; save it as .cbm, or: {common.BLACK_BOX}"
        )
    for kind, places in (("text", model.get_text_feature_indices()), ("embedding", model.get_embedding_feature_indices())):
        if places:
            raise UnsupportedError(
                f"the feature {model.feature_names_[places[0]]!r} is a {kind}, which CatBoost turns into numbers unseen; {common.BLACK_BOX}"
            )


def as_json(model: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def from_json(told: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        return load("catboost", "boosters").CatBoost().load_model(str(path), format="json")


def asking(ask: Callable[[Any], Any]) -> Callable[[Any], np.ndarray]:
    """float64 [n, k] of what CatBoost gives for the rows."""

    def asked(rows: Any) -> np.ndarray:
        check_dense(rows)
        try:
            return two_dimensional(ask(rows))
        except load("catboost", "boosters").CatBoostError as error:
            raise ModelError(f"the model failed on an input of shape {show_shape(rows)}: {first_line(error)}") from error

    return asked


# ---- what the splits compare --------------------------------------------------------------------------------------


class Columns:
    """Where each feature stands in the table, and the categories that the splits know: code 1 and on; 0 is any other."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.numbers: list[dict[str, Any]] = told.get("float_features") or []
        self.categories: list[dict[str, Any]] = told.get("categorical_features") or []
        known = [(one["feature_index"], value) for one in self.categories for value in one.get("values") or []]
        self.sets = {pair: row for row, pair in enumerate(known)}
        self.codes = {(one["feature_index"], value): 1 + k for one in self.categories for k, value in enumerate(one.get("values") or [])}

    def members(self) -> np.ndarray:
        """bool [known categories, codes]: all but its own category go left at a split."""
        codes = np.array([self.codes[pair] for pair in self.sets], int)
        return np.arange(codes.max(initial=0) + 1) != codes[:, None]

    def split(self, one: dict[str, Any]) -> tuple[int, float, int]:
        """Its column, threshold, and row of members."""
        if one["split_type"] == "FloatFeature":
            return self.numbers[one["float_feature_index"]]["flat_feature_index"], one["border"], -1
        if one["split_type"] != "OneHotFeature":
            raise UnsupportedError(
                f"CatBoost turned the categories of {self.encoded(one)} into statistics of the target, which no tree on the column itself has; train with "
                f"one_hot_max_size= above its number of categories, or ask without its trees: {common.BLACK_BOX}"
            )
        place = one["cat_feature_index"]
        return self.categories[place]["flat_feature_index"], 0.0, self.sets[place, one["value"]]

    def encoded(self, one: dict[str, Any]) -> str:
        """The features of a split on an encoded category; its number counts behind the borders and the known categories."""
        before = sum(len(feature.get("borders") or []) for feature in self.numbers) + len(self.sets)
        for ctr in self.told.get("ctrs") or []:
            if one["split_index"] < before + len(ctr["borders"]):
                places = [part["cat_feature_index"] for part in ctr["elements"] if "cat_feature_index" in part]
                return " and ".join(repr(self.name(self.categories[place])) for place in places)
            before += len(ctr["borders"])
        return "a feature"

    @staticmethod
    def name(feature: dict[str, Any]) -> str:
        return feature.get("feature_id") or f"feature {feature['flat_feature_index']}"

    def preparing(self, width: int) -> Callable[[Any], np.ndarray]:
        """Rows -> float64 [n, width]: numbers rounded to float32, missing ones as an infinity, categories as codes."""
        recognize = asking(self.recognizing().predict) if self.sets else None

        def prepare(rows: Any) -> np.ndarray:
            check_dense(rows)
            if np.ndim(rows) != 2 or np.shape(rows)[1] != width:
                raise InputError(f"x has the shape {list(np.shape(rows))}; the model was trained on rows of {width} columns.")
            found = np.zeros((len(rows), width))
            for one in self.numbers:
                at = one["flat_feature_index"]
                numbers = in_single_precision(rows.iloc[:, at] if hasattr(rows, "iloc") else np.asarray(rows)[:, at])
                found[:, at] = np.where(np.isnan(numbers), MISSING[one["nan_value_treatment"]], numbers)
            if recognize:
                found[:, [one["flat_feature_index"] for one in self.categories]] = recognize(rows)
            return found

        return prepare

    def recognizing(self) -> Any:
        """A model that gives the code of each category. So CatBoost itself says which one it knows: it keeps hashes, and not names."""
        before = sum(len(one.get("borders") or []) for one in self.numbers)
        trees = [self.telling(pair, before + row) for pair, row in self.sets.items()]
        count = len(self.categories)
        return from_json({"features_info": self.told, "model_info": {}, "oblivious_trees": trees, "scale_and_bias": [1, [0.0] * count]})

    def telling(self, pair: tuple[int, int], index: int) -> dict[str, Any]:
        place, value = pair
        leaves = np.zeros((2, len(self.categories)))
        leaves[1, place] = self.codes[pair]
        split = {"cat_feature_index": place, "split_index": index, "split_type": "OneHotFeature", "value": value}
        return {"leaf_values": leaves.ravel().tolist(), "leaf_weights": [1, 1], "splits": [split]}


def in_single_precision(column: Any) -> np.ndarray:
    with common.numbers_only():
        values = column.to_numpy(np.float64, na_value=np.nan) if hasattr(column, "to_numpy") else column.astype(np.float64)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


# ---- trees --------------------------------------------------------------------------------------------------------


def flat(one: dict[str, Any], scale: float, outputs: int, columns: Columns) -> Tree:
    return oblivious(one, scale, outputs, columns) if "leaf_values" in one else grown(one, scale, outputs, columns)


def oblivious(one: dict[str, Any], scale: float, outputs: int, columns: Columns) -> Tree:
    """All nodes of a level ask the same. The last split is the root, since it is the highest bit in a leaf's number."""
    splits = [columns.split(split) for split in reversed(one["splits"] or [])]
    depth = len(splits)
    nodes, inner = np.arange(2 ** (depth + 1) - 1), 2**depth - 1
    level = np.repeat(np.arange(depth + 1), 2 ** np.arange(depth + 1))
    of_level = [
        np.array([*values, fill])[level] for values, fill in zip(zip(*splits, strict=True) if splits else ((), (), ()), (0, 0.0, -1), strict=True)
    ]
    left, right = (np.where(nodes < inner, 2 * nodes + side, LEAF) for side in (1, 2))
    value = np.zeros((len(nodes), outputs))
    value[inner:] = scale * np.reshape(one["leaf_values"], (-1, outputs))
    cover = np.zeros(len(nodes))
    cover[inner:] = one["leaf_weights"]
    for node in reversed(range(inner)):
        cover[node] = cover[2 * node + 1] + cover[2 * node + 2]
    return Tree(left, right, of_level[0], of_level[1], np.ones(len(nodes), bool), value, cover, of_level[2])


def grown(one: dict[str, Any], scale: float, outputs: int, columns: Columns) -> Tree:
    """A tree of nested nodes; each child is numbered after its parent."""
    nodes = [one]
    sides = np.full((2, count(one)), LEAF)
    for at, node in enumerate(nodes):  # grows on the way
        for k, side in enumerate(("left", "right") if "split" in node else ()):
            sides[k, at] = len(nodes)
            nodes.append(node[side])
    splits = [columns.split(node["split"]) if "split" in node else (0, 0.0, -1) for node in nodes]
    feature, threshold, category = (np.array(values) for values in zip(*splits, strict=True))
    value = scale * np.array([np.broadcast_to(node.get("value", 0.0), outputs) for node in nodes])
    cover = np.array([0.0 if "split" in node else node["weight"] for node in nodes])
    for at in reversed(np.flatnonzero(sides[0] != LEAF)):
        cover[at] = cover[sides[:, at]].sum()
    return Tree(sides[0], sides[1], feature, threshold, np.ones(len(nodes), bool), value, cover, category)


def count(node: dict[str, Any]) -> int:
    return 1 + (count(node["left"]) + count(node["right"]) if "split" in node else 0)
