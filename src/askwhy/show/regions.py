"""The parts of a picture that speak for and against, in two colours, with their outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.pictures import AGAINST, FOR, extent, fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def regions(
    values: np.ndarray, labels: np.ndarray, picture: np.ndarray | None = None, std_error: np.ndarray | None = None, ax: Axes | None = None, *,
    title: str = "", most: int = 8, unit: str = "score units",
) -> Axes:  # fmt: skip
    """values [d] of the regions labels [h, w]: the strongest ones over the picture, outlined and with their numbers.

    A region whose 95 % interval holds zero is left out.
    """
    from matplotlib.colors import to_rgb
    from skimage.segmentation import find_boundaries

    ax = ax or new_axes(5.0, 5.0)
    if picture is not None:
        ax.imshow(picture, extent=extent(labels))
    sure = np.ones(len(values), bool) if std_error is None else ~(np.abs(values) < 1.96 * np.nan_to_num(std_error))
    order = [k for k in np.argsort(-np.abs(values), kind="stable") if sure[k] and values[k] != 0][:most]
    layer = np.zeros((*labels.shape, 4))
    for k in order:
        inside = labels == k
        layer[inside] = (*to_rgb(FOR if values[k] > 0 else AGAINST), 0.35)
        layer[find_boundaries(inside, mode="inner")] = (*to_rgb(FOR if values[k] > 0 else AGAINST), 1.0)
    ax.imshow(layer, extent=extent(labels), interpolation="nearest")
    for k in order:
        row, column = (at.mean() for at in np.nonzero(labels == k))
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
        ax.text(column, row, f"{values[k]:+.2g}", ha="center", va="center", fontsize=7, bbox=box)
    ax.set_xticks([]), ax.set_yticks([])
    ax.set_xlabel(wrapped(f"red for, blue against, in {unit}; {len(values) - len(order)} weaker or unsure regions are left out", 60), fontsize=8)
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    return ax
