"""The force plots of many rows side by side, as SVG text: what carries each score, and where the rows form groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import checked, counted, parted, strongest
from askwhy.show.pictures import COLOURS, shortened
from askwhy.show.svg import INK, LINE, SOFT, Node, add, drawing, said, ticks, written

WIDTH, HEIGHT = 960, 430  # pixels
LEFT, RIGHT, TOP, FOOT = 70, 14, 46, 62  # around the bands
ACROSS = 4  # names in a line of the legend
COLUMNS = 600  # of more rows, neighbours share one
SIMILAR = 2000  # rows whose pairwise distances are quickly found
TOLD = 4  # features that a column tells to the mouse
ORDERS = ("auto", "similarity", "prediction", "given")


@dataclass(frozen=True, eq=False)
class Columns:
    """What stands side by side: a row each, or the mean of a few neighbours."""

    rows: list[np.ndarray]  # the places of the rows in each
    plus: np.ndarray  # [columns, features]: what speaks for
    minus: np.ndarray  # what speaks against, as positive numbers
    score: np.ndarray  # [columns]
    names: list[str]


def force_rows_svg(
    values: np.ndarray, names: Sequence[str], base: float, *, features: Any = None, row_names: Sequence[str] | None = None, order: str = "auto",
    title: str = "", unit: str = "score units", most: int = 8,
) -> str:  # fmt: skip
    """Forces of rows, values [n, d], side by side as a self-contained SVG: red bands carry a score up from below, blue ones press on it.

    The black line is the score, base plus the row's values. Bands of the most important features lie next to it, darkest; the rest is
    summed in the last. The mouse tells row, score and strongest features, with what they hold, features [n, d]. order: "similarity" (leaves
    of a Ward tree, up to 2,000 rows), "prediction", "given", or "auto", the first that can be. Of more than 600 rows neighbours
    are averaged, and the picture says so. Raises InputError. Example: `askwhy.show.force_rows_svg(why.values, names, base, features=X)`.
    """
    values = checked(values, names, "[n, d]", features)
    if row_names is not None and len(row_names) != len(values):
        raise InputError(f"row_names= has {len(row_names)} entries for {len(values)} rows; give one for each.")
    order = chosen(order, len(values))
    columns = columns_of(values, names, base, ordered(values, order), most)
    low, high = extremes(columns, base)
    place = Place(low, high, len(columns.rows))
    root = drawing(WIDTH, HEIGHT + 18 * (len(columns.names) // ACROSS + 1), f"{title or 'Forces'} of {counted(values)}")
    add(root, "text", shortened(title, WIDTH - 40, 15), x=WIDTH / 2, y=26, text_anchor="middle", font_size="15px", fill=INK)
    axes(root, place, base, unit)
    bands(root, place, columns)
    add(root, "path", d=f"M{LEFT} {place.y(base):.1f}H{WIDTH - RIGHT}", stroke=INK, stroke_width=1, stroke_dasharray="5 4")
    add(root, "path", d=stairs(place, columns.score), fill="none", stroke=INK, stroke_width=1.4)
    told = Told(values, names, None if features is None else np.asarray(features, object), row_names, unit)
    hovers(root, place, columns, told)
    legend(root, columns.names)
    add(root, "text", caption(values, columns, order), x=WIDTH / 2, y=HEIGHT - 24, text_anchor="middle", fill=SOFT)
    return written(root)


# ---- order and columns ----------------------------------------------------------------------------------------------


def chosen(order: str, count: int) -> str:
    """Raises InputError."""
    if order not in ORDERS:
        raise InputError(f"order={order!r}: choose {', '.join(map(repr, ORDERS))}.")
    if order == "similarity" and count > SIMILAR:
        raise InputError(f"order='similarity' compares all pairs of rows, and there are {count:,}; give up to {SIMILAR:,}, or order='prediction'.")
    return order if order != "auto" else "similarity" if count <= SIMILAR else "prediction"


def ordered(values: np.ndarray, order: str) -> np.ndarray:
    if order == "given" or len(values) < 3:
        return np.arange(len(values))
    if order == "prediction":
        return np.argsort(-values.sum(1), kind="stable")
    from scipy.cluster.hierarchy import leaves_list, ward

    found = leaves_list(ward(values))
    return found if values[found[0]].sum() >= values[found[-1]].sum() else found[::-1]  # type: ignore[no-any-return]


def columns_of(values: np.ndarray, names: Sequence[str], base: float, order: np.ndarray, most: int) -> Columns:
    shown, rest = parted(strongest(values, "mean"), most)
    rows = np.array_split(order, min(len(order), COLUMNS))
    sizes = [sized(values, shown, rest, sign) for sign in (1, -1)]
    plus, minus = (np.stack([size[mine].mean(0) for mine in rows]) for size in sizes)
    said_of = [names[j] for j in shown] + [f"{len(rest)} others"] * bool(len(rest))
    return Columns(rows, plus, minus, np.array([base + values[mine].sum(1).mean() for mine in rows]), said_of)


def sized(values: np.ndarray, shown: np.ndarray, rest: np.ndarray, sign: int) -> np.ndarray:
    """[n, features]: how much speaks for (1) or against (-1); the others are summed."""
    size = np.maximum(sign * values, 0)
    return np.concatenate([size[:, shown], *([size[:, rest].sum(1, keepdims=True)] if len(rest) else [])], 1)


def extremes(columns: Columns, base: float) -> tuple[float, float]:
    low, high = (columns.score - columns.plus.sum(1)).min(), (columns.score + columns.minus.sum(1)).max()
    low, high = min(low, base), max(high, base)
    room = 0.03 * (high - low) or 1.0
    return float(low - room), float(high + room)


def caption(values: np.ndarray, columns: Columns, order: str) -> str:
    how = {"similarity": "alike ones side by side", "prediction": "highest score first", "given": "as given"}[order]
    means = f"; each column is the mean of {min(map(len, columns.rows))} to {max(map(len, columns.rows))} of them"
    return f"{counted(values)}, {how}{means if len(columns.rows) < len(values) else ''}. Red: for, blue: against, the darkest band is the most important feature."


# ---- drawing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """From scores and columns to pixels."""

    low: float
    high: float
    count: int

    def x(self, column: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * column / self.count

    def y(self, score: Any) -> Any:
        return TOP + (HEIGHT - TOP - FOOT) * (self.high - score) / (self.high - self.low)


def axes(root: Node, place: Place, base: float, unit: str) -> None:
    middle = (TOP + HEIGHT - FOOT) / 2
    places = ticks(place.low, place.high)
    for at in places:
        add(root, "path", d=f"M{LEFT - 5} {place.y(at):.1f}H{WIDTH - RIGHT}", stroke=LINE, stroke_width=0.5)
        add(root, "text", said(at, places), x=LEFT - 9, y=place.y(at) + 4, text_anchor="end", fill=SOFT)
    add(root, "text", shortened(unit, 280), x=14, y=middle, text_anchor="middle", fill=SOFT, transform=f"rotate(-90 14 {middle:g})")
    add(root, "text", f"dashed: base {base:.4g}", x=LEFT, y=HEIGHT - FOOT + 20, fill=SOFT)


def bands(root: Node, place: Place, columns: Columns) -> None:
    """Below the score what speaks for, above it what speaks against, a band for each feature."""
    for size, sign in ((columns.plus, -1), (columns.minus, 1)):
        edges = place.y(columns.score[:, None] + sign * np.concatenate([np.zeros((len(size), 1)), size.cumsum(1)], 1))
        for j in np.flatnonzero(size.any(0)):
            colour = tone(-sign, int(j), len(columns.names))
            add(root, "path", d=band(place, edges[:, j], edges[:, j + 1]), fill=colour, stroke="#fff", stroke_width=0.4)


def tone(sign: int, rank: int, count: int) -> str:
    """Red or blue, the paler the less important."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps[COLOURS](0.5 + sign * (0.45 - 0.3 * rank / max(count - 1, 1))))


