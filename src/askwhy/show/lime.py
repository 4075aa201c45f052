"""Pictures of several LIME explanations at once, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe & Ito: told apart by colour-blind eyes
MARKS = "osD^vP*"


def width_curves(
    widths: np.ndarray, values: np.ndarray, std_error: np.ndarray, names: Sequence[str], ax: Axes | None = None, *,
    usual: float | None = None, most: int = 6, title: str = "", unit: str = "score units",
) -> Axes:  # fmt: skip
    """The strongest coefficients [k, d] against the kernel's width [k], with 95 % bands; each curve is named where it ends."""
    ax = ax or new_axes(7.5, 4.5)
    order = np.argsort(-np.abs(values).max(0), kind="stable")[: min(most, len(INKS))]
    for j, ink, mark in zip(order, INKS, MARKS, strict=False):
        error = 1.96 * np.nan_to_num(std_error[:, j])
        ax.fill_between(widths, values[:, j] - error, values[:, j] + error, color=ink, alpha=0.2, linewidth=0)
        ax.plot(widths, values[:, j], color=ink, marker=mark, markersize=4, linewidth=1.5)
    for j, ink, at in zip(order, INKS, apart(values[-1, order], ax.get_ylim()), strict=False):
        ax.annotate(
            wrapped(names[j], 30, 2), (widths[-1], values[-1, j]), (1.03, at), textcoords=("axes fraction", "data"), color=ink, fontsize=9, va="center",
            fontfamily=fonts(), annotation_clip=False, arrowprops={"arrowstyle": "-", "color": ink, "linewidth": 0.6},
        )  # fmt: skip
    ax.axhline(0, color="0.5", linewidth=0.8)
    if usual is not None:
        ax.axvline(usual, color="0.5", linewidth=0.8, linestyle=":")
        ax.annotate("usual", (usual, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points", fontsize=8, color="0.4")
    ax.set_xscale("log")
    ax.set_xticks(widths, [f"{width:.3g}" for width in widths], fontsize=8)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("width of the neighbourhood", fontsize=9)
    ax.set_ylabel(f"coefficient ({unit}), 95 % bands", fontsize=9)
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def apart(places: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """The places of labels, moved until none covers another."""
    gap = (ends[1] - ends[0]) / 14
    order = np.argsort(places)
    moved = places[order].astype(np.float64)
    for _ in range(50):
        for k in range(1, len(moved)):
            short = gap - (moved[k] - moved[k - 1])
            if short > 1e-12:
                moved[k - 1], moved[k] = moved[k - 1] - short / 2, moved[k] + short / 2
    out = np.empty(len(moved))
    out[order] = moved
    return out


def picked(
    values: np.ndarray, rows: Sequence[str], names: Sequence[str], ax: Axes | None = None, *, title: str = "", unit: str = "score units",
) -> Axes:  # fmt: skip
    """Chosen explanations as a table [k, d] of colours: a row an item, a column a component; grey where there is no value."""
    from matplotlib import colormaps

    ax = ax or new_axes(2.6 + 0.5 * len(names), 2.2 + 0.4 * len(rows))
    top, colours = limit(values), colormaps[COLOURS].with_extremes(bad="0.88")
    shown = ax.imshow(np.ma.masked_equal(values, 0), cmap=colours, vmin=-top, vmax=top, aspect="auto")
    ax.set_xticks(range(len(names)), [wrapped(name, 42, 1) for name in names], rotation=40, ha="right", fontsize=9, fontfamily=fonts())
    ax.set_yticks(range(len(rows)), [wrapped(row, 40, 1) for row in rows], fontsize=9, fontfamily=fonts())
    ax.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True), ax.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    scale = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
    scale.set_label(wrapped(unit, 24), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    return ax
