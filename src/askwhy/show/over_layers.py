"""Numbers that change from layer to layer, as lines with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import GREY, INKS, finished
from askwhy.show.pictures import fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = "osD^vP"


def over_layers(
    lines: Sequence[tuple[str, np.ndarray, np.ndarray | None]], layers: Sequence[str], ax: Axes | None = None, *,
    title: str = "", unit: str = "",
) -> Axes:  # fmt: skip
    """Lines (name, values, standard errors) with 95 % bars, all [layers]; one without errors is a level to compare with, dashed.

    Raises InputError. Example: `askwhy.show.over_layers([("accuracy", values, errors)], ["conv1", "conv2"])`.
    """
    if not lines or not layers:
        raise InputError("there is nothing to draw; give one line and one layer or more.")
    for name, values, error in lines:
        if np.shape(values) != (len(layers),) or (error is not None and np.shape(error) != (len(layers),)):
            raise InputError(f"line {name!r} has the shape {list(np.shape(values))} for {len(layers)} layers; give a number for each.")
    ax = ax or new_axes(max(5.0, 2.2 + 0.62 * len(layers)), 4.0)
    at, inks = np.arange(len(layers)), iter([*INKS, GREY] * len(lines))
    for k, (name, values, error) in enumerate(lines):
        told = wrapped(name, 40, 2)
        if error is None:
            ax.plot(at, values, color=GREY, linestyle="--", linewidth=1.5, marker="_" if len(layers) == 1 else "", label=told)
            continue
        beside = (k - (len(lines) - 1) / 2) * 0.04  # so that equal values do not hide one another's bars
        ax.errorbar(
            at + beside, values, 1.96 * np.nan_to_num(error), color=next(inks), marker=MARKS[k % len(MARKS)], markersize=4.5, capsize=3, label=told
        )
    turn: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if max(map(len, layers)) * len(layers) > 34 else {}
    ax.set_xticks(at, [wrapped(name, 28, 1) for name in layers], fontfamily=fonts(), **turn)
    ax.set_xlim(-0.4, len(layers) - 0.6)
    ax.grid(axis="y", color=GREY, alpha=0.3, linewidth=0.6)
    ax.legend(prop={"family": fonts(), "size": 8}, frameon=False)
    note = "bars: 95 %" if any(error is not None for _, _, error in lines) else ""
    return finished(ax, title, f"layer, from the input to the output{'; ' + note if note else ''}", unit)
