"""What the pictures of tables share: checks, order, names of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.checks import is_whole
from askwhy.errors import InputError
from askwhy.show.pictures import fonts, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#8c8c8c"  # seen on white and on black: missing values, sums of many features
INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito: told apart by colour-blind eyes
ORDERS = {"mean": lambda values: np.abs(values).mean(0), "max": lambda values: np.abs(values).max(0)}


def ink() -> Any:
    """The colour of text in the style in use."""
    from matplotlib import rcParams

    return rcParams["text.color"]


def is_dark(ax: Axes) -> bool:
    from matplotlib.colors import to_rgb

    return float(np.dot(to_rgb(ax.get_facecolor()), (0.2126, 0.7152, 0.0722))) < 0.5


def finished(ax: Axes, title: str, x: str, y: str = "") -> Axes:
    """Title and axis names as every picture has them."""
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    ax.set_xlabel(wrapped(x, 64), fontsize=9, fontfamily=fonts())
    ax.set_ylabel(wrapped(y, 50), fontsize=9, fontfamily=fonts())
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """One name at each row, the first on top."""
    ax.set_yticks(range(len(names)), [wrapped(name, 32, 2) for name in names], fontfamily=fonts())
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def checked(values: Any, names: Sequence[str], shape: str, features: Any = None) -> np.ndarray:
    """float64 values of a shape such as "[n, d]", finite, a name for each feature. Raises InputError."""
    found, axes = np.asarray(values, np.float64), shape.strip("[]").split(", ")
    if found.ndim != len(axes) or not found.size:
        raise InputError(f"this picture needs values {shape}, and they have the shape {list(found.shape)}.")
    d = found.shape[axes.index("d")]
    if d != len(names):
        raise InputError(f"there are {len(names)} names for {d} features; give one for each.")
    if features is not None and np.shape(features) != found.shape[:2]:
        raise InputError(f"features has the shape {list(np.shape(features))}, and values {list(found.shape)}; give the rows that were explained.")
    if not np.isfinite(found).all():
        place = np.argwhere(~np.isfinite(found))[0].tolist()
        raise InputError(f"values{place} is {found[tuple(place)]}; a picture of it would be wrong, leave such rows out.")
    return found


def counted(rows: Sequence[Any] | np.ndarray) -> str:
    return f"{len(rows):,} row{'s' if len(rows) > 1 else ''}"


def strongest(values: np.ndarray, order: str | None) -> np.ndarray:
    """Columns of [n, d] in the order "mean" or "max" of |value|; None: as they come. Raises InputError."""
    if order is None:
        return np.arange(values.shape[1])
    if order not in ORDERS:
        raise InputError(f"order={order!r}: choose {', '.join(map(repr, ORDERS))} or None.")
    return np.argsort(-ORDERS[order](values), kind="stable")


def parted(order: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """What is shown one by one, and what is summed so that `most` rows are enough. Raises InputError."""
    check_count("most", most, 2)
    return (order, order[:0]) if len(order) <= most else (order[: most - 1], order[most - 1 :])


def check_count(argument: str, count: int, least: int) -> None:
    """Raises InputError."""
    if not is_whole(count, least):
        raise InputError(f"{argument}={count!r}: give how many to show, {least} or more.")
