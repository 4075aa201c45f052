"""How rows come from the base value to their scores, feature by feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import checked, counted, finished, ink, name_rows, parted, strongest
from askwhy.show.pictures import AGAINST, FOR, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--", ":", "-.")  # of highlighted rows


def decision(
    values: np.ndarray, names: Sequence[str], base: float, ax: Axes | None = None, *, highlight: Sequence[int] = (), title: str = "",
    unit: str = "score units", most: int = 15, order: str | None = "mean",
) -> Axes:  # fmt: skip
    """A line for each row of values [n, d], from the base value at the foot to its score at the top.

    At each feature, the most important on top, the line moves by the row's value; what is not shown moves it first, in one step. Red
    lines end above the base, blue ones below; many lines are thin and clear. highlight: rows drawn on top and named.
    order: "mean" or "max" of |value|, or None, as they come. Raises InputError.
    Example: `askwhy.show.decision(why.values, names, float(why.base_value[0]), highlight=[3])`.
    """
    from matplotlib.collections import LineCollection

    values = checked(values, names, "[n, d]")
    check(highlight, len(values))
    shown, rest = parted(strongest(values, order), most)
    x = walked(values, shown, rest, base)
    rows = x.shape[1] - 1
    ax = ax or new_axes(6.8, 1.3 + 0.3 * rows)
    lines = np.stack([x, np.broadcast_to(np.arange(rows, -1, -1) - 0.5, x.shape)], 2)
    clear, colours = float(np.clip(60 / len(x), 0.03, 0.85)), [FOR if end > base else AGAINST for end in x[:, -1]]
    ax.add_collection(LineCollection(list(lines), colors=colours, alpha=clear, linewidths=1.5 if len(x) < 50 else 0.9, rasterized=len(x) > 500))
    said = [names[j] for j in shown] + [f"{len(rest)} others, summed"] * bool(len(rest))
    name_rows(ax, said)
    ax.set_ylim(rows - 0.4, -0.6)
    for k, row in enumerate(highlight):
        ax.plot(x[row], lines[row, :, 1], color=ink(), linewidth=1.8, linestyle=DASHES[k % len(DASHES)], label=f"row {row}: {x[row, -1]:.4g}")
    ax.axvline(base, color="0.5", linewidth=0.8)
    room = 0.04 * np.ptp(x) or 1.0
    ax.set_xlim(x.min() - room, x.max() + room)
    if len(highlight):
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finished(ax, title, f"{unit}; {counted(values)} from base {base:.4g} (foot) to their scores (top)")


def check(highlight: Sequence[int], count: int) -> None:
    """Raises InputError."""
    for row in highlight:
        if not 0 <= row < count:
            raise InputError(f"highlight={row}: there are {counted(range(count))}, counted from 0.")


def walked(values: np.ndarray, shown: np.ndarray, rest: np.ndarray, base: float) -> np.ndarray:
    """[n, rows + 1]: where a line is after each feature, from the foot."""
    steps = [values[:, rest].sum(1, keepdims=True)] * bool(len(rest)) + [values[:, shown[::-1]]]
    return base + np.concatenate([np.zeros((len(values), 1)), np.concatenate(steps, 1).cumsum(1)], 1)  # type: ignore[no-any-return]
