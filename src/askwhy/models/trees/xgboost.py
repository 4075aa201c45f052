"""The trees of XGBoost, from the JSON that it saves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

from askwhy._lazy import load
from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models import boosters
from askwhy.models.base import first_line
from askwhy.models.forest import LEAF, Forest
from askwhy.models.trees import common
from askwhy.models.trees.common import Meaning, starts

FIELDS = {
    "default_left": bool,
    "left_children": np.int64,
    "right_children": np.int64,
    "split_conditions": np.float32,
    "split_indices": np.int64,
    "split_type": np.int64,
    "sum_hessian": np.float64,
}
DELETED = 2**31 - 1  # the column of a node that pruning took away, and left in the file


def same(base: np.ndarray) -> np.ndarray:
    return base


def logit(base: np.ndarray) -> np.ndarray:
    """In float32 and in XGBoost's order, for its own rounding; it keeps such a base this far from 0 and 1."""
    least = np.float32(1e-6)
    return -np.log(1 / np.clip(base, least, 1 - least) - 1)


# base_score is saved as a prediction: the second part makes a raw score of it
OBJECTIVES: dict[str, tuple[Meaning, Callable[[np.ndarray], np.ndarray]]] = {
    "binary:hinge": (common.OTHER, same),
    "binary:logistic": (common.LOG_ODDS, logit),
    "binary:logitraw": (common.LOG_ODDS, same),
    "count:poisson": (common.COUNT, np.log),
    "multi:softmax": (common.SOFTMAX, same),
    "multi:softprob": (common.SOFTMAX, same),
    "rank:map": (common.RANKING, same),
    "rank:ndcg": (common.RANKING, same),
    "rank:pairwise": (common.RANKING, same),
    "reg:absoluteerror": (common.OWN, same),
    "reg:gamma": (common.MEAN, np.log),
    "reg:linear": (common.OWN, same),
    "reg:logistic": (common.LOG_ODDS, logit),
    "reg:pseudohubererror": (common.OWN, same),
    "reg:quantileerror": (common.OWN, same),
    "reg:squarederror": (common.OWN, same),
    "reg:squaredlogerror": (common.OWN, same),
    "reg:tweedie": (common.MEAN, np.log),
    "survival:aft": (("log of the survival time", "exp"), np.log),
    "survival:cox": (("log of the hazard ratio", "exp"), np.log),
}


def read(model: Any) -> Forest:
    """The trees of an xgboost.Booster or XGBModel. Raises ModelError, UnsupportedError."""
    told = boosters.read(model)
    library = f"xgboost {load('xgboost', 'boosters').__version__}"
    with common.as_it_is_known(library):
        learner = json.loads(told.native.save_raw("json"))["learner"]
        trees, output, weights = chosen(learner["gradient_booster"], boosters.rounds_of(told.native, told.native is not model)[1])
        arrays = flat(trees, weights)
        (unit, link), base = meaning_and_base(learner)
        categories = trained_categories(learner["gradient_booster"])
    if callable(getattr(model, "objective", None)):  # of the user's own; the file names the default in its place
        unit, link = common.MARGIN
    return Forest(
        **arrays,
        output=output if arrays["value"].shape[1] == 1 else np.zeros_like(output),
        base=base,
        width=told.width,
        prepare=partial(prepared, told, getattr(model, "missing", None), categories),
        raw=lambda rows: common.two_dimensional(told.margin(rows)),
        unit=unit,
        whole=0.0 if told.classes == 2 and len(base) == 1 else None,
        link=link,
        library=library,
        covers="hessian weight",
    )


# ---- trees side by side -------------------------------------------------------------------------------------------


def chosen(booster: dict[str, Any], rounds: int) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """The trees that a prediction asks, which raw score each adds to, and its weight (DART)."""
    if booster["name"] == "gblinear":
        raise UnsupportedError(f"an XGBoost booster of linear type (gblinear) has no trees; {common.BLACK_BOX}")
    if booster["name"] not in ("dart", "gbtree"):
        raise UnsupportedError(f"the XGBoost booster {booster['name']!r} is not known; {common.BLACK_BOX}")
    model = booster.get("gbtree", booster)["model"]
    count = model["iteration_indptr"][rounds] if rounds else len(model["trees"])
    if not count:
        raise ModelError("this XGBoost booster has no trees; train it for a round at least.")
    weights = np.ones(len(model["trees"]), np.float32)
    dropped = booster.get("weight_drop") or model.get("weight_drop") or []
    weights[: len(dropped)] = dropped
    return model["trees"][:count], np.array(model["tree_info"][:count], np.int32), weights[:count]


