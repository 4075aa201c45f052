"""A force plot of one row as SVG text: needs no script, no font and no file beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from askwhy.show.force import colour, ends, outline
from askwhy.show.pictures import shortened
from askwhy.show.segments import Segment, segments
from askwhy.show.svg import INK, LINE, SOFT, Node, add, drawing, said, ticks, written

WIDTH, SIDE = 960, 215  # pixels; beside the axis, for the names
TOP, BAR, STEP = 78.0, 34.0, 19.0  # where the arrows begin, how thick they are, from label to label


def force_svg(
    values: np.ndarray, names: Sequence[str], base: float, end: float, *, title: str = "", unit: str = "score units", most: int = 8,
) -> str:  # fmt: skip
    """The picture of `force` as a self-contained SVG: values [d] push from `base` to `end`; the mouse tells what an arrow is.

    Names are escaped; the paper is white also in a dark notebook. Raises InputError where base and values do not sum to `end`.
    Example: `Path("row.svg").write_text(askwhy.show.force_svg(values, names, base, end), "utf-8")`.
    """
    found = segments(values, names, base, end, most)
    left, right = [piece for piece in found if piece.value > 0], [piece for piece in found if piece.value < 0]
    foot = TOP + BAR + STEP * (max(len(left), len(right), 1) + 1)
    low, high = ends(found, base, end)
    scale = Scale(low, high)
    root = drawing(WIDTH, foot + 56, f"{title or 'Forces'}: from {base:.4g} to {end:.4g} {unit}")
    add(root, "text", shortened(title, WIDTH - 40, 15), x=WIDTH / 2, y=26, text_anchor="middle", font_size="15px", fill=INK)
    for piece in found:
        arrow(root, piece, scale, piece in (left[-1:] + right[-1:]), unit)
    for pieces, side in ((left, -1), (right, 1)):
        for level, piece in enumerate(reversed(pieces)):
            label(root, piece, scale(piece.middle), TOP + BAR + STEP * (level + 1), side)
    marks(root, scale, base, end)
    axis(root, scale, foot, unit)
    return written(root)


class Scale:
    """From scores to pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        return SIDE + (WIDTH - 2 * SIDE) * (value - self.low) / (self.high - self.low)


def arrow(root: Node, piece: Segment, scale: Scale, outermost: bool, unit: str) -> None:
    corners = outline(piece, 0.012 * (scale.high - scale.low), outermost)
    points = " ".join(f"{scale(x):.1f},{TOP + BAR * y:.1f}" for x, y in corners)
    shape = add(root, "polygon", points=points, fill=colour(piece), stroke="#fff", stroke_width=1)
    add(shape, "title", f"{piece.name}: {piece.value:+.4g} {unit}")


def label(root: Node, piece: Segment, x: float, y: float, side: int) -> None:
    """A line down from the arrow to its name, which runs away from the score."""
    value, room = f"{piece.value:+.3g}", (WIDTH - x if side > 0 else x) - 12
    add(root, "path", d=f"M{x:.1f} {TOP + BAR:.1f}V{y:.1f}", stroke=colour(piece))
    name = shortened(piece.name, room - 9 * len(value))
    text = add(root, "text", f"{name} ", x=x + 4 * side, y=y + 4, text_anchor="start" if side > 0 else "end", fill=INK)
    add(text, "tspan", value, fill=colour(piece), font_weight="600")
    add(text, "title", f"{piece.name}: {value}")


def marks(root: Node, scale: Scale, base: float, end: float) -> None:
    at, zero = scale(end), scale(base)
    near = abs(at - zero) < 130
    sides = ("start", "end") if end >= base else ("end", "start")
    add(root, "path", d=f"M{zero:.1f} {TOP - 6:g}v{BAR + 12:g}", stroke=SOFT, stroke_dasharray="2 3")
    add(root, "path", d=f"M{at:.1f} {TOP - 12:g}v{BAR + 18:g}", stroke=INK, stroke_width=1.5)
    add(root, "text", f"base {base:.4g}", x=zero, y=TOP - 12, text_anchor=sides[1] if near else "middle", fill=SOFT)
    add(root, "text", f"{end:.4g}", x=at, y=TOP - 17, text_anchor=sides[0] if near else "middle", fill=INK, font_size="15px", font_weight="700")


def axis(root: Node, scale: Scale, y: float, unit: str) -> None:
    add(root, "path", d=f"M{SIDE} {y:g}H{WIDTH - SIDE}", stroke=LINE)
    places = ticks(scale.low, scale.high)
    for place in places:
        add(root, "path", d=f"M{scale(place):.1f} {y:g}v5", stroke=LINE)
        add(root, "text", said(place, places), x=scale(place), y=y + 19, text_anchor="middle", fill=SOFT)
    add(root, "text", shortened(f"{unit}: red pushes up, blue pushes down", WIDTH), x=WIDTH / 2, y=y + 40, text_anchor="middle", fill=SOFT)
