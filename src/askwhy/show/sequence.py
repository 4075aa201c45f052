"""Numbers along a sequence: tokens or steps by units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import finished
from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 40  # rows or columns up to which each has its name


def sequence(
    values: np.ndarray, ax: Axes | None = None, *, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None,
    title: str = "", unit: str = "", x: str = "", y: str = "",
) -> Axes:  # fmt: skip
    """A signed matrix [rows, columns]: red above zero, blue below, white zero. rows, columns: names; else they are counted.

    Raises InputError. Example: `askwhy.show.sequence(values, rows=["a", "cat"], x="unit", y="token")`.
    """
    if values.ndim != 2 or not values.size:
        raise InputError(f"this picture needs a matrix [rows, columns], and the values have the shape {list(values.shape)}.")
    for axis, names in enumerate((rows, columns)):
        if names is not None and len(names) != values.shape[axis]:
            raise InputError(f"there are {len(names)} names for {values.shape[axis]} {('rows', 'columns')[axis]}; give one for each.")
    high, wide = (min(max(0.24 * one, 2.0), 9.0) for one in values.shape)
    ax = ax or new_axes(max(wide, 4.5) + 1.8, high + 1.2)
    top = limit(values)
    image = ax.imshow(values, cmap=COLOURS, vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    scale = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.02)
    scale.set_label(wrapped(unit, 40), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    if not (values < 0).any():
        scale.ax.set_ylim(0, top)
    finished(ax, title, x, y)
    ax.spines[:].set_visible(False)
    name(ax, "y", rows)
    name(ax, "x", columns)
    return ax


def name(ax: Axes, axis: str, names: Sequence[str] | None) -> None:
    """A name at each place, or where they are many at some; whole numbers where there are none."""
    if names is None:
        from matplotlib.ticker import MaxNLocator

        getattr(ax, f"{axis}axis").set_major_locator(MaxNLocator(integer=True))
        return
    at = np.unique(np.linspace(0, len(names) - 1, min(len(names), NAMED)).astype(int))
    labels = [wrapped(names[k], 18, 1) for k in at]
    turned = {"rotation": 90} if axis == "x" and max(map(len, labels)) > 2 else {}
    getattr(ax, f"set_{axis}ticks")(at, labels, fontsize=8, fontfamily=fonts(), **turned)
