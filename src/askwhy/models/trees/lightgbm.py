"""The trees of LightGBM, from the text that it saves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from askwhy._lazy import load
from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models import boosters
from askwhy.models.forest import LEAF, Forest
from askwhy.models.trees import common
from askwhy.models.trees.common import Meaning, starts

ZERO = float(np.float32(1e-35))  # LightGBM takes what is no larger for zero
CATEGORICAL, DEFAULT_LEFT = 1, 2  # bits of decision_type
KEPT, ZERO_IS_MISSING, NAN_IS_MISSING = 0, 1, 2  # the bits above them: how a split treats missing values

OBJECTIVES: dict[str, Meaning] = {
    "": common.MARGIN,  # of the user's own
    "binary": common.LOG_ODDS,
    "cross_entropy": common.LOG_ODDS,
    "cross_entropy_lambda": common.OTHER,
    "fair": common.OWN,
    "gamma": common.MEAN,
    "huber": common.OWN,
    "lambdarank": common.RANKING,
    "mape": common.OWN,
    "multiclass": common.SOFTMAX,
    "multiclassova": common.LOG_ODDS,
    "poisson": common.COUNT,
    "quantile": common.OWN,
    "rank_xendcg": common.RANKING,
    "regression": common.OWN,
    "regression_l1": common.OWN,
    "tweedie": common.MEAN,
}


def read(model: Any) -> Forest:
    """The trees of a lightgbm.Booster or LGBMModel. Raises ModelError, UnsupportedError.

    The raw scores are log odds whatever sigmoid= was, and of a random forest (boosting="rf") the mean over its trees, where
    LightGBM's raw_score is the sum.
    """
    told = boosters.read(model)
    library = f"lightgbm {load('lightgbm', 'boosters').__version__}"
    with common.as_it_is_known(library):
        head, trees = parted(told.native.model_to_string())
        outputs = int(head["num_tree_per_iteration"])
        (unit, link), slope, share = meaning(head, len(trees) // outputs)
        node = flat(trees)
        sets, members = categorical(trees, node)
        zeros = zero_columns(node, told.width)
        sorted_out = columns_of(node, sets >= 0, told.width)
    return Forest(
        left=node["left_child"].astype(np.int32),
        right=node["right_child"].astype(np.int32),
        feature=node["split_feature"].astype(np.int32),
        threshold=node["threshold"],
        default_left=node["default_left"],
        category=sets,
        members=members,
        value=node["leaf_value"][:, None] * slope * share,
        cover=node["cover"],
        roots=node["roots"].astype(np.int32),
        output=np.arange(len(trees), dtype=np.int32) % outputs,
        base=np.zeros(outputs),
        width=told.width,
        prepare=partial(prepared, told, zeros, sorted_out),
        raw=lambda rows: common.two_dimensional(told.margin(rows)) * slope,
        unit=unit,
        whole=0.0 if told.classes == 2 and outputs == 1 else None,
        link=link,
        single=False,
        library=library,
    )


# ---- the text -----------------------------------------------------------------------------------------------------


def parted(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The fields of the head, and of each tree."""
    head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    if not trees:
        raise ModelError("this LightGBM booster has no trees; train it for a round at least.")
    found = [pairs(tree) for tree in trees]
    if any(tree["is_linear"] != "0" for tree in found):
        raise UnsupportedError(f"this LightGBM booster has linear models in its leaves; train it with linear_tree=False, or {common.BLACK_BOX}")
    return pairs(head), found


def pairs(lines: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines.splitlines())}


def meaning(head: dict[str, str], rounds: int) -> tuple[Meaning, float, float]:
    """Unit and link, the factor that makes such a raw score of LightGBM's margin, and the share of each tree in that margin."""
    name, *options = head.get("objective", "").split(" ")
    if name not in OBJECTIVES:
        raise UnsupportedError(f"the LightGBM objective {name!r} is not known; {common.BLACK_BOX}")
    found = common.OTHER if "sqrt" in options else OBJECTIVES[name]
    slopes = [float(option.removeprefix("sigmoid:")) for option in options if option.startswith("sigmoid:")]
    return found, slopes[0] if slopes else 1.0, 1 / rounds if "average_output" in head else 1.0


