"""Rows of a table in which columns are changed, and what the model says to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from askwhy._lazy import load
from askwhy.errors import InputError, ModelError, TargetError, UnsupportedError
from askwhy.game import Progress, batch_size_for, in_chunks
from askwhy.models.base import CATEGORICAL, NUMERIC, is_missing, to_numpy
from askwhy.score import Score, as_floats, ask, check_rows, pick
from askwhy.tables import Background, as_numbers, kinds_of, names_of, place_of_column

DAY = 24 * 3600 * 10**9  # nanoseconds
Show = Callable[[int, int], Any]  # (start, stop) -> inputs start to stop, ready for the model


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of data, what their columns hold, and the model that is asked about them."""

    score: Score
    rows: Any  # a DataFrame, where the model takes one, else an array [n, d]
    values: np.ndarray  # [n, d]: the rows as an array
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    weights: np.ndarray  # [n], their sum is 1
    text: str  # which rows these are

    def __len__(self) -> int:
        return len(self.values)

    def missing(self, k: int) -> np.ndarray:
        """bool [n]"""
        return np.array([is_missing(value) for value in self.values[:, k].tolist()])

    def numbers(self, k: int) -> np.ndarray:
        """float64 [n]: a column of numbers, of dates as nanoseconds, of durations as days; NaN for a missing value. Raises InputError for infinity."""
        found = numbers_in(self.rows.iloc[:, k] if hasattr(self.rows, "iloc") else self.values[:, k])
        if np.isinf(found).any():
            raise InputError(
                f"column {self.names[k]!r} holds infinite numbers, first in row {int(np.isinf(found).argmax())}; replace them before asking."
            )
        return found

    def held(self, k: int, which: np.ndarray) -> Any:
        """The cells of column k in these rows, as the table holds them."""
        return self.rows.iloc[which, k].array if hasattr(self.rows, "iloc") else self.rows[which, k]

    def cast(self, k: int, numbers: np.ndarray) -> Any:
        """Given numbers as column k holds them. Raises InputError where that would change one."""
        framed = hasattr(self.rows, "iloc")
        dtype: Any = self.rows.dtypes.iloc[k] if framed else self.rows.dtype
        unit = {"M": ("datetime64[ns]", 1), "m": ("timedelta64[ns]", DAY)}.get(dtype.kind)
        given = (numbers * unit[1]).astype(np.int64).astype(unit[0]) if unit else numbers
        try:
            with np.errstate(all="ignore"):
                cells = in_frame(given, dtype) if framed else given.astype(dtype)
            back = numbers_in(cells)
        except (TypeError, ValueError) as error:
            raise InputError(f"grid= does not fit column {self.names[k]!r} of {dtype}: {error}") from error
        changed = ~np.isclose(back, numbers, rtol=1e-6, atol=0)
        if changed.any():
            raise InputError(f"grid= has {numbers[changed][0]:g}, which column {self.names[k]!r} of {dtype} cannot hold; give values of that kind.")
        return getattr(cells, "array", cells)

    def changed(self, which: np.ndarray, columns: Mapping[int, Any]) -> Any:
        """These rows with other cells in some columns, ready for the model."""
        if hasattr(self.rows, "iloc"):
            frame = self.rows.iloc[which].reset_index(drop=True)
            for k, cells in columns.items():
                frame.isetitem(k, cells)
            return frame
        rows = self.rows[which]
        for k, cells in columns.items():
            rows[:, k] = cells
        return like(rows, self.score.items.batch)

    def ask(self, total: int, show: Show, read: Callable[[Any], Any], batch_size: int | str = "auto", tick: Progress | None = None) -> np.ndarray:
        """float64 [total, ...]: what `read` makes of the model's outputs, in batches that fit. Raises ModelError for NaN."""
        score = self.score

        def work(start: int, stop: int) -> np.ndarray:
            batch = show(start, stop)
            outputs = score.outputs(batch, [0] * len(batch))
            score.calls += len(batch)
            check_rows(outputs, len(batch))
            found = as_floats(read(outputs))
            if len(found) != len(batch):
                raise ModelError(
                    f"the model answered {len(batch)} rows with numbers of shape {list(found.shape)}; the first axis has to count the rows."
                )
            if not np.isfinite(found).all():
                bad = found[~np.isfinite(found)][0]
                raise ModelError(
                    f"the model's score of a row of x, some of its columns changed, is {bad}; see whether it takes every value of these columns."
                )
            return found

        with score.model.untouched():
            return in_chunks(total, work, batch_size_for(score, batch_size, "rows"), tick)

    def announce(self, total: int, show: Show | None = None) -> None:
        """Tell a model that asks a service what it will be asked, before it is."""
        expect = getattr(self.score.model, "expect", None)
        if expect is not None:
            batches = () if show is None else (show(at, min(at + 256, total)) for at in range(0, total, 256))
            expect(total, self.score.items if show else None, batches)


