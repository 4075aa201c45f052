"""The same items as points in several panels: how groups come together or apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import GREY, INKS, check_count, ink
from askwhy.show.pictures import fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHAPES = "os^DvP*X"  # one for every eight groups
SIDE, GAP = 1.0, 0.1  # of a panel, and between two
LINE = 0.055  # height of a line of text
MARGIN = 0.05


def scatter_groups(
    points: Sequence[np.ndarray] | np.ndarray, names: Sequence[str], ax: Axes | None = None, *, labels: np.ndarray | None = None,
    classes: Sequence[str] = (), captions: Sequence[str] | None = None, title: str = "", note: str = "", unit: str = "label", columns: int = 4,
) -> Axes:  # fmt: skip
    """A panel for each of points [panels, n, 2], each on its own scale, with a name above and a caption beneath it.

    labels [n]: places in `classes`, each of its own colour, from the ninth on of its own shape, too; without classes they are numbers, and
    coloured by size. Raises InputError. Example: `askwhy.show.scatter_groups([a, b], ["first", "last"], labels=y, classes=("cat", "dog"))`.
    """
    check(points, names, labels, classes)
    check_count("columns", columns, 1)
    columns = min(columns, len(points))
    lines = -(-len(points) // columns)
    beneath = [wrapped_lines(text) for text in captions or [""] * len(points)]
    above = LINE * 1.3
    under = LINE * (max(text.count("\n") for text in beneath) + 1) + 0.06
    height = SIDE + above + under
    ax = ax or new_axes(2.75 * columns * (SIDE + GAP) + (1.4 if labels is not None else 0.3), 2.75 * lines * height + 0.7)
    shown = None
    for k, own in enumerate(points):
        x, y = (k % columns) * (SIDE + GAP), (k // columns) * height + above
        frame(ax, x, y)
        spots = fitted(np.asarray(own, np.float64)) * [1, -1] + [x + SIDE / 2, y + SIDE / 2]
        shown = drawn(ax, spots, labels, classes, first=k == 0)
        words = {"ha": "center", "fontfamily": fonts(), "color": ink(), "linespacing": 1.1}
        ax.text(x + SIDE / 2, y - 0.02, wrapped(names[k], 34, 1), va="bottom", fontsize=9, **words)
        ax.text(x + SIDE / 2, y + SIDE + 0.03, beneath[k], va="top", fontsize=7.5, **words)
    ax.set_xlim(-0.01, columns * (SIDE + GAP) - GAP + 0.01)
    ax.set_ylim(lines * height, 0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    finish(ax, title, note, columns)
    if classes:
        key(ax, len(classes))
    elif labels is not None:
        scale = ax.figure.colorbar(shown, ax=ax, fraction=0.03, pad=0.02)  # type: ignore[arg-type]
        scale.set_label(wrapped(unit, 40), fontsize=8, fontfamily=fonts())
        scale.ax.tick_params(labelsize=8)
    return ax


def check(points: Sequence[np.ndarray] | np.ndarray, names: Sequence[str], labels: np.ndarray | None, classes: Sequence[str]) -> None:
    if not len(points) or len(names) != len(points):
        raise InputError(f"there are {len(names)} names for {len(points)} panels; give one for each, and at least one.")
    for k, own in enumerate(points):
        if np.ndim(own) != 2 or np.shape(own)[1] != 2 or not np.isfinite(own).all():
            raise InputError(f"panel {k} has the shape {list(np.shape(own))}; give finite points [n, 2].")
        if labels is not None and len(labels) != len(own):
            raise InputError(f"there are {len(labels)} labels for the {len(own)} points of panel {k}; give one for each.")
    most = len(SHAPES) * len(colours())
    if len(classes) > most:
        raise InputError(
            f"there are {len(classes)} groups, and {most} can be told apart by colour and shape; merge some, or give floats for a colour scale."
        )


def colours() -> tuple[str, ...]:
    return (*INKS, GREY, ink())


def wrapped_lines(text: str) -> str:
    return "\n".join(wrapped(line, 60, 2) for line in text.split("\n")) if text else ""


def frame(ax: Axes, x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), SIDE, SIDE, fill=False, edgecolor=GREY, linewidth=0.8))


def fitted(points: np.ndarray) -> np.ndarray:
    """Into a panel around 0, with one scale for both axes."""
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) / max(float((high - low).max()), 1e-300) * (SIDE - 2 * MARGIN)


def drawn(ax: Axes, spots: np.ndarray, labels: np.ndarray | None, classes: Sequence[str], first: bool) -> object:
    size = float(np.clip(4000 / len(spots), 5, 34)) * (1.8 if len(classes) > len(colours()) else 1)  # a shape needs room
    if labels is None:
        return ax.scatter(spots[:, 0], spots[:, 1], s=size, c=INKS[0], alpha=0.75, linewidths=0)
    if not classes:
        return ax.scatter(spots[:, 0], spots[:, 1], s=size, c=labels, cmap="viridis", alpha=0.9, linewidths=0)
    for k, name in enumerate(classes):
        colour, shape = colours()[k % len(colours())], SHAPES[k // len(colours())]
        own = spots[labels == k]
        ax.scatter(own[:, 0], own[:, 1], s=size, c=colour, marker=shape, alpha=0.75, linewidths=0, label=wrapped(name, 22, 2) if first else None)
    return None


def key(ax: Axes, count: int) -> None:
    found = ax.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=8,
        frameon=False,
        ncols=1 + count // 17,
        prop={"family": fonts(), "size": 8},
        handletextpad=0.2,
    )
    for handle in found.legend_handles:
        handle.set_alpha(1)  # type: ignore[union-attr]
        handle.set_sizes([30])  # type: ignore[union-attr]


def finish(ax: Axes, title: str, note: str, columns: int) -> None:
    ax.set_title(wrapped(title, 26 + 30 * columns), fontsize=10, fontfamily=fonts())
    if note:
        text = wrapped(note, 44 * columns + 12, 3)
        ax.text(0.5, 0, text, transform=ax.transAxes, ha="center", va="top", fontsize=7.5, style="italic", fontfamily=fonts(), color=ink())
