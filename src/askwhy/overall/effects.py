"""How the score moves with one column or two: partial dependence, individual curves, accumulated local effects."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.errors import InputError, UnsupportedError
from askwhy.game import Progress, progress_of
from askwhy.kept import Kept
from askwhy.overall.ale import Ask, accumulate
from askwhy.overall.axis import Axis, axis_of
from askwhy.overall.support import associated, off_data, off_pairs
from askwhy.overall.table import Table, settle, table_of
from askwhy.tables import place_of_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 0.1  # share of rows off the data that is worth a sentence
NAMES = {"pdp": "partial dependence", "ice": "individual curves (ICE)", "ale": "accumulated local effects (ALE)"}


@dataclass(frozen=True, eq=False)
class Effect(Kept):
    """How the score moves with one column or two, over the rows of a table.

    values: [g] or [g1, g2], on `grid` (numbers, dates or levels). "pdp", "ice": the mean score; "ale": relative to its mean, and of
    two columns only what they do together beyond each alone. std_error: of values, over the rows (not over other trainings).
    curves [n, g]: of "ice". missing: the score, and its standard error, with the column missing in all rows, where it has gaps.
    data: where the rows are on each axis. off_data: like values, the share of rows that are moved off the data there.
    """

    several = frozenset({"grid", "data"})
    values: np.ndarray
    std_error: np.ndarray
    grid: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    data: tuple[np.ndarray, ...]  # [n] each: numbers (dates as nanoseconds), or places of levels in the grid; NaN where missing
    weights: np.ndarray  # [n]
    method: str
    target: str
    unit: str = "score units"
    curves: np.ndarray | None = None
    missing: tuple[float, float] | None = None
    off_data: np.ndarray | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """A few lines: how far the score moves, its error, and how far to trust it."""
        there = self.values if self.off_data is None or (self.off_data > 0.5).all() else np.where(self.off_data > 0.5, np.nan, self.values)
        low, high = (np.unravel_index(at(there), there.shape) for at in (np.nanargmin, np.nanargmax))
        ends = [f"{self.values[at]:.4g} at {self._place(at)} (standard error {self.std_error[at]:.2g})" for at in (low, high)]
        lines = [f"{NAMES[self.method]}: {self.target} by {' and '.join(self.names)}: from {ends[0]} to {ends[1]}", *self.trust()]
        return "\n".join([*lines, f"{self.model_calls} model calls, {self.seconds:.2f} s"])

    def _place(self, at: tuple[Any, ...]) -> str:
        return ", ".join(f"{name} = {in_words(grid[k])}" for name, grid, k in zip(self.names, self.grid, at, strict=True))

    def trust(self) -> list[str]:
        """What is known of the error, one sentence each."""
        told, name = self.details, self.names[0]
        said = [f"error bars: over the {told['rows']}, the model as it is"]
        if self.missing is not None:
            said.append(f"with {name} missing: {self.missing[0]:.4g} (standard error {self.missing[1]:.2g})")
        if told["left_out"]:
            said.append(f"{told['left_out']} rows are left out, whose {' or '.join(self.names)} is missing or not on the grid")
        if told.get("empty_cells"):
            said.append(
                f"{told['empty_cells']:.0%} of the cells hold no row and take the steps of the nearest that does: not to be read where it is grey"
            )
        if told["association"] > 0.5:
            said.append(f"{told['associated'][0]} goes with {told['associated'][1]} ({told['association']:.2f} of 1)")
        if told.get("off_data_share", 0) > FAR:
            other = f", given their {told['off_data_with']}," if told.get("off_data_with") else ""
            said.append(
                f"off the data: {told['off_data_share']:.0%} of the rows asked about hold values that{other} no row has; how='ale' stays with the data"
            )
        return said

    def plot(self, ax: Axes | None = None) -> Axes:
        """A curve, points of levels, or a map of two columns, with 95 % bands and where the data are. Returns the axes and never shows them."""
        from askwhy.overall.drawn import draw

        return draw(self, ax)

    def __repr__(self) -> str:
        return f"<Effect by {self.method}, {' and '.join(self.names)}, values {list(self.values.shape)}, {self.target}>"


def in_words(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).removesuffix("T00:00:00.000000000")


def effect(
    model: Any, X: Any, features: int | str | Sequence[int | str], *, how: str = "pdp", target: Any = None, versus: Any = None, grid: Any = None,
    centre: bool = False, categorical: Sequence[int | str] | None = None, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Effect:  # fmt: skip
    """How the score moves with one column of a table, or with a pair of them; X is a table or an `askwhy.background`.

    how: "pdp": the mean score over the rows of X with the column set to each value (Friedman 2001), "ice": the curve of
    each row too (Goldstein 2015), "ale": local differences within intervals, added up, mean 0 (Apley & Zhu 2020).
    target: a class or function; may be left out for one output or two classes (then the second). grid: the number of
    points (default 40, ALE by rows), or the values; levels in their order; a pair of these for two columns. ALE orders levels
    by similarity where they have no order. centre: each curve less its first value. categorical: columns of codes.
    Raises InputError, TargetError, UnsupportedError. Example: `askwhy.effect(model, X, "age", how="ale").plot()`.
    """
    if how not in HOW:
        raise InputError(f"how={how!r}: choose {', '.join(map(repr, HOW))}.")
    table = table_of(model, X, categorical, target, versus)
    axes = axes_of(table, features, how, grid)
    if centre and (how == "ale" or len(axes) == 2):
        why = "ALE has a mean of 0 already" if how == "ale" else "a map of two columns has no first value"
        raise InputError(f"centre=True is for curves of 'pdp' and 'ice': {why}; leave it out.")
    read, name = settle(table)
    with progress_of(progress, how) as tick:

        def ask(total: int, show: Any) -> np.ndarray:
            table.announce(total, show)
            return table.ask(total, show, read, batch_size, tick)

        found = HOW[how](table, axes, centre, ask)
    details = {"rows": table.text, "left_out": found.pop("left_out", 0), **company(table, axes)}
    details |= {name: found.pop(name) for name in ("empty_cells", "off_data_share", "off_data_with") if name in found}
    return Effect(
        **found,
        grid=tuple(axis.grid for axis in axes),
        names=tuple(axis.name for axis in axes),
        kinds=tuple(axis.kind for axis in axes),
        data=tuple(axis.at for axis in axes),
        weights=table.weights,
        method=how,
        target=name,
        params={"centre": centre, "points": [len(axis) for axis in axes], "grid": "quantiles" if grid is None or isinstance(grid, int) else "given"},
        details=details,
        model_calls=table.score.calls,
        seconds=time.perf_counter() - table.score.started,
        versions=versions(),
    )


def axes_of(table: Table, features: Any, how: str, grid: Any) -> list[Axis]:
    """One axis or two. Raises InputError, UnsupportedError."""
    asked = list(features) if isinstance(features, (list, tuple)) else [features]
    if len(asked) not in (1, 2) or len({place_of_column(one, table.names) for one in asked}) < len(asked):
        raise InputError(f"features={features!r}: name one column, or two different ones.")
    if how == "ice" and len(asked) == 2:
        raise UnsupportedError("how='ice' draws a curve for each row, and a pair of columns would make surfaces; ask for 'pdp' or 'ale' of the pair.")
    grids = list(grid) if len(asked) == 2 and isinstance(grid, (list, tuple)) else [grid] * len(asked)
    if len(grids) != len(asked):
        raise InputError(f"grid= has {len(grids)} entries for a pair of columns; give two, each a number or a list of values.")
    usual = usual_points(len(table), len(asked), how)
    return [
        axis_of(table, place_of_column(one, table.names), usual if g is None else g, similar=how == "ale")
        for one, g in zip(asked, grids, strict=True)
    ]


def usual_points(rows: int, columns: int, how: str) -> int:
    """ALE needs some 20 rows in each interval, lest the steps be noise."""
    if how != "ale":
        return 40 if columns == 1 else 20
    return int(np.clip(rows // 20, 2, 40) if columns == 1 else np.clip(np.sqrt(rows / 20), 2, 12)) + 1


def partial(table: Table, axes: list[Axis], centre: bool, ask: Ask) -> dict[str, Any]:
    """The mean score with every row at each point of the grid."""
    curves = asked(table, axes, ask)
    missing = curves.shape[1] > np.prod([len(axis) for axis in axes])
    if centre:
        curves = curves - curves[:, :1]
    values, error = mean_of(curves, table.weights)
    found: dict[str, Any] = {"missing": (float(values[-1]), float(error[-1])), "curves": curves[:, :-1]} if missing else {"curves": curves}
    shape = tuple(map(len, axes))
    points = int(np.prod(shape))
    return {**found, "values": values[:points].reshape(shape), "std_error": error[:points].reshape(shape), **off(table, axes)}


def without_curves(table: Table, axes: list[Axis], centre: bool, ask: Ask) -> dict[str, Any]:
    return {**partial(table, axes, centre, ask), "curves": None}


def asked(table: Table, axes: list[Axis], ask: Ask) -> np.ndarray:
    """[n, points of the grid]: the score of every row at every point, of one axis with its missing value."""
    n, shape = len(table), tuple(len(axis.cells) if len(axes) == 1 else len(axis) for axis in axes)

    def show(start: int, stop: int) -> Any:
        one = np.arange(start, stop)
        points = np.unravel_index(one // n, shape)
        return table.changed(one % n, {axis.place: axis.cells.take(at) for axis, at in zip(axes, points, strict=True)})

    return ask(n * int(np.prod(shape)), show).reshape(-1, n).T


def mean_of(curves: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of curves [n, g], and its standard error over the rows; NaN for a single row."""
    mean, n = weights @ curves, len(curves)
    if n == 1:
        return mean, np.full(len(mean), np.nan)
    return mean, np.sqrt(weights**2 @ (curves - mean) ** 2 * n / (n - 1))


def off(table: Table, axes: list[Axis]) -> dict[str, Any]:
    """Where the rows are moved off the data."""
    if len(axes) == 2:
        found = off_pairs(table, *axes)
        return {"off_data": found, "off_data_share": float(found.mean())}
    found, who = off_data(table, axes[0])
    return {"off_data": found, "off_data_share": float(found.mean()), "off_data_with": None if who is None else table.names[who]}


def company(table: Table, axes: list[Axis]) -> dict[str, Any]:
    """The other column that goes most with one of these."""
    best: dict[str, Any] = {"association": 0.0, "associated": []}
    for axis in axes:
        found = associated(table, axis.place)
        if found.max() > best["association"]:
            best = {"association": float(found.max()), "associated": [axis.name, table.names[int(found.argmax())]]}
    return best


def accumulated(table: Table, axes: list[Axis], centre: bool, ask: Ask) -> dict[str, Any]:
    return accumulate(table, axes, ask)


HOW = {"pdp": without_curves, "ice": partial, "ale": accumulated}
