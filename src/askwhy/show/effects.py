"""How a score moves with one column or two: a curve, points of levels, a map; each with where the data are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SINGLE = "#0072b2", "#e69f00"  # of Okabe & Ito: told apart by colour-blind eyes, seen on white and on black
GREY = "0.55"
STRIP = 0.13  # share of the height for the histogram of the data
MOST_CURVES = 150


def effect_curve(
    x: np.ndarray, values: np.ndarray, std_error: np.ndarray, ax: Axes | None = None, *, name: str = "", rows: np.ndarray | None = None,
    weights: np.ndarray | None = None, curves: np.ndarray | None = None, off: np.ndarray | None = None, missing: tuple[float, float] | None = None,
    title: str = "", unit: str = "score units",
) -> Axes:  # fmt: skip
    """values [g] at x [g] (numbers or dates) with a 95 % band; curves [n, g] of single rows behind it; rows [n]: a histogram of the data.

    Dashed where off [g], the share of rows that are moved off the data, is above a half, also beside it. missing: the value without x, and its error.
    """
    ax = ax or new_axes(6.5, 4.3)
    x, rows = on_axis(x, ax.xaxis), None if rows is None else on_axis(rows, ax.xaxis)
    if curves is not None:
        some = np.unique(np.linspace(0, len(curves) - 1, MOST_CURVES).astype(int))
        ax.plot(x, curves[some].T, color=SINGLE, linewidth=0.6, alpha=max(0.12, min(0.6, 20 / len(some))), zorder=1)
    ax.fill_between(x, values - 1.96 * std_error, values + 1.96 * std_error, color=INK, alpha=0.25, linewidth=0)
    far = np.zeros(len(x), bool) if off is None else surrounded(off > 0.5)
    ax.plot(x, values, color=INK, linewidth=2, linestyle=(0, (2, 1.5)))
    ax.plot(x, np.where(far, np.nan, values), color=INK, linewidth=2, marker="o" if len(x) < 15 else "", markersize=4)
    notes = ["band: 95 %"] + ["orange: single rows"] * (curves is not None) + ["dashed: mostly off the data"] * bool(far.any())
    if missing is not None:
        at = x[-1] + 0.07 * (x[-1] - x[0])
        ax.errorbar(at, missing[0], yerr=1.96 * missing[1], color=INK, marker="D", markersize=5, capsize=3)
        ax.annotate("missing", (at, missing[0]), (0, 12), textcoords="offset points", fontsize=8, ha="center")
    if rows is not None:
        strip(ax, rows, x, weights)
        notes.append("grey: where the rows are")
    words(ax, name, unit, title, notes)
    return ax


def surrounded(far: np.ndarray) -> np.ndarray:
    """Only where the neighbours are far too, lest the outermost value of every column be."""
    return far & np.r_[True, far[:-1]] & np.r_[far[1:], True]


def on_axis(x: np.ndarray, drawn: Any) -> np.ndarray:
    """Numbers; dates as matplotlib counts them."""
    if x.dtype.kind != "M":
        return np.asarray(x, np.float64)
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    place = AutoDateLocator()
    drawn.set_major_locator(place)
    drawn.set_major_formatter(ConciseDateFormatter(place))
    return np.where(np.isnat(x), np.nan, date2num(x))


def strip(ax: Axes, rows: np.ndarray, x: np.ndarray, weights: np.ndarray | None) -> None:
    """A histogram below the curves, between the ends of the grid."""
    inside = (rows >= x[0]) & (rows <= x[-1])
    count, edges = np.histogram(rows[inside], bins_of(rows[inside], x[0], x[-1]), weights=None if weights is None else weights[inside])
    low, high = ax.get_ylim()
    ax.set_ylim(low - 1.2 * STRIP / (1 - STRIP) * (high - low), high)
    heights = STRIP * count / max(count.max(), 1e-300)
    ax.bar(edges[:-1], heights, np.diff(edges), align="edge", color=GREY, alpha=0.6, linewidth=0, transform=ax.get_xaxis_transform(), zorder=0)


def bins_of(rows: np.ndarray, low: float, high: float) -> np.ndarray:
    """Edges of at most 40 bins; of whole numbers each holds equally many, lest the bins beat with them."""
    if (rows == np.rint(rows)).all() and high - low > 1:
        width = max(1, np.ceil((high - low + 1) / 40))
        return np.arange(low - 0.5, high + width, width)
    return np.linspace(low, high, min(40, max(len(np.unique(rows)), 2)) + 1)


def effect_levels(
    levels: Sequence[str], values: np.ndarray, std_error: np.ndarray, ax: Axes | None = None, *, name: str = "", shares: np.ndarray | None = None,
    curves: np.ndarray | None = None, off: np.ndarray | None = None, title: str = "", unit: str = "score units", most: int = 30,
) -> Axes:  # fmt: skip
    """values [g] of levels, one below the other in their order, with 95 % intervals; the share of the rows stands beside the name.

    Hollow where off [g] is above a half. Of more than `most` levels those that most rows have.
    """
    shown = np.arange(len(levels)) if shares is None else np.sort(np.argsort(-shares, kind="stable")[:most])
    ax = ax or new_axes(6.5, 1.4 + 0.3 * len(shown))
    at = np.arange(len(shown))
    if curves is not None:
        some = np.unique(np.linspace(0, len(curves) - 1, MOST_CURVES).astype(int))
        for place, k in zip(at, shown, strict=True):
            spots = place + np.linspace(-0.3, 0.3, len(some))
            ax.scatter(curves[some, k], spots, s=5, color=SINGLE, alpha=0.5, linewidth=0)
    far = np.zeros(len(levels), bool) if off is None else off > 0.5
    ax.errorbar(values[shown], at, xerr=1.96 * std_error[shown], fmt="none", color=INK, capsize=3)
    face = ["none" if far[k] else INK for k in shown]
    ax.scatter(values[shown], at, s=40, c=face, edgecolors=INK, linewidths=1.5, zorder=3)
    beside = [f"{wrapped(levels[k], 28, 2)}" + ("" if shares is None else f"  {percent(shares[k])}") for k in shown]
    ax.set_yticks(at, beside, fontsize=9, fontfamily=fonts())
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.grid(axis="y", color=GREY, alpha=0.3, linewidth=0.6)
    notes = ["bars: 95 %"] + ["orange: single rows"] * (curves is not None) + ["hollow: mostly off the data"] * bool(far[shown].any())
    notes += [f"{len(levels) - len(shown)} rarer levels not shown"] * (len(shown) < len(levels))
    notes += ["% of the rows"] * (shares is not None)
    words(ax, unit, name, title, notes)
    return ax


def percent(share: float) -> str:
    return f"{share:.1%}" if share == 0 or share >= 0.0005 else "<0.1%"


def effect_map(
    x: np.ndarray | Sequence[str], y: np.ndarray | Sequence[str], values: np.ndarray, ax: Axes | None = None, *, names: Sequence[str] = ("", ""),
    rows: tuple[np.ndarray, np.ndarray] | None = None, off: np.ndarray | None = None, signed: bool = False, title: str = "", unit: str = "score units",
) -> Axes:  # fmt: skip
    """values [g1, g2] by colour, x to the right and y upwards (numbers, dates or names of levels); dots: rows of data; grey where off is above a half."""
    from matplotlib import colormaps

    ax = ax or new_axes(6.3, 4.8)
    across, up = (places(one, axis) for one, axis in ((x, ax.xaxis), (y, ax.yaxis)))
    there = values if off is None else np.ma.masked_array(values, off > 0.5)
    top = limit(np.ma.filled(there, 0))
    colours = colormaps[COLOURS if signed else "viridis"].with_extremes(bad=GREY)
    low, high = (-top, top) if signed else (None, None)
    shown = ax.pcolormesh(across, up, there.T, shading="nearest", cmap=colours, vmin=low, vmax=high)
    notes = ["grey: off the data"] if np.ma.is_masked(there) else []
    for one, between, cut in ((x, across, ax.set_xlim), (y, up, ax.set_ylim)):
        if isinstance(one, np.ndarray):
            cut(between[0], between[-1])
    if rows is not None:
        some = np.unique(np.linspace(0, len(rows[0]) - 1, 400).astype(int))
        shaken = [spots(one[some], isinstance(axis, np.ndarray), seed) for seed, (one, axis) in enumerate(zip(rows, (x, y), strict=True))]
        ax.scatter(shaken[0], shaken[1], s=5, color="black", edgecolors="white", linewidths=0.3, alpha=0.7, zorder=3)
        notes.append(f"dots: rows{'' if len(some) == len(rows[0]) else f' ({len(some)} of {len(rows[0]):,})'}")
    scale = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
    scale.set_label(wrapped(unit, 50), fontsize=8, fontfamily=fonts())
    scale.ax.tick_params(labelsize=8)
    words(ax, names[0], names[1], title, notes)
    return ax


def places(axis: np.ndarray | Sequence[str], drawn: Any) -> np.ndarray:
    """Where the points of a grid stand; names stand one after the other."""
    if isinstance(axis, np.ndarray):
        return on_axis(axis, drawn)
    sideways = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if drawn.axis_name == "x" and len(axis) > 3 else {}
    drawn.set_ticks(np.arange(len(axis)), [wrapped(one, 18, 1) for one in axis], fontsize=8, fontfamily=fonts(), **sideways)
    return np.arange(len(axis), dtype=np.float64)


def spots(places: np.ndarray, exact: bool, seed: int) -> np.ndarray:
    """Dots of rows; those of one level side by side."""
    return places if exact else places + np.random.default_rng(seed).uniform(-0.3, 0.3, len(places))


def words(ax: Axes, across: str, up: str, title: str, notes: Sequence[str]) -> None:
    """What stands beside the axes; the notes are small."""
    below = f"\n{wrapped('; '.join(notes), 90, 2)}" if notes else ""
    ax.set_xlabel(wrapped(across, 70, 2) + below, fontsize=8.5, fontfamily=fonts())
    ax.set_ylabel(wrapped(up, 44, 2), fontsize=9, fontfamily=fonts())
    ax.set_title(wrapped(title, 60), fontsize=10, fontfamily=fonts())
    ax.spines[["top", "right"]].set_visible(False)
