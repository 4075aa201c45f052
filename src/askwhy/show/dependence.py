"""A feature's values against what the feature holds, coloured by a second feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError
from askwhy.show.feature import Feature, feature_of, low_to_high
from askwhy.show.paper import GREY, INKS, checked, counted, finished, ink
from askwhy.show.pictures import fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 10_000  # dots of one picture
LEVELS = 12  # of a categorical feature, on the axis
WHOLE = 12  # distinct numbers up to which dots are spread a little, lest they cover each other
SPREAD = 0.28  # half the width of such a column, of the distance to the next


def dependence(
    x: Any, values: np.ndarray, name: str, ax: Axes | None = None, *, interacting: tuple[str, Any] | None = None, title: str = "",
    unit: str = "score units",
) -> Axes:  # fmt: skip
    """values [n] of one feature against what it holds, x [n]; colours: what a second feature holds, interacting=(name, cells [n]).

    Levels stand side by side, sorted by their mean (a short line); missing x have a column of their own at the margin. A numeric
    second feature is coloured by rank and the scale names its real numbers; missing ones are grey. Grey bars at the foot: how
    many rows. Beyond 10,000 rows as many are drawn at random. Raises InputError.
    Example: `askwhy.show.dependence(X[:, 2], why.values[:, 2], "age", interacting=("sex", X[:, 1]))`.
    """
    values = checked(np.asarray(values)[:, None] if np.ndim(values) == 1 else values, [name], "[n, d]")[:, 0]
    feature, second = told(x, len(values), "x"), None if interacting is None else told(interacting[1], len(values), "interacting")
    ax = ax or new_axes(6.8, 4.4)
    places = columns(ax, feature, values) if feature.levels else line(ax, feature)
    if feature.missing.any():
        places = margin(ax, feature, places)
    drawn = np.random.default_rng(0).permutation(len(values))[:MOST]
    ax.axhline(0, color="0.5", linewidth=0.8, zorder=0)
    shades = np.tile(low_to_high(ax)(0.3), (len(values), 1)) if second is None else second.colours(ax)
    size, faint = float(np.clip(6000 / len(drawn), 5, 22)), float(np.clip(900 / len(drawn), 0.35, 0.9))
    ax.scatter(places[drawn], values[drawn], s=size, c=shades[drawn], alpha=faint, linewidths=0, rasterized=True)
    if second is not None and interacting is not None:
        (name_levels if second.levels else name_numbers)(ax, interacting[0], second)
    rows = counted(values) + (f", {MOST:,} of them drawn" if len(values) > MOST else "")
    return finished(ax, title, f"{name} ({rows})", f"value of {name}, {unit}")


def scatter(x: Any, values: np.ndarray, name: str, ax: Axes | None = None, *, title: str = "", unit: str = "score units") -> Axes:
    """values [n] of one feature against what it holds, x [n]: `dependence` without a second feature.

    Raises InputError. Example: `askwhy.show.scatter(X[:, 2], why.values[:, 2], "age")`.
    """
    return dependence(x, values, name, ax, title=title, unit=unit)


def told(cells: Any, count: int, argument: str) -> Feature:
    """Raises InputError."""
    if np.shape(cells) != (count,):
        raise InputError(f"{argument} has the shape {list(np.shape(cells))} for {count} values; give one for each row.")
    found = feature_of(cells)
    if np.isinf(found.numbers).any():
        raise InputError(f"{argument} is infinite in row {int(np.flatnonzero(np.isinf(found.numbers))[0])}; leave such rows out of the picture.")
    return found


# ---- where dots stand -----------------------------------------------------------------------------------------------


def line(ax: Axes, feature: Feature) -> np.ndarray:
    """Numbers and dates [n] on their axis; a few distinct numbers are spread a little."""
    known = feature.numbers[~feature.missing]
    distinct = np.unique(known)
    if feature.dates:
        ax.xaxis_date()
        ax.tick_params(axis="x", rotation=20)
    if not len(distinct):
        return feature.numbers
    if len(distinct) <= WHOLE and len(known) > len(distinct):
        gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
        if not feature.dates:
            ax.set_xticks(distinct, [f"{number:.6g}" for number in distinct])
        return feature.numbers + SPREAD * gap * jitter(len(feature.numbers))
    counts(ax, *np.histogram(known, min(40, max(5, len(known) // 10))))
    return feature.numbers


def columns(ax: Axes, feature: Feature, values: np.ndarray) -> np.ndarray:
    """Levels [n] side by side, the highest mean first; of many the rare ones share the last column."""
    shown = len(feature.levels) if len(feature.levels) <= LEVELS else LEVELS - 1
    level = np.where(feature.missing, -1, np.minimum(np.nan_to_num(feature.numbers), shown)).astype(int)
    means = [float(values[level == k].mean()) for k in range(min(shown + 1, len(feature.levels)))]
    order = [*sorted(range(shown), key=lambda k: -means[k]), *range(shown, len(means))]
    names = [*feature.levels[:shown], f"{len(feature.levels) - shown} others"]
    turned: dict[str, Any] = {"rotation": 40, "ha": "right"} if len(order) > 5 else {}
    ax.set_xticks(range(len(order)), [wrapped(names[k], 18, 2) for k in order], fontfamily=fonts(), **turned)
    ax.set_xlim(-0.6, len(order) - 0.4)
    for at, k in enumerate(order):
        ax.plot([at - 0.36, at + 0.36], [means[k]] * 2, color=ink(), linewidth=1.4, zorder=3)
    place = np.array([*np.argsort(order), np.nan])
    return place[level] + SPREAD * jitter(len(values))  # type: ignore[no-any-return]


def margin(ax: Axes, feature: Feature, places: np.ndarray) -> np.ndarray:
    """The missing ones at the left, beyond a line."""
    known = places[~feature.missing]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    step = 1.0 if feature.levels else 0.1 * (high - low) or 1.0
    at = (0.0 if feature.levels else low) - step
    ax.axvline(at + 0.5 * step, color="0.5", linewidth=0.8, linestyle=":")
    (ticks, names), ends = ticks_of(ax, feature, low, high), (at - 0.55 * step, high + 0.5 * step)
    ax.set_xticks([at, *ticks], ["missing", *names])
    ax.set_xlim(*ends)
    return np.where(feature.missing, at + SPREAD * step * jitter(len(places)), places)


def ticks_of(ax: Axes, feature: Feature, low: float, high: float) -> tuple[list[float], list[str]]:
    """Those of the known numbers."""
    if feature.levels:
        return list(ax.get_xticks()), [label.get_text() for label in ax.get_xticklabels()]
    ax.set_xlim(low, high + (high == low))
    ticks = [float(tick) for tick in ax.get_xticks() if low <= tick <= high]
    return ticks, ax.xaxis.get_major_formatter().format_ticks(ticks)


def jitter(count: int) -> np.ndarray:
    """In [-1, 1], the same in each run."""
    return np.random.default_rng(1).uniform(-1, 1, count)


def counts(ax: Axes, heights: np.ndarray, edges: np.ndarray) -> None:
    ax.bar(
        edges[:-1], 0.1 * heights / heights.max(), np.diff(edges), align="edge", transform=ax.get_xaxis_transform(), color=GREY, alpha=0.3, zorder=0
    )


# ---- what the colours mean ------------------------------------------------------------------------------------------


def name_numbers(ax: Axes, name: str, feature: Feature) -> None:
    """A scale by rank, with the numbers that stand there."""
    from matplotlib.cm import ScalarMappable

    known = np.sort(feature.numbers[~feature.missing])
    scale = ax.figure.colorbar(ScalarMappable(cmap=low_to_high(ax)), ax=ax, fraction=0.04, pad=0.02, aspect=30)
    shades = np.sort(feature.shades[~feature.missing])
    at = np.unique(shades[np.linspace(0, len(known) - 1, 5).astype(int)]) if len(known) else np.empty(0)
    scale.set_ticks(list(at), labels=[shown(feature, known[np.searchsorted(shades, place)]) for place in at])
    scale.set_label(wrapped(f"{name}, by rank{'; grey: missing' if feature.missing.any() else ''}", 60, 1), fontsize=8, fontfamily=fonts())
    scale.ax.tick_params(labelsize=8)
    scale.outline.set_visible(False)  # type: ignore[operator]


def shown(feature: Feature, value: float) -> str:
    return str(np.datetime64(int(value), "D")) if feature.dates else f"{value:.4g}"


def name_levels(ax: Axes, name: str, feature: Feature) -> None:
    """A legend; rare levels and missing ones are grey."""
    rest = len(feature.levels) - len(INKS)
    grey = " or ".join([*([f"{rest} others"] if rest > 0 else []), *(["missing"] if feature.missing.any() else [])])
    for level, colour in [*zip(feature.levels, INKS, strict=False), *([(grey, GREY)] if grey else [])]:
        ax.scatter([], [], s=22, color=colour, linewidths=0, label=wrapped(level, 22, 1))
    made = ax.legend(title=wrapped(name, 24, 2), loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, prop={"family": fonts(), "size": 8})
    made.get_title().set_fontfamily(fonts())
    made.get_title().set_fontsize(8)