def flat(trees: list[dict[str, Any]], weights: np.ndarray) -> dict[str, Any]:
    """The arrays of Forest. XGBoost goes left where x < threshold, in float32, and where a category is no member."""
    node = {name: np.fromiter(chain.from_iterable(tree[name] for tree in trees), kind) for name, kind in FIELDS.items()}
    sizes = np.array([len(tree["left_children"]) for tree in trees])
    first, roots = np.repeat(starts(sizes), sizes), starts(sizes)
    leaf = node["left_children"] == LEAF
    left, right = (np.where(leaf, LEAF, node[side] + first) for side in ("left_children", "right_children"))
    splits, members = categorical(trees, roots)
    if not np.array_equal(splits, np.flatnonzero(node["split_type"])):
        raise UnsupportedError(f"XGBoost's file holds a kind of split that askwhy does not know; {common.BLACK_BOX}")
    left[splits], right[splits] = right[splits], left[splits]
    category = np.full(len(left), -1)
    category[splits] = np.arange(len(splits))
    arrays = {
        "left": left,
        "right": right,
        "feature": np.where(leaf, 0, node["split_indices"]),
        "threshold": np.nextafter(node["split_conditions"], np.float32(-np.inf)).astype(np.float64),
        "default_left": node["default_left"] ^ (category >= 0),
        "category": category,
        "value": leaf_values(trees, node, leaf) * np.repeat(weights, sizes)[:, None],
        "cover": node["sum_hessian"],
    }
    return compact(arrays, roots, node["split_indices"] != DELETED) | {"members": members}


