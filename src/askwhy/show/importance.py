"""How much each feature matters over many rows: bars with error bars, groups of rows side by side, outputs stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import GREY, check_count, checked, counted, finished, ink, name_rows, parted
from askwhy.show.pictures import fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CALM = ("#4477aa", "#ccbb44", "#228833", "#ee6677", "#aa3377", "#66ccee")  # Tol's bright ones: for colour-blind eyes, and neither for nor against
REST = 0.82  # of a row that bars may fill


@dataclass(frozen=True, eq=False)
class Group:
    """Bars of one colour: how long, where they begin, and how sure they are (95 %); all [d]."""

    name: str
    length: np.ndarray
    error: np.ndarray | None
    left: np.ndarray | float = 0.0


def importance(
    values: np.ndarray, names: Sequence[str], ax: Axes | None = None, *, error: np.ndarray | None = None, cohorts: Sequence[Any] | None = None,
    outputs: Sequence[str] | None = None, title: str = "", unit: str = "score units", most: int = 10,
) -> Axes:  # fmt: skip
    """Mean |value| of each feature over the rows of values [n, d], with 95 % error bars (1.96 standard errors over rows).

    cohorts [n]: a group for each row, side by side. outputs [k] names the last axis of values [n, d, k], whose means are stacked.
    values [d] are drawn as they are, signs included, with their own standard errors, error [d]: importances found in another way.
    The last row sums what is not shown, except of values [d], which may not be summed. Raises InputError.
    Example: `askwhy.show.importance(why.values, names)`.
    """
    shape = "[n, d, k]" if outputs is not None else "[d]" if np.ndim(values) == 1 else "[n, d]"
    values = checked(values, names, shape)
    if cohorts is not None and shape != "[n, d]":
        raise InputError(f"cohorts= are groups of the rows of values [n, d], and these have the shape {list(values.shape)}.")
    if error is not None and (shape != "[d]" or np.shape(error) != values.shape):
        raise InputError(f"error= has the shape {list(np.shape(error))}: it goes with values [d]; of rows it is computed.")
    total = values if shape == "[d]" else np.abs(values).reshape(len(values), len(names), -1).sum(2).mean(0)
    order = np.argsort(-np.abs(total), kind="stable")
    check_count("most", most, 1)
    shown, rest = (order[:most], order[most:]) if shape == "[d]" else parted(order, most)
    rows, said = merged(values, names, shown, rest) if shape != "[d]" else (values[shown], [names[j] for j in shown])
    groups = as_given(rows, None if error is None else np.asarray(error, float)[shown]) if shape == "[d]" else grouped(rows, cohorts, outputs)
    ax = ax or new_axes(6.8, 1.2 + (0.36 if cohorts is None else 0.2 + 0.16 * len(groups)) * len(said))
    draw(ax, groups, said, beside=cohorts is not None, summed=shape != "[d]" and len(rest) > 0)
    return finished(ax, title, caption(values, shape, unit, len(rest)))


def caption(values: np.ndarray, shape: str, unit: str, rest: int) -> str:
    if shape == "[d]":
        return unit + (f" ({rest} smaller ones not shown)" if rest else "")
    if len(values) == 1:
        return f"|value| in {unit}; 1 row"
    return f"mean |value| in {unit}; {counted(values)}, 95 % error bars"


def merged(values: np.ndarray, names: Sequence[str], shown: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """|values| [n, rows, ...] of the features that are shown, and the sum of the others."""
    size = np.abs(values)
    columns = [size[:, shown], *([size[:, rest].sum(1, keepdims=True)] if len(rest) else [])]
    return np.concatenate(columns, 1), [names[j] for j in shown] + [f"{len(rest)} others, summed"] * bool(len(rest))


# ---- groups ---------------------------------------------------------------------------------------------------------


def as_given(values: np.ndarray, error: np.ndarray | None) -> list[Group]:
    return [Group("", values, None if error is None else 1.96 * error)]


def grouped(size: np.ndarray, cohorts: Sequence[Any] | None, outputs: Sequence[str] | None) -> list[Group]:
    """Of |values| [n, d] or [n, d, k]."""
    if outputs is not None:
        return stacked(size, outputs)
    if cohorts is None:
        return [Group("", size.mean(0), bounds(size))]
    return [Group(f"{name} ({counted(mine)})", mine.mean(0), bounds(mine)) for name, mine in members(size, cohorts)]


def bounds(size: np.ndarray) -> np.ndarray | None:
    """Half the 95 % interval of the mean over rows; of one row nothing is known."""
    return None if len(size) < 2 else 1.96 * size.std(0, ddof=1) / np.sqrt(len(size))


def members(size: np.ndarray, cohorts: Sequence[Any]) -> list[tuple[str, np.ndarray]]:
    """The rows of each group, in the order in which they come. Raises InputError."""
    labels = np.array([str(cohort) for cohort in cohorts])
    if len(labels) != len(size):
        raise InputError(f"cohorts= has {len(labels)} entries for {len(size)} rows; give the group of each row.")
    found = list(dict.fromkeys(labels.tolist()))
    if len(found) > len(CALM):
        raise InputError(f"cohorts= has {len(found)} groups; at most {len(CALM)} can be told apart by their colours.")
    return [(name, size[labels == name]) for name in found]


def stacked(size: np.ndarray, outputs: Sequence[str]) -> list[Group]:
    """One output after the other; the error bar is that of the sum. Raises InputError."""
    if len(outputs) != size.shape[2]:
        raise InputError(f"outputs= has {len(outputs)} names for {size.shape[2]} outputs; give one for each.")
    strong = np.argsort(-size.sum((0, 1)), kind="stable")
    taken, rest = (strong, strong[:0]) if len(strong) <= len(CALM) else (strong[: len(CALM) - 1], strong[len(CALM) - 1 :])
    parts = [(outputs[k], size[:, :, k].mean(0)) for k in taken] + [(f"{len(rest)} others", size[:, :, rest].sum(2).mean(0))] * bool(len(rest))
    ends = np.cumsum([length for _, length in parts], axis=0)
    errors = [None] * (len(parts) - 1) + [bounds(size.sum(2))]
    return [Group(name, length, error, end - length) for (name, length), end, error in zip(parts, ends, errors, strict=True)]


# ---- drawing --------------------------------------------------------------------------------------------------------


def draw(ax: Axes, groups: Sequence[Group], names: Sequence[str], *, beside: bool, summed: bool) -> None:
    height = REST / (len(groups) if beside else 1)
    for k, (group, colour) in enumerate(zip(groups, CALM, strict=False)):
        at = np.arange(len(names)) + (height * (k - (len(groups) - 1) / 2) if beside else 0.0)
        shades = [GREY if summed and len(groups) == 1 and row == len(names) - 1 else colour for row in range(len(names))]
        ax.barh(at, group.length, left=group.left, height=0.92 * height, color=shades, label=wrapped(group.name, 30, 1))
        if group.error is not None:
            ax.errorbar(group.left + group.length, at, xerr=group.error, fmt="none", ecolor=ink(), capsize=2, linewidth=1)
    name_rows(ax, names)
    ax.axvline(0, color="0.5", linewidth=0.8)
    if len(groups) > 1:
        ax.legend(fontsize=8, frameon=False, loc="lower right", prop={"family": fonts(), "size": 8})
    else:
        number(ax, groups[0])


def number(ax: Axes, group: Group) -> None:
    """The numbers beyond the bars."""
    error = np.zeros(len(group.length)) if group.error is None else group.error
    ends = np.maximum(group.length + error, 0.0)
    room = np.ptp([0.0, *ends, *group.length]) or 1.0
    for row, (value, end) in enumerate(zip(group.length, ends, strict=True)):
        ax.text(end + 0.015 * room, row, f"{value:.3g}", va="center", fontsize=8)
    ax.set_xlim(min(0.0, float((group.length - error).min())) - (0.02 * room if group.length.min() < 0 else 0), float(ends.max()) + 0.14 * room)
