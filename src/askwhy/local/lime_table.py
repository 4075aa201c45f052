"""The background of LIME for tables: its columns in bins, prepared once for all rows that are asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from askwhy.absence import absent
from askwhy.components import undivided
from askwhy.errors import InputError
from askwhy.game import Progress, batch_size_for, in_chunks
from askwhy.models.base import CATEGORICAL, Items, is_missing, to_numpy
from askwhy.score import Score
from askwhy.tables import Background, Column, as_numbers, columns_of, kinds_of, names_of

BINS = ("quartile", "decile", "entropy")
FEWEST = 10  # background rows


@dataclass(frozen=True, eq=False)
class Spread:
    """What is known of one column of the background; its values stand in the order of their codes."""

    column: Column
    values: np.ndarray  # [2k], twice over, so that a run that begins at any code is one slice
    weights: np.ndarray  # [k]
    upto: np.ndarray | None  # [2k]: the running sum of the weights; None where all are 1
    bounds: np.ndarray  # [codes + 1]: the weight before each code
    numbers: np.ndarray  # [k]: NaN where missing, or no number
    mean: float
    scale: float  # 0 of a constant, and of what is no number
    whole: bool  # holds whole numbers only
    control: np.ndarray  # [2k]: the numbers less their mean, by their scale; 0 where there is none
    pull: np.ndarray  # [codes]: the weighted sum of the controls of each code


@dataclass(frozen=True, eq=False)
class Table:
    """A background, ready for any row of the question."""

    names: tuple[str, ...]
    spreads: Callable[[int], list[Spread]]  # of item i: bins by entropy depend on what is asked about it
    discrete: bool
    around: str
    text: str


def table_of(
    score: Score, x: Any, background: Any, bins: str | None, around: str, categorical: Sequence[int | str] | None, batch_size: int | str
) -> Table:
    """The background with its bins. Raises InputError for what is none."""
    if bins is not None and bins not in BINS:
        raise InputError(f"bins={bins!r}: choose one of {', '.join(map(repr, BINS))}, or None for numbers as they are.")
    if around not in ("data", "point"):
        raise InputError(f"around={around!r}: choose 'data' or 'point'.")
    kept, text = known_background(score, x, background)
    rows, items = kept.rows, score.items
    items = items if items.kinds else replace(items, kinds=kinds_of(np.concatenate([rows, to_numpy(items.batch)])))
    made = {} if bins == "entropy" else kept.spreads  # bins by entropy belong to this question

    def spreads(i: int) -> list[Spread]:
        question = (score.targets[i], None if score.versus is None else score.versus[i]) if bins == "entropy" else None
        key = (bins, items.kinds, tuple(categorical or ()), question)
        if key not in made:
            cut = by_entropy(score, i, rows, batch_size) if bins == "entropy" else bins or "quartile"
            found = columns_of(items, rows, categorical, cut)
            made[key] = [spread_of(column, rows[:, k], kept.weights) for k, column in enumerate(found)]
        return made[key]

    return Table(names_of(items), spreads, bins is not None, around, text)


@dataclass(frozen=True, eq=False)
class Kept:
    """The last background of a model, with a copy of what was given, so that a changed one is noticed."""

    given: Any
    weights: np.ndarray
    sort: tuple[Any, ...]  # of x, which the rows were made to fit
    rows: np.ndarray  # [k, d]
    spreads: dict[Any, list[Spread]]


def known_background(score: Score, x: Any, background: Any) -> tuple[Kept, str]:
    """Rows [k, d] as the model takes them, and their text. Raises InputError."""
    if background is None:
        raise InputError("LIME of a table draws other values from background rows; give background=rows (say 1,000 rows of the training data).")
    summary = background if isinstance(background, Background) else None
    given = background if summary is None else summary.rows
    given = given if hasattr(given, "equals") else to_numpy(given)
    if np.ndim(given) != 2 or len(given) < FEWEST:
        raise InputError(f"background= has the shape {list(np.shape(given))}; give at least {FEWEST} rows [k, d] of data, better 1,000.")
    weights = np.ones(len(given)) if summary is None or np.ptp(summary.weights) < 1e-12 else summary.weights
    items = score.items
    sort = tuple(getattr(x, "dtypes", ())), items.names, items.batch.dtype, tuple(items.batch.shape[1:])
    kept: Kept | None = score.model.memory.get("lime background")
    if kept is None or kept.sort != sort or not same(kept.given, given) or not same(kept.weights, weights):
        kept = score.model.memory["lime background"] = Kept(given.copy(), weights.copy(), sort, fitted(given, items), {})
    return kept, f"{len(given)} background rows" if summary is None else summary.text


def same(a: Any, b: Any) -> bool:
    """Equal data of one kind, missing values too."""
    if type(a) is not type(b):
        return False
    if hasattr(a, "equals"):
        return bool(a.equals(b)) and list(a.columns) == list(b.columns)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def fitted(given: Any, items: Items) -> np.ndarray:
    """Rows in the type of x; in an array of numbers a missing value is NaN, which stays one."""
    plain = undivided(items)
    values = given.to_numpy() if hasattr(given, "to_numpy") else given
    if items.rebuild is not None or values.dtype.kind != "f" or not np.isnan(values).any():
        return absent(given, items, 0, plain)[0]
    if to_numpy(items.batch).dtype.kind != "f":
        raise InputError("background= holds NaN, and x is made of whole numbers; give x as float.")
    gaps = np.isnan(values)
    return np.where(gaps, np.nan, absent(np.where(gaps, 0, values), items, 0, plain)[0])


def spread_of(column: Column, values: np.ndarray, weights: np.ndarray) -> Spread:
    codes = column.codes(values)
    order = np.argsort(codes, kind="stable")
    values, weights, sizes = values[order], weights[order], np.bincount(codes[order], weights[order], len(column))
    numbers = np.full(len(values), np.nan) if column.kind == CATEGORICAL else as_numbers(values, column.kind)
    if np.isinf(numbers).any():
        raise InputError(f"column {column.name!r} of the background holds infinite numbers; replace them before asking.")
    known = ~np.isnan(numbers)
    mean = float(np.average(numbers[known], weights=weights[known])) if known.any() else 0.0
    scale = float(np.average((numbers[known] - mean) ** 2, weights=weights[known]) ** 0.5) if known.any() and np.ptp(numbers[known]) > 0 else 0.0
    control = np.where(known, numbers - mean, 0) / (scale or 1.0)
    return Spread(
        column, np.concatenate([values, values]), weights, None if np.ptp(weights) == 0 else np.cumsum(np.concatenate([weights, weights])),
        np.concatenate([[0.0], np.cumsum(sizes)]), numbers, mean, scale, bool(known.any() and (numbers[known] == np.rint(numbers[known])).all()),
        np.concatenate([control, control]), np.bincount(codes[order], weights * control, len(column)),
    )  # fmt: skip


def by_entropy(score: Score, i: int, rows: np.ndarray, batch_size: int | str) -> Callable[[np.ndarray, int], np.ndarray]:
    """Cuts of a column by a regression tree on the model's own scores of the background rows."""
    from sklearn.tree import DecisionTreeRegressor

    scores = asked(score, i, rows, batch_size)

    def cut(numbers: np.ndarray, k: int) -> np.ndarray:
        known = np.array([not is_missing(value) for value in rows[:, k]])
        tree = DecisionTreeRegressor(max_depth=3, min_samples_leaf=0.05, random_state=0).fit(numbers[:, None], scores[known])
        return np.unique(tree.tree_.threshold[tree.tree_.children_left >= 0])

    return cut


def asked(score: Score, i: int, rows: np.ndarray, batch_size: int | str, tick: Progress | None = None) -> np.ndarray:
    """The scores [m] of rows [m, d]."""
    batch: Any = rows
    own = score.items.batch
    if hasattr(own, "detach"):
        import torch

        batch = torch.as_tensor(rows).to(own.device, own.dtype)
    with score.model.untouched():
        engine, name = score.engine(i, batch[:2], len(batch), "float32")
        return in_chunks(len(batch), lambda a, b: score.evaluate(batch[a:b], i, engine), batch_size_for(score, batch_size, name), tick)
