"""A matrix of shares between two lists of names, such as the layers of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.pictures import fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGIBLE = 14  # rows and columns up to which the numbers stand in the cells
LONG = 28  # letters of a name
COLOURS = "cividis"  # for colour-blind eyes the same as for others


def cells(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], ax: Axes | None = None, *,
    title: str = "", unit: str = "", x: str = "", y: str = "", marked: Sequence[tuple[int, int]] = (),
) -> Axes:  # fmt: skip
    """values [rows, columns] from 0 to 1, dark to bright; numbers in the cells where they are few; a frame around the marked (row, column).

    Raises InputError. Example: `askwhy.show.cells(values, ["conv1", "fc"], ["conv1", "fc"])`.
    """
    if values.shape != (len(rows), len(columns)) or not values.size:
        raise InputError(
            f"there are {len(rows)} and {len(columns)} names for values of the shape {list(values.shape)}; give one for each row and column."
        )
    wide, high = (min(1.6 + 0.44 * n, 13.0) for n in (len(columns), len(rows)))
    ax = ax or new_axes(wide + 2.2, high + 1.2)
    image = ax.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    small = 8 if max(len(rows), len(columns)) <= 30 else 6
    ax.set_xticks(
        range(len(columns)),
        list(map(ending, columns)),
        fontsize=small,
        fontfamily=fonts(),
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    ax.set_yticks(range(len(rows)), list(map(ending, rows)), fontsize=small, fontfamily=fonts())
    ax.set_xlabel(wrapped(x, 64), fontsize=9, fontfamily=fonts())
    ax.set_ylabel(wrapped(y, 50), fontsize=9, fontfamily=fonts())
    if max(len(rows), len(columns)) <= LEGIBLE:
        for (row, column), value in np.ndenumerate(values):
            ax.text(
                column, row, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=7, color="black" if value > 0.55 else "white"
            )
    for row, column in marked:
        ax.plot(np.array([-1, 1, 1, -1, -1]) * 0.46 + column, np.array([-1, -1, 1, 1, -1]) * 0.46 + row, color="#d55e00", linewidth=1.6)
    scale = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    scale.set_label(wrapped(unit, 44), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    ax.set_title(wrapped(title, 60), fontsize=10, fontfamily=fonts())
    ax.spines[:].set_visible(False)
    return ax


def ending(name: str) -> str:
    """Names of layers differ at their ends."""
    return (name if len(name) <= LONG else f"…{name[1 - LONG :]}").replace("$", r"\$")