def leaf_values(trees: list[dict[str, Any]], node: dict[str, np.ndarray], leaf: np.ndarray) -> np.ndarray:
    """float64 [nodes, v]; a leaf of several targets keeps its place among its tree's leaves in right_children."""
    targets = int(trees[0]["tree_param"]["size_leaf_vector"])
    if targets <= 1:
        return np.where(leaf, node["split_conditions"], 0).astype(np.float64)[:, None]
    vectors = np.concatenate([np.reshape(tree["leaf_weights"], (-1, targets)) for tree in trees])
    per_tree = [len(tree["leaf_weights"]) // targets for tree in trees]
    first = np.repeat(starts(per_tree), [len(tree["left_children"]) for tree in trees])
    return np.where(leaf[:, None], vectors[np.where(leaf, node["right_children"] + first, 0)], 0)


def categorical(trees: list[dict[str, Any]], roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes that split by category, and whether each code is in a node's set."""
    splits = np.concatenate([np.array(tree["categories_nodes"], np.int64) + root for tree, root in zip(trees, roots, strict=True)])
    sizes, codes = (np.array(list(chain.from_iterable(tree[name] for tree in trees)), np.int64) for name in ("categories_sizes", "categories"))
    members = np.zeros((len(splits), codes.max(initial=-1) + 1), bool)
    members[np.repeat(np.arange(len(splits)), sizes), codes] = True
    return splits, members


def compact(arrays: dict[str, np.ndarray], roots: np.ndarray, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Without the nodes that pruning deleted."""
    place = np.cumsum(kept) - 1
    found = {name: values[kept] for name, values in arrays.items()}
    for side in ("left", "right"):
        found[side] = np.where(found[side] == LEAF, LEAF, place[found[side]])
    small = {name: found[name].astype(np.int32) for name in ("left", "right", "feature", "category")}
    return found | small | {"roots": place[roots].astype(np.int32)}


def meaning_and_base(learner: dict[str, Any]) -> tuple[Meaning, np.ndarray]:
    name, sizes = learner["objective"]["name"], learner["learner_model_param"]
    if name not in OBJECTIVES:
        raise UnsupportedError(f"the XGBoost objective {name!r} is not known, nor what its base_score means; {common.BLACK_BOX}")
    meaning, to_raw = OBJECTIVES[name]
    outputs = max(int(sizes["num_class"]), int(sizes["num_target"]))
    base = to_raw(np.array(json.loads(sizes["base_score"]), np.float32).reshape(-1))
    return meaning, np.broadcast_to(base, max(outputs, 1)).astype(np.float64)


# ---- rows ---------------------------------------------------------------------------------------------------------


def trained_categories(booster: dict[str, Any]) -> dict[int, list[Any]]:
    """Of each column that was categorical in the training table, the names by their codes; XGBoost 3.1 and later keep them."""
    columns = booster.get("gbtree", booster)["model"].get("cats", {}).get("enc", [])
    return {k: names_of(column) for k, column in enumerate(columns) if column["values"]}


def names_of(column: dict[str, Any]) -> list[Any]:
    """Bytes, where they are no letters since XGBoost cut them in the wrong places."""
    if "offsets" not in column:
        return list(column["values"])
    parts = slices(np.array(column["values"]).astype(np.uint8).tobytes(), column["offsets"])
    try:
        return [part.decode() for part in parts]
    except UnicodeDecodeError:
        return parts


def slices(letters: bytes, ends: Sequence[int]) -> list[bytes]:
    return [letters[start:end] for start, end in pairwise(ends)]


def cut(names: list[Any]) -> list[bytes]:
    """As XGBoost 3.1 and 3.2 do: bytes, at the ends of the characters."""
    return slices("".join(map(str, names)).encode(), [0, *accumulate(len(str(name)) for name in names)])


def prepared(told: boosters.Trees, missing: Any, categories: dict[int, list[Any]], rows: Any) -> np.ndarray:
    """float64 [n, width]: the float32 that XGBoost compares, NaN where it sees a missing value."""
    boosters.check_columns(rows, told)
    missing = np.nan if missing is None else missing
    if isinstance(rows, np.ndarray) or all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in rows.dtypes):
        return of_numbers(rows, missing)
    return of_table(rows, missing, categories)


def of_numbers(rows: Any, missing: float) -> np.ndarray:
    with common.numbers_only(), np.errstate(over="ignore"):
        x = np.array(rows, np.float32)
    x[x == np.float32(missing)] = np.nan
    endless = np.argwhere(np.isinf(x))
    if len(endless):
        i, k = endless[0]
        raise InputError(
            f"row {i} has {np.asarray(rows)[i, k]} in column {k}, and XGBoost takes no numbers that are infinite or beyond float32; leave such rows out."
        )
    return x.astype(np.float64)


def of_table(rows: Any, missing: float, categories: dict[int, list[Any]]) -> np.ndarray:
    """As XGBoost itself reads a table; of its sparse matrix the missing values are absent."""
    try:
        found = load("xgboost", "boosters").DMatrix(rows, missing=missing, enable_categorical=True).get_data()
    except ValueError as error:
        raise InputError(f"XGBoost does not take this table: {first_line(error)}") from error
    x = np.full(found.shape, np.nan)
    x[np.repeat(np.arange(len(x)), np.diff(found.indptr)), found.indices] = found.data
    for k, trained in categories.items():
        if hasattr(rows.iloc[:, k], "cat"):
            x[:, k] = recoded(x[:, k], rows.iloc[:, k], trained)
    return x


def recoded(codes: np.ndarray, column: Any, trained: list[Any]) -> np.ndarray:
    """The training table's codes. XGBoost 3.1 and 3.2 take an unknown category for another one, without a word."""
    known, own = ~np.isnan(codes), list(column.cat.categories)
    names = cut(own) if isinstance(trained[0], bytes) else own
    if names is not own and (names != trained or len(set(trained)) < len(trained)):
        raise UnsupportedError(
            f"the column {column.name!r} has categories with letters beyond ASCII, which XGBoost 3.1 and 3.2 take for one another; update xgboost and "
            "train again, or give an array with the codes of the training table."
        )
    place = {name: code for code, name in enumerate(trained)}
    unknown = [own[code] for code in np.unique(codes[known].astype(int)) if names[code] not in place]
    if unknown:
        raise InputError(
            f"the column {column.name!r} holds {unknown[0]!r}, a category that the model was not trained on; leave such rows out, or set it to missing."
        )
    codes[known] = np.array([place.get(name, np.nan) for name in names])[codes[known].astype(int)]
    return codes