def flat(trees: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """The fields of all trees; of each tree first the splits, then the leaves, which LightGBM counts -1, -2, ..."""
    leaves = np.array([int(tree["num_leaves"]) for tree in trees])
    inner = np.repeat(np.tile([True, False], len(trees)), np.stack([leaves - 1, leaves], 1).ravel())
    roots = starts(2 * leaves - 1)
    first, splits = (np.repeat(part, 2 * leaves - 1) for part in (roots, leaves - 1))
    node = {name: spread(trees, name, inner) for name in ("decision_type", "left_child", "right_child", "split_feature", "threshold")}
    for side in ("left_child", "right_child"):
        child = node[side]
        node[side] = np.where(inner, first + np.where(child >= 0, child, splits + ~child), LEAF)
    node["leaf_value"] = spread(trees, "leaf_value", ~inner)
    node["cover"] = spread(trees, "internal_count", inner) + spread(trees, "leaf_count", ~inner)
    node["missing"] = node["decision_type"] >> 2
    if node["missing"].max() > NAN_IS_MISSING:
        raise UnsupportedError(f"LightGBM's file holds a kind of split that askwhy does not know; {common.BLACK_BOX}")
    node["default_left"] = default_left(node)
    return node | {"roots": roots}


def spread(trees: list[dict[str, str]], name: str, where: np.ndarray) -> np.ndarray:
    """A field of all trees, at the nodes that have it."""
    kind = np.float64 if name in ("threshold", "leaf_value", "internal_count", "leaf_count") else np.int64
    found, given = np.zeros(len(where), kind), numbers(trees, name, kind)
    if len(given) != where.sum():
        raise ValueError(f"{len(given)} numbers of {name} for {where.sum()} nodes")
    found[where] = given
    return found


def numbers(trees: list[dict[str, str]], name: str, kind: Any) -> np.ndarray:
    return np.array(" ".join(tree.get(name, "") for tree in trees).split(), kind)


# ---- splits -------------------------------------------------------------------------------------------------------


def default_left(node: dict[str, np.ndarray]) -> np.ndarray:
    """Where a missing value goes: where zero does, in a split that was trained without missing values; right by category."""
    told = np.where(node["missing"] == KEPT, node["threshold"] >= 0, node["decision_type"] & DEFAULT_LEFT > 0)
    return told & (node["decision_type"] & CATEGORICAL == 0)


def categorical(trees: list[dict[str, str]], node: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """int32 [nodes]: the set of a split by category, or -1; bool [sets, codes], of the bits that LightGBM keeps."""
    counts = [int(tree["num_cat"]) for tree in trees]
    splits = np.flatnonzero(node["decision_type"] & CATEGORICAL)
    sets = np.full(len(node["cover"]), -1, np.int32)
    tree = np.searchsorted(node["roots"], splits, side="right") - 1
    sets[splits] = node["threshold"][splits] + starts(counts)[tree]
    words = numbers(trees, "cat_threshold", np.uint32)
    bounds = [numbers([tree], "cat_boundaries", np.int64) for tree in trees if "cat_boundaries" in tree]
    lengths = np.concatenate([np.diff(bound) for bound in bounds] or [np.zeros(0, np.int64)])
    if len(lengths) != sum(counts) or lengths.sum() != len(words):
        raise ValueError(f"{len(lengths)} sets of categories where {sum(counts)} were told")
    filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
    table = np.zeros(filled.shape, "<u4")
    table[filled] = words
    return sets, np.unpackbits(table.view(np.uint8), axis=1, bitorder="little").astype(bool)


def columns_of(node: dict[str, np.ndarray], where: np.ndarray, width: int) -> np.ndarray:
    """bool [width]: the columns that these nodes look at."""
    return np.bincount(node["split_feature"][where], minlength=width) > 0


def zero_columns(node: dict[str, np.ndarray], width: int) -> np.ndarray:
    """bool [width]: where zero is a missing value. Raises UnsupportedError where a column's splits do not agree."""
    by_category = node["decision_type"] & CATEGORICAL > 0
    numeric = (node["left_child"] != LEAF) & ~by_category
    zero, nan = (columns_of(node, numeric & (node["missing"] == kind), width) for kind in (ZERO_IS_MISSING, NAN_IS_MISSING))
    both = columns_of(node, numeric, width) & columns_of(node, by_category, width)
    odd = np.flatnonzero((zero & nan) | both)
    if len(odd):
        raise UnsupportedError(
            f"the trees of this LightGBM booster treat column {odd[0]} in two ways, since it was trained on in parts with other settings of "
            f"zero_as_missing or categorical_feature; {common.BLACK_BOX}"
        )
    return zero


# ---- rows ---------------------------------------------------------------------------------------------------------


def prepared(told: boosters.Trees, zeros: np.ndarray, sorted_out: np.ndarray, rows: Any) -> np.ndarray:
    """float64 [n, width]: NaN also for a zero that is a missing value, and categories cut to whole codes."""
    boosters.check_columns(rows, told)
    x = of_numbers(rows) if isinstance(rows, np.ndarray) else of_table(rows, told.native.pandas_categorical)
    is_zero = np.abs(x) <= ZERO
    x[is_zero] = 0
    x[is_zero & zeros] = np.nan
    x[:, sorted_out] = np.trunc(x[:, sorted_out])
    return x


def of_numbers(rows: np.ndarray) -> np.ndarray:
    """LightGBM makes float32 of all that is not float."""
    with common.numbers_only():
        return rows.astype(rows.dtype if rows.dtype in (np.float32, np.float64) else np.float32).astype(np.float64)


def of_table(rows: Any, categories: Sequence[list[Any] | None] | None) -> np.ndarray:
    """The codes are those of the training table; a category that it did not have is missing."""
    sorted_out = [k for k, kind in enumerate(rows.dtypes) if kind.name == "category"]
    if categories is not None and len(categories) != len(sorted_out):
        raise InputError(
            f"the table has {len(sorted_out)} columns of categories, the model was trained on {len(categories)}; convert them with astype."
        )
    x = np.empty(rows.shape)
    other = np.delete(np.arange(rows.shape[1]), sorted_out)
    with common.numbers_only():
        x[:, other] = rows.iloc[:, other].to_numpy(np.float64, na_value=np.nan)
    for k, names in zip(sorted_out, categories or [None] * len(sorted_out), strict=True):
        column = rows.iloc[:, k].cat
        codes = (column if names is None else column.set_categories(names).cat).codes.to_numpy()
        x[:, k] = np.where(codes < 0, np.nan, codes)
    return x