def steps(place: Place, heights: np.ndarray, columns: Any) -> str:
    """One flat piece for each column, which starts at the column's left edge or, going back, at its right one."""
    forth = columns[0] <= columns[-1]
    return "".join(f"V{heights[k]:.1f}H{place.x(k + 1 if forth else k):.1f}" for k in columns)


def band(place: Place, upper: np.ndarray, lower: np.ndarray) -> str:
    count = range(len(upper))
    return f"M{place.x(0):.1f} {upper[0]:.1f}{steps(place, upper, count)}{steps(place, lower, count[::-1])}Z"


def stairs(place: Place, score: np.ndarray) -> str:
    heights = place.y(score)
    return f"M{place.x(0):.1f} {heights[0]:.1f}{steps(place, heights, range(len(heights)))}"


def legend(root: Node, names: Sequence[str]) -> None:
    """Every feature with its red and its blue."""
    wide = (WIDTH - LEFT - RIGHT) / ACROSS
    for k, name in enumerate(names):
        x, y = LEFT + wide * (k % ACROSS), HEIGHT + 18.0 * (k // ACROSS)
        add(root, "rect", x=x, y=y - 9, width=9, height=10, fill=tone(1, k, len(names)))
        add(root, "rect", x=x + 9, y=y - 9, width=9, height=10, fill=tone(-1, k, len(names)))
        add(add(root, "text", shortened(name, wide - 34), x=x + 23, y=y, fill=INK), "title", name)


# ---- what the mouse tells -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Told:
    """What is known of the rows."""

    values: np.ndarray
    names: Sequence[str]
    features: np.ndarray | None
    row_names: Sequence[str] | None
    unit: str

    def of(self, rows: np.ndarray, score: float) -> str:
        mean = self.values[rows].mean(0)
        strong = [j for j in np.argsort(-np.abs(mean), kind="stable")[:TOLD] if mean[j]]
        who = self.who(int(rows[0])) if len(rows) == 1 else f"mean of {len(rows)} rows, from {self.who(int(rows[0]))} to {self.who(int(rows[-1]))}"
        return "\n".join([f"{who}: {score:.4g} {self.unit}", *(f"{self.held(j, rows)} {mean[j]:+.3g}" for j in strong)])

    def who(self, row: int) -> str:
        return f"row {row}" if self.row_names is None else str(self.row_names[row])

    def held(self, j: int, rows: np.ndarray) -> str:
        """The feature, with what it holds in a single row."""
        if self.features is None or len(rows) > 1:
            return self.names[j]
        cell = self.features[rows[0], j]
        return f"{self.names[j]} = {f'{cell:.6g}' if isinstance(cell, (float, np.floating)) else cell}"


def hovers(root: Node, place: Place, columns: Columns, told: Told) -> None:
    """An invisible strip over each column."""
    for k, (rows, score) in enumerate(zip(columns.rows, columns.score, strict=True)):
        wide = place.x(k + 1) - place.x(k)
        strip = add(root, "rect", x=place.x(k), y=TOP, width=f"{wide:.2f}", height=HEIGHT - TOP - FOOT, fill="#000", fill_opacity=0)
        add(strip, "title", told.of(rows, float(score)))