def table_of(model: Any, X: Any, categorical: Sequence[int | str] | None = None, target: Any = None, versus: Any = None) -> Table:
    """Wrap the model and prepare its table. Raises InputError, UnsupportedError."""
    for name, value in (("target", target), ("versus", versus)):
        if isinstance(value, (list, tuple, np.ndarray)):
            raise TargetError(f"{name}= has {len(value)} entries; all rows are asked about one target here, so give a single one.")
    rows, weights, text = (X.rows, X.weights, X.text) if isinstance(X, Background) else (X, None, f"{len(X)} rows")
    score = ask(model, rows, target, versus)
    items = score.items
    if items.kind != "table":
        raise UnsupportedError(f"columns are asked about here, and an item of x has the shape {list(items.batch.shape[1:])}; give a table [n, d].")
    values = to_numpy(items.batch)
    framed = hasattr(rows, "iloc") and isinstance(items.batch, np.ndarray)
    if framed:
        score.items = replace(items, rebuild=None)  # the model is shown the frame itself, whose columns keep their types
    names, kinds = names_of(items), list(items.kinds or kinds_of(values))
    if len(set(names)) < len(names):
        raise InputError(f"the table has two columns called {next(name for name in names if names.count(name) > 1)!r}; give each a name of its own.")
    for column in categorical or ():
        kinds[place_of_column(column, names)] = CATEGORICAL
    weights = np.full(len(values), 1 / len(values)) if weights is None else weights / weights.sum()
    return Table(score, rows if framed else values, values, names, tuple(kinds), weights, text)


def in_frame(given: np.ndarray, dtype: Any) -> Any:
    """A column of this type; dates are those of UTC."""
    column = load("pandas", "table").Series(given)
    return (column.dt.tz_localize("UTC") if getattr(dtype, "tz", None) else column).astype(dtype)


def numbers_in(column: Any) -> np.ndarray:
    """float64 from a column of a frame or array: dates as nanoseconds (of UTC), durations as days, missing values as NaN."""
    letter = getattr(column.dtype, "kind", "O")
    if letter not in "mM":
        return as_numbers(np.asarray(column), NUMERIC)
    found = column.to_numpy(f"{letter}8[ns]")
    return np.where(np.isnat(found), np.nan, found.astype(np.int64) / (DAY if letter == "m" else 1))


def settle(table: Table) -> tuple[Callable[[Any], Any], str]:
    """Outputs [m, k] -> scores [m] of the one target, chosen here where the model leaves no choice, and its name. Raises TargetError."""
    score = table.score
    target, name = score.targets[0], None
    if target is None:
        with score.model.untouched():
            outputs = score.outputs(table.changed(np.array([0]), {}), [0])
        score.calls += 1
        target = only_target(outputs, score)
        name = "the score" if not score.model.labels and (np.ndim(outputs) == 1 or outputs.shape[1] == 1) else None
    name = name or score.name(target)
    if score.versus is None:
        return lambda outputs: pick(outputs, target), name
    versus = score.versus[0]
    return lambda outputs: pick(outputs, target) - pick(outputs, versus), f"{name} rather than {score.name(versus)}"


def only_target(outputs: Any, score: Score) -> int:
    """The one output, or the second of two classes."""
    count = outputs.shape[1] if np.ndim(outputs) == 2 else 1
    labels = score.model.labels
    if count == 1:
        return 0
    if count == 2 and labels:
        return 1
    named = f" ({', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''})" if labels else ""
    raise TargetError(f"the model has {count} outputs{named}, and this question is about one of them; give target=.")


def like(rows: np.ndarray, batch: Any) -> Any:
    """Rows as the model's own kind of batch."""
    if not hasattr(batch, "detach"):
        return rows
    import torch

    return torch.as_tensor(np.ascontiguousarray(rows)).to(batch.device, batch.dtype)
