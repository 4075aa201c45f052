"""Many small pictures side by side, each with its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import ink
from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE, GAP = 1.0, 0.06  # of a tile, and between two
LINE = 0.115  # height of a line of text under a tile


def tiles(
    pictures: Sequence[np.ndarray | None], names: Sequence[str] | None = None, ax: Axes | None = None, *,
    columns: int | None = None, title: str = "", unit: str = "", one_scale: bool = True, rows: Sequence[str] | None = None,
) -> Axes:  # fmt: skip
    """Pictures [h, w, 3] (uint8, or 0..1) and maps [h, w] in a grid, as many in a line as `columns`; None leaves a place empty.

    Maps are coloured: white is zero, red above, blue below, all on one scale with its unit, or each on its own
    (one_scale=False, which the title has to say). rows: a name for each line of the grid. Raises InputError.
    Example: `askwhy.show.tiles([a, b], ["cat", "dog"])`.
    """
    check(pictures, names)
    columns = min(columns or max(1, min(len(pictures), 8)), len(pictures))
    lines = -(-len(pictures) // columns)
    told = [wrapped(name, 20, 3) for name in names or [""] * len(pictures)]
    under = GAP + LINE * max(text.count("\n") + 1 if text else 0 for text in told)
    maps = [picture for picture in pictures if picture is not None and picture.ndim == 2]
    scale = (max(limit(one) for one in maps) if one_scale else None) if maps else None
    left = 0.25 if rows else 0.0
    ax = ax or new_axes(1.45 * columns * (SIDE + GAP) + 0.5 + left + (0.7 if scale else 0), 1.45 * lines * (SIDE + under) + 0.4)
    shown = None
    for k, picture in enumerate(pictures):
        if picture is None:
            continue
        x, y = (k % columns) * (SIDE + GAP), (k // columns) * (SIDE + under)
        width, height = inside(picture.shape[:2])
        where = (x + (SIDE - width) / 2, x + (SIDE + width) / 2, y + (SIDE + height) / 2, y + (SIDE - height) / 2)
        top = 1.0 if picture.ndim == 3 else scale or limit(picture)
        shown_here = ax.imshow(picture, extent=where, cmap=COLOURS, vmin=-top, vmax=top, interpolation="nearest", aspect="equal")
        shown = shown_here if picture.ndim == 2 else shown
        ax.text(x + SIDE / 2, y + SIDE + 0.03, told[k], ha="center", va="top", fontsize=8, fontfamily=fonts(), color=ink(), linespacing=1.0)
    for k, name in enumerate(rows or ()):
        ax.text(
            -0.08,
            k * (SIDE + under) + SIDE / 2,
            wrapped(name, 18, 2),
            ha="center",
            va="center",
            fontsize=9,
            rotation=90,
            fontfamily=fonts(),
            color=ink(),
        )
    ax.set_xlim(-0.02 - left, columns * (SIDE + GAP) - GAP + 0.02)
    ax.set_ylim(lines * (SIDE + under), -0.02)
    ax.set_axis_off()
    ax.set_title(wrapped(title, max(46, 16 * columns)), fontsize=10, fontfamily=fonts())
    if shown is not None and scale:
        bar = ax.figure.colorbar(shown, ax=ax, fraction=0.03, pad=0.02)
        bar.set_label(wrapped(unit, 40), fontsize=8)
        bar.ax.tick_params(labelsize=8)
        if not any((one < 0).any() for one in maps):
            bar.ax.set_ylim(0, scale)
    return ax


def check(pictures: Sequence[np.ndarray | None], names: Sequence[str] | None) -> None:
    if not len(pictures):
        raise InputError("there are no pictures to show.")
    if names is not None and len(names) != len(pictures):
        raise InputError(f"there are {len(names)} names for {len(pictures)} pictures; give one for each.")
    for k, picture in enumerate(pictures):
        if picture is not None and not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))):
            raise InputError(f"picture {k} has the shape {list(picture.shape)}; give [h, w, 3], or a map [h, w].")


def inside(shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height of a picture in a square tile."""
    height, width = shape
    longest = max(height, width)
    return width / longest * SIDE, height / longest * SIDE
