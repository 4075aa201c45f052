"""Every row's value of every feature: a swarm of dots, and with many rows a density of the same form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.show.feature import Feature, feature_of, low_to_high
from askwhy.show.paper import GREY, INKS, checked, counted, finished, name_rows, parted, strongest
from askwhy.show.pictures import AGAINST, FOR, fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS = 1000  # rows: of more, dots would hide each other
LANE = 0.42  # inches of a feature
HEIGHT = 0.86  # of a lane that may be filled
SIZES = (2.4, 6.0)  # points of a dot
LEVELS = 3  # of a categorical feature that are named beside its lane
COLUMNS, PIXELS, THINNEST = 240, 45, 3  # of the density of one feature; a lone row is as thick as a small dot


@dataclass(frozen=True, eq=False)
class Lane:
    """One feature: its values [n] and what they are coloured by."""

    name: str
    values: np.ndarray
    feature: Feature | None
    summed: bool = False

    def colours(self, ax: Axes) -> np.ndarray:
        from matplotlib.colors import to_rgba

        if self.feature is not None:
            return self.feature.colours(ax, LEVELS)
        return np.array([to_rgba(GREY if self.summed else FOR if v > 0 else AGAINST) for v in self.values])

    def key(self) -> np.ndarray:
        """What comes first in a stack: low values below high ones, missing ones below all."""
        return np.zeros(len(self.values)) if self.feature is None else np.nan_to_num(self.feature.numbers, nan=-np.inf)


def beeswarm(
    values: np.ndarray, names: Sequence[str], features: Any = None, ax: Axes | None = None, *, title: str = "", unit: str = "score units",
    most: int = 10, order: str | None = "mean",
) -> Axes:  # fmt: skip
    """values [n, d] on the axis, one lane for each feature, coloured by the rank of what the row holds there, features [n, d].

    Rows of equal value stack up, low feature values below high ones. Up to 1,000 rows each is a dot; of more the stacks are drawn
    to scale, all rows counted, nothing thinned out. Categorical features have a colour for each of their three most frequent
    levels, missing values are grey. The last lane sums what is not shown. Raises InputError.
    Example: `askwhy.show.beeswarm(why.values, names, X)`.
    """
    values = checked(values, names, "[n, d]", features)
    lanes = lanes_of(values, names, None if features is None else np.asarray(features), parted(strongest(values, order), most))
    ax = ax or new_axes(7.8, 1.2 + LANE * len(lanes))
    ends = span(lanes)
    ax.set_xlim(*ends)
    ax.axvline(0, color="0.5", linewidth=0.8, zorder=0)
    name_rows(ax, [lane.name for lane in lanes])
    (dots if len(values) <= DOTS else densities)(ax, lanes, ends)
    key(ax, [lane.feature for lane in lanes if lane.feature is not None])
    for row, lane in enumerate(lanes):
        name_levels(ax, row, lane.feature)
    how = "each a dot" if len(values) <= DOTS else "all counted: the thickness is their number, to a scale for each feature"
    return finished(ax, title, f"{unit}; {counted(values)}, {how}")


def lanes_of(values: np.ndarray, names: Sequence[str], features: Any, split: tuple[np.ndarray, np.ndarray]) -> list[Lane]:
    shown, rest = split
    lanes = [Lane(names[j], values[:, j], None if features is None else feature_of(features[:, j])) for j in shown]
    return lanes + [Lane(f"{len(rest)} others, summed", values[:, rest].sum(1), None, summed=True)] * bool(len(rest))


def span(lanes: Sequence[Lane]) -> tuple[float, float]:
    """The ends of the axis: all values and zero, with some room, and more where levels are named."""
    low, high = min(0.0, *(lane.values.min() for lane in lanes)), max(0.0, *(lane.values.max() for lane in lanes))
    room, named = 0.04 * (high - low) or 1.0, any(lane.feature is not None and lane.feature.levels for lane in lanes)
    return float(low - room), float(high + (4 if named else 1) * room)


# ---- stacks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stacks:
    """Rows of about the same value, one above the other."""

    order: np.ndarray  # [n]: the rows, stack after stack, each from below
    counts: np.ndarray  # [k]: of rows in a stack
    starts: np.ndarray  # [k]: where a stack begins in `order`

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row: its place above the middle of its stack, in rows, and the size of the stack."""
        own = np.repeat(np.arange(len(self.counts)), self.counts)
        above, size = np.empty(len(self.order)), np.empty(len(self.order), int)
        above[self.order] = np.arange(len(self.order)) - self.starts[own] - (self.counts[own] - 1) / 2
        size[self.order] = self.counts[own]
        return above, size


