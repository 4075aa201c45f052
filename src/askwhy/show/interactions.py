"""What pairs of features do together: a map of all pairs, and the strongest ones as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError
from askwhy.show.importance import importance
from askwhy.show.paper import check_count, checked, counted, finished
from askwhy.show.pictures import fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGIBLE = 10  # rows up to which the numbers stand in the cells


def interactions(
    values: np.ndarray, names: Sequence[str], ax: Axes | None = None, *, title: str = "", unit: str = "score units", most: int = 12,
) -> Axes:  # fmt: skip
    """Mean |interaction| of each pair over rows, values [n, d, d], or already averaged [d, d]; white is zero.

    Off the diagonal stands half of a pair, as in the values, in purple; the diagonal, a feature's main effect, has a scale of its own, in
    grey, since it would make all pairs pale. The `most` features with the strongest rows, strongest first. Raises InputError.
    Example: `askwhy.show.interactions(values, names)`.
    """
    mean = averaged(values, names)
    check_count("most", most, 1)
    order = np.argsort(-mean.sum(1), kind="stable")[:most]
    shown = mean[np.ix_(order, order)]
    size = 2.4 + 0.42 * len(order)
    ax = ax or new_axes(size + 1.4, size)
    pairs, own = np.where(np.eye(len(order), dtype=bool), np.nan, shown), np.where(np.eye(len(order), dtype=bool), shown, np.nan)
    image = ax.imshow(pairs, cmap="Purples", vmin=0, vmax=limit(pairs[~np.isnan(pairs)]))
    ax.imshow(own, cmap="Greys", vmin=0, vmax=1.5 * limit(own[~np.isnan(own)]))
    labels = [wrapped(names[j], 22, 2) for j in order]
    ax.set_xticks(range(len(order)), labels, fontfamily=fonts(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(order)), labels, fontfamily=fonts())
    if len(order) <= LEGIBLE:
        number(ax, shown, limit(pairs[~np.isnan(pairs)]))
    scale = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    scale.set_label(f"mean |interaction|, half a pair, {unit}", fontsize=8)
    scale.ax.tick_params(labelsize=8)
    left_out = f"; {len(mean) - len(order)} weaker features not shown" if len(order) < len(mean) else ""
    finished(ax, title, f"grey diagonal: main effects, up to {np.diag(shown).max():.3g}{left_out}")
    ax.spines[:].set_visible(False)
    return ax


def averaged(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """[d, d]. Raises InputError."""
    found = checked(values, names, "[n, d, d]" if np.ndim(values) == 3 else "[d, d]")
    if found.shape[-1] != found.shape[-2]:
        raise InputError(f"interactions are square, [n, d, d] or [d, d], and these have the shape {list(found.shape)}.")
    return np.abs(found).mean(0) if found.ndim == 3 else np.abs(found)


def number(ax: Axes, shown: np.ndarray, top: float) -> None:
    for (row, column), value in np.ndenumerate(shown):
        dark = row != column and value > 0.6 * top
        ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color="white" if dark else "black")


def interaction_pairs(
    values: np.ndarray, names: Sequence[str], ax: Axes | None = None, *, title: str = "", unit: str = "score units", most: int = 10,
) -> Axes:  # fmt: skip
    """The pairs with the largest mean |I_ij + I_ji| over rows, values [n, d, d], with 95 % error bars; [d, d] are means already.

    A pair counts whole here, both of its halves. Raises InputError. Example: `askwhy.show.interaction_pairs(values, names)`.
    """
    averaged(values, names)
    found = np.abs(np.asarray(values, np.float64))
    if found.shape[-1] < 2:
        raise InputError("there is one feature; a pair needs two.")
    first, second = np.triu_indices(found.shape[-1], 1)
    whole = found[..., first, second] + found[..., second, first]
    error = whole.std(0, ddof=1) / np.sqrt(len(whole)) if whole.ndim == 2 and len(whole) > 1 else None
    mean = whole.mean(0) if whole.ndim == 2 else whole
    pairs = [f"{names[i]} × {names[j]}" for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    rows = f"; {counted(values)}" if whole.ndim == 2 else ""
    return importance(mean, pairs, ax, error=error, title=title, most=most, unit=f"mean |interaction| of the pair, {unit}{rows}")
