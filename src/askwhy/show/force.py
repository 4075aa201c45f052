"""What pushes one row's score up and what pushes it down, as forces that meet at the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.paper import finished, ink
from askwhy.show.pictures import AGAINST, FOR, fonts, new_axes, wrapped
from askwhy.show.segments import Segment, segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIP = 0.012  # of the axis: the point of an arrow
STEP = 0.62  # of the bar's height, from label to label


def force(
    values: np.ndarray, names: Sequence[str], base: float, end: float, ax: Axes | None = None, *, title: str = "", unit: str = "score units",
    most: int = 8,
) -> Axes:  # fmt: skip
    """values [d] as arrows: red ones push from the left, blue ones from the right, and they meet at `end`, the score.

    The axis is the score; an arrow is as long as its value, so that red minus blue is `end` minus `base`. Labels step down towards
    the score and never cover each other; what is smaller is summed, for and against apart. Raises InputError where base and values
    do not sum to `end`. Example: `askwhy.show.force(why.values[0], names, why.base_value[0], why.prediction[0])`.
    """
    found = segments(values, names, base, end, most)
    left, right = [piece for piece in found if piece.value > 0], [piece for piece in found if piece.value < 0]
    levels = max(len(left), len(right), 1)
    ax = ax or new_axes(8.5, 1.9 + 0.21 * levels)
    low, high = ends(found, base, end)
    ax.set_xlim(low, high)
    ax.set_ylim(-0.5 - STEP * levels, 1.9)
    for piece in found:
        arrow(ax, piece, TIP * (high - low), piece in (left[-1:] + right[-1:]))
    for pieces, side in ((left, -1), (right, 1)):
        for level, piece in enumerate(reversed(pieces)):
            label(ax, piece, -STEP * (level + 0.7), side)
    marks(ax, base, end)
    return furnished(ax, title, unit)


def ends(found: Sequence[Segment], base: float, end: float) -> tuple[float, float]:
    places = [base, end, *(piece.start for piece in found)]
    room = 0.06 * (max(places) - min(places)) or 1.0
    return min(places) - room, max(places) + room


def arrow(ax: Axes, piece: Segment, tip: float, outermost: bool) -> None:
    """A bar whose head points to the score and fits into the next one's tail."""
    from matplotlib.patches import Polygon

    ax.add_patch(Polygon(outline(piece, tip, outermost), facecolor=colour(piece), edgecolor=ax.get_facecolor(), linewidth=0.8))


def outline(piece: Segment, tip: float, outermost: bool) -> list[tuple[float, float]]:
    """Corners (along the axis, across it from 0 to 1); the outermost arrow has a flat tail, lest it look longer than it is."""
    tip = tip if piece.value > 0 else -tip
    shoulder, tail = piece.stop - tip, piece.start - tip
    if outermost:
        shoulder, tail = (max if tip > 0 else min)(shoulder, piece.start), piece.start
    return [(tail, 0.0), (shoulder, 0.0), (piece.stop, 0.5), (shoulder, 1.0), (tail, 1.0), (piece.start, 0.5)]


def colour(piece: Segment) -> str:
    return FOR if piece.value > 0 else AGAINST


def label(ax: Axes, piece: Segment, height: float, side: int) -> None:
    """A line from the middle of the arrow down to its name, which runs away from the score."""
    ax.plot([piece.middle, piece.middle], [height, 0], color=colour(piece), linewidth=0.8, solid_capstyle="butt")
    ax.annotate(
        f"{wrapped(piece.name, 36, 1)}  {piece.value:+.3g}", (piece.middle, height), (3 * side, 0), textcoords="offset points", fontsize=8, color=ink(),
        ha="left" if side > 0 else "right", va="center", fontfamily=fonts(), annotation_clip=False,
    )  # fmt: skip


def marks(ax: Axes, base: float, end: float) -> None:
    ax.plot([base, base], [-0.15, 1.15], color="0.5", linewidth=1, linestyle=":")
    ax.plot([end, end], [-0.15, 1.3], color=ink(), linewidth=1.2)
    near = abs(base - end) < 0.25 * np.ptp(ax.get_xlim())
    away = "right" if base < end else "left"
    ax.text(base, 1.25, f"base {base:.4g}", fontsize=8, color="0.5", ha=away if near else "center")
    ax.text(end, 1.4, f"{end:.4g}", fontsize=10, weight="bold", ha={"right": "left", "left": "right"}[away] if near else "center")


def furnished(ax: Axes, title: str, unit: str) -> Axes:
    finished(ax, title, f"{unit}: red pushes up, blue pushes down")
    ax.xaxis.set_ticks_position("bottom")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return ax