def stacks(lane: Lane, ends: tuple[float, float], count: int) -> Stacks:
    place = ((lane.values - ends[0]) / (ends[1] - ends[0]) * count).astype(int).clip(0, count - 1)
    counts = np.bincount(place, minlength=count)
    return Stacks(np.lexsort((lane.key(), place)), counts, counts.cumsum() - counts)


def dots(ax: Axes, lanes: Sequence[Lane], ends: tuple[float, float]) -> None:
    """A dot for each row, as large as most stacks allow; the others are squeezed, and still show their colours in order."""
    box, points = ax.get_window_extent(), 72 / ax.figure.dpi
    width, room = max(box.width * points, 72.0), box.height * points / (len(lanes)) * HEIGHT
    crowd = np.concatenate([stacks(lane, ends, int(width / 4)).places()[1] for lane in lanes])
    size = float(np.clip(room / np.quantile(crowd, 0.8), *SIZES))
    for row, lane in enumerate(lanes):
        above, count = stacks(lane, ends, int(width / size)).places()
        step = np.minimum(size, (room - size) / np.maximum(count - 1, 1)) / room * HEIGHT
        ax.scatter(lane.values, row - above * step, s=size**2, c=lane.colours(ax), linewidths=0, rasterized=True)


def densities(ax: Axes, lanes: Sequence[Lane], ends: tuple[float, float]) -> None:
    """The stacks as a picture: each column holds the colours of its rows, as thick as there are rows, and never too thin to be seen."""
    for row, lane in enumerate(lanes):
        found, colours = stacks(lane, ends, COLUMNS), lane.colours(ax)
        thick = np.where(found.counts, np.maximum(THINNEST, np.round(PIXELS * found.counts / found.counts.max())), 0).astype(int)
        at = np.arange(PIXELS)[:, None] - (PIXELS - thick) // 2  # [PIXELS, COLUMNS]
        inside = (at >= 0) & (at < thick)
        rank = ((at + 0.5) / np.maximum(thick, 1) * found.counts).astype(int)
        picture = np.zeros((PIXELS, COLUMNS, 4))
        picture[inside] = colours[found.order[(found.starts + rank)[inside]]]
        ax.imshow(picture, extent=(*ends, row + HEIGHT / 2, row - HEIGHT / 2), aspect="auto", interpolation="nearest", origin="lower")
    ax.set_xlim(*ends)
    ax.set_ylim(len(lanes) - 0.4, -0.6)


# ---- what the colours mean ------------------------------------------------------------------------------------------


def key(ax: Axes, features: Sequence[Feature]) -> None:
    """A scale from low to high, where a feature has one."""
    from matplotlib.cm import ScalarMappable

    if all(feature.levels for feature in features):
        return
    grey = "; grey: missing" if any(feature.missing.any() for feature in features) else ""
    scale = ax.figure.colorbar(ScalarMappable(cmap=low_to_high(ax)), ax=ax, ticks=[0, 1], fraction=0.03, pad=0.02, aspect=40)
    scale.ax.set_yticklabels(["low", "high"], fontsize=8)
    scale.set_label(f"the feature's value, by rank{grey}", fontsize=8, labelpad=-14)
    scale.outline.set_visible(False)  # type: ignore[operator]
    scale.ax.tick_params(length=0)


def name_levels(ax: Axes, row: int, feature: Feature | None) -> None:
    """The frequent levels in their colours, at the end of the lane."""
    if feature is None or not feature.levels:
        return
    rest = len(feature.levels) - LEVELS
    said = [*zip(feature.levels, INKS[:LEVELS], strict=False), *[(f"{rest} other{'s' if rest > 1 else ''}", GREY)] * (rest > 0)]
    for k, (level, colour) in enumerate(said):
        at = row + 0.24 * (k - (len(said) - 1) / 2)
        ax.text(
            1.0, at, wrapped(level, 16, 1), transform=ax.get_yaxis_transform(), va="center", ha="right", fontsize=7, color=colour, fontfamily=fonts()
        )
