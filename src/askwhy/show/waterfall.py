"""From the base value to the score, one component after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.pictures import AGAINST, FOR, fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def waterfall(
    values: np.ndarray, names: Sequence[str], base: float, end: float, std_error: np.ndarray | None = None, ax: Axes | None = None, *,
    title: str = "", most: int = 10, unit: str = "score units",
) -> Axes:  # fmt: skip
    """Steps from `base` (below) to `end` (above), the largest on top, the rest in one; 95 % error bars where they are known."""
    order = np.argsort(-np.abs(values), kind="stable")
    shown, rest = (order, order[:0]) if len(order) <= most else (order[: most - 1], order[most - 1 :])
    steps = [*((values[k], names[k], None if std_error is None else std_error[k]) for k in shown)]
    steps += [(values[rest].sum(), f"{len(rest)} smaller ones", None)] if len(rest) else []
    ax = ax or new_axes(6.5, 1.3 + 0.36 * len(steps) + 0.2 * wrapped(title).count("\n"))
    at = base
    span = max(abs(end - base), float(np.abs(values).max(initial=0)), 1e-12)
    for row, (value, _, error) in reversed(list(enumerate(steps))):
        ax.barh(row, value, left=at, height=0.66, color=FOR if value > 0 else AGAINST)
        ax.plot([at, at], [row - 0.33, row + 1.33 if row + 1 < len(steps) else row + 0.5], color="0.6", linewidth=0.8)
        if error is not None and np.isfinite(error) and error > 0:
            ax.errorbar(at + value, row, xerr=1.96 * error, color="0.25", capsize=2, linewidth=1)
        rightmost = max(at, at + value + (1.96 * error if error is not None and np.isfinite(error) else 0))
        ax.text(rightmost + 0.02 * span, row, f"{value:+.3g}", va="center", fontsize=8)
        at += value
    ax.axvline(end, color="0.5", linewidth=0.8, linestyle=":")
    ax.axvline(base, color="0.5", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(steps)), [wrapped(name, 34, 2) for _, name, _ in steps], fontsize=9, fontfamily=fonts())
    ax.set_ylim(len(steps) - 0.4, -0.6)
    left, right = ax.get_xlim()
    ax.set_xlim(left - 0.04 * (right - left), right + 0.14 * (right - left))  # for the numbers
    ax.set_xlabel(wrapped(f"{unit}: from {base:.4g} without any of them to {end:.4g}", 70), fontsize=9)
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    ax.spines[["top", "right"]].set_visible(False)
    return ax
