"""How alike some things are, by several measures side by side: square maps on one scale, with the things' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import GREY, ink
from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, shortened, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGIBLE = 12  # rows up to which the numbers stand in the cells of a single map
SIDE, GAP = 1.0, 0.08
NAME = 0.14  # height of a panel's name, and of its caption


def similarities(
    maps: Sequence[np.ndarray] | np.ndarray, panels: Sequence[str], names: Sequence[str], ax: Axes | None = None, *,
    groups: Sequence[str] | None = None, captions: Sequence[str] | None = None, title: str = "", unit: str = "cosine similarity", columns: int = 4,
) -> Axes:  # fmt: skip
    """Maps [panels, m, m] in -1 .. 1 on one scale: red is alike, blue opposite, white zero; the diagonal, each with itself, is grey.

    Rows of one of `groups` stand together, with lines between groups. Names stand at the left, in full for a few dozen rows.
    Raises InputError. Example: `askwhy.show.similarities([a, b], ["first", "last"], ["apple 1", "apple 2"])`.
    """
    check(maps, panels, names, groups)
    order = in_groups(groups) if groups is not None else np.arange(len(names))
    columns = min(columns, len(maps))
    lines = -(-len(maps) // columns)
    beneath = 0.0 if captions is None else NAME
    height = SIDE + NAME + beneath + GAP
    inches = max(2.4 if len(maps) > 1 else 4.0, 0.19 * len(names))
    beside = [told(names[k], None if groups is None else groups[k]) for k in order.tolist()]
    size = float(np.clip(170 / len(names), 4, 8.5))
    left = 0.04 + max(map(width_of, beside)) * size / 72 / inches
    ax = ax or new_axes(inches * (columns * (SIDE + GAP) + left) + 1.0, inches * lines * height + 0.5)
    off = [np.where(np.eye(len(one), dtype=bool), np.nan, one)[np.ix_(order, order)] for one in map(np.asarray, maps)]
    top = limit(np.concatenate([one[np.isfinite(one)] for one in off]))
    shown = None
    for k, one in enumerate(off):
        x, y = (k % columns) * (SIDE + GAP), (k // columns) * height + NAME
        shown = panel(ax, one, x, y, top)
        words = {"ha": "center", "fontfamily": fonts(), "color": ink()}
        ax.text(x + SIDE / 2, y - 0.02, wrapped(panels[k], 30, 1), va="bottom", fontsize=9, **words)
        if captions is not None:
            ax.text(x + SIDE / 2, y + SIDE + 0.02, wrapped(captions[k], 44, 2), va="top", fontsize=7.5, **words)
        if groups is not None:
            between(ax, [groups[j] for j in order.tolist()], x, y)
        if k % columns == 0:
            name_lines(ax, beside, y, size)
        if len(maps) == 1 and len(names) <= LEGIBLE:
            number(ax, one, x, y, top)
    finish(ax, shown, off, title, unit, (left, columns * (SIDE + GAP) - GAP, lines * height, top))
    return ax


def check(maps: Sequence[np.ndarray] | np.ndarray, panels: Sequence[str], names: Sequence[str], groups: Sequence[str] | None) -> None:
    if not len(maps) or len(panels) != len(maps):
        raise InputError(f"there are {len(panels)} names for {len(maps)} maps; give one for each, and at least one.")
    for k, one in enumerate(maps):
        if np.shape(one) != (len(names), len(names)) or not np.isfinite(one).all():
            raise InputError(f"map {k} has the shape {list(np.shape(one))} for {len(names)} names; give finite numbers [m, m].")
    if groups is not None and len(groups) != len(names):
        raise InputError(f"there are {len(groups)} groups for {len(names)} names; give one for each.")


def panel(ax: Axes, one: np.ndarray, x: float, y: float, top: float) -> object:
    from matplotlib import colormaps

    colours = colormaps[COLOURS].with_extremes(bad=GREY)
    return ax.imshow(one, extent=(x, x + SIDE, y + SIDE, y), cmap=colours, vmin=-top, vmax=top, interpolation="nearest")


def between(ax: Axes, groups: Sequence[str], x: float, y: float) -> None:
    """Lines where one group ends and the next begins."""
    for k in range(1, len(groups)):
        if groups[k] != groups[k - 1]:
            at = k / len(groups) * SIDE
            ax.plot([x, x + SIDE], [y + at, y + at], color="black", linewidth=1)
            ax.plot([x + at, x + at], [y, y + SIDE], color="black", linewidth=1)


def in_groups(groups: Sequence[str]) -> np.ndarray:
    """Rows of one group together, the groups as they come."""
    first = {name: k for k, name in reversed(list(enumerate(groups)))}
    return np.argsort([first[name] for name in groups], kind="stable")


def told(name: str, group: str | None) -> str:
    return shortened(name, 420, 10) + ("" if group is None else f"  [{shortened(group, 90, 10)}]")


def width_of(text: str) -> float:
    """About, in heights of a letter."""
    return sum(1.0 if ord(sign) > 0x2E7F else 0.58 for sign in text)


def name_lines(ax: Axes, names: Sequence[str], y: float, size: float) -> None:
    for row, name in enumerate(names):
        at = y + (row + 0.5) / len(names) * SIDE
        ax.text(-0.03, at, name.replace("$", r"\$"), ha="right", va="center", fontsize=size, fontfamily=fonts(), color=ink())


def number(ax: Axes, one: np.ndarray, x: float, y: float, top: float) -> None:
    for (row, column), value in np.ndenumerate(one):
        if np.isfinite(value):
            at = x + (column + 0.5) / len(one) * SIDE, y + (row + 0.5) / len(one) * SIDE
            ax.text(*at, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color="white" if abs(value) > 0.6 * top else "black")


def finish(ax: Axes, shown: object, off: Sequence[np.ndarray], title: str, unit: str, size: tuple[float, float, float, float]) -> None:
    left, width, height, top = size
    ax.set_xlim(-left, width + 0.01)
    ax.set_ylim(height, 0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(wrapped(title, 70), fontsize=10, fontfamily=fonts())
    scale = ax.figure.colorbar(shown, ax=ax, fraction=0.03, pad=0.02)  # type: ignore[arg-type]
    scale.set_label(wrapped(unit, 40), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    if not any(np.nanmin(one) < 0 for one in off):
        scale.ax.set_ylim(0, top)
