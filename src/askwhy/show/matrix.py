"""A signed square matrix with names: what two components do together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGIBLE = 10  # rows up to which the numbers stand in the cells


def matrix(values: np.ndarray, names: Sequence[str], ax: Axes | None = None, *, title: str = "", unit: str = "score units", most: int = 20) -> Axes:
    """values [d, d]: red helps, blue hinders, white is zero; the strongest rows, in their order."""
    kept = np.sort(np.argsort(-np.abs(values).sum(1), kind="stable")[:most])
    shown, top = values[np.ix_(kept, kept)], limit(values)
    size = 2.6 + 0.42 * len(kept)
    ax = ax or new_axes(size + 1.2, size)
    image = ax.imshow(shown, cmap=COLOURS, vmin=-top, vmax=top)
    labels = [wrapped(names[k], 22, 2) for k in kept]
    ax.set_xticks(range(len(kept)), labels, fontsize=8, fontfamily=fonts(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(kept)), labels, fontsize=8, fontfamily=fonts())
    if len(kept) <= LEGIBLE:
        for (row, column), value in np.ndenumerate(shown):
            ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color="white" if abs(value) > 0.6 * top else "black")
    scale = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    left_out = f" ({len(values) - len(kept)} weaker ones not shown)" if len(kept) < len(values) else ""
    scale.set_label(wrapped(unit + left_out, 40), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    return ax
