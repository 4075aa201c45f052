"""Where tokens look: one head with its tokens' names, who is looked at in each layer, and scores as tokens are deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.paper import GREY, INKS, finished, ink
from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, shortened, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGIBLE = 40  # names on an axis; of more, every second, third, ... is shown
LETTERS = 130.0  # pixels of a token's name, at 12 a sign
STYLES = ("-", "--", "-.", ":")


def attention_map(
    weights: np.ndarray, rows: Sequence[str], columns: Sequence[str], ax: Axes | None = None, *,
    title: str = "", unit: str = "attention weight", x: str = "looked at", y: str = "looks",
) -> Axes:  # fmt: skip
    """weights [rows, columns] >= 0 with a name for each: white is zero. Example: `askwhy.show.attention_map(why.heads(0, 3), words, words)`."""
    height, width = weights.shape
    cell = 0.3 if max(height, width) <= LEGIBLE else 12.0 / max(height, width)
    ax = ax or new_axes(2.6 + cell * max(width, 6), 1.9 + cell * max(height, 3))
    top = limit(weights)
    shown = ax.imshow(weights, cmap=COLOURS, vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    at, names = thinned(columns)
    ax.set_xticks(at, names, fontfamily=fonts(), rotation=60, ha="right", rotation_mode="anchor")
    at, names = thinned(rows)
    ax.set_yticks(at, names, fontfamily=fonts())
    finished(ax, title, x, y)
    scale = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
    scale.set_label(wrapped(unit, 24), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    scale.ax.set_ylim(0, top)
    return ax


def thinned(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The names that there is room for, and their places."""
    at = list(range(0, len(names), -(-len(names) // LEGIBLE)))
    return at, [shortened(names[k], LETTERS).replace("$", r"\$") for k in at]


def deletion(
    curves: np.ndarray, names: Sequence[str], random: np.ndarray, ax: Axes | None = None, *, title: str = "", unit: str = "score", what: str = "tokens"
) -> Axes:  # fmt: skip
    """The score [k, steps] as parts are deleted in the order of each name, over that of random orders [r, steps] in grey.

    Example: `askwhy.show.deletion(why.curves[0], ["relevance"], why.random[0])`.
    """
    ax = ax or new_axes(6.4, 4.8)
    share = np.linspace(0, 100, curves.shape[1])
    low, middle, high = np.quantile(random, (0.025, 0.5, 0.975), axis=0)
    ax.fill_between(share, low, high, color=GREY, alpha=0.3, linewidth=0, label=f"95 % of {len(random)} random orders")
    ax.plot(share, middle, color=GREY, linewidth=1.2, label="their median")
    for k, (curve, name) in enumerate(zip(curves, names, strict=True)):
        ax.plot(share, curve, color=INKS[k % len(INKS)], linestyle=STYLES[k % len(STYLES)], linewidth=1.8, label=wrapped(name, 30, 2))
    finished(ax, title, f"{what} deleted, the highest first (%)", unit)
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, prop={"family": fonts(), "size": 8})
    for text in legend.get_texts():
        text.set_color(ink())
    return ax


def caption(ax: Axes, words: str, width: int = 80) -> Axes:
    """A few small lines below a picture, what stands on its axis included."""
    said = wrapped(words, width, 4)
    if ax.axison and ax.xaxis.get_visible():
        before = ax.get_xlabel()
        ax.set_xlabel(f"{before}\n{said}" if before else said, fontsize=8, fontfamily=fonts(), color=ink())
    else:
        ax.text(0, -0.03, said, transform=ax.transAxes, va="top", fontsize=8, fontfamily=fonts(), color=ink())
    return ax
