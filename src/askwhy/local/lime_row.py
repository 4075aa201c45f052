"""One row of a table and its neighbours: how every column is drawn near the row's own value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from askwhy.errors import InputError
from askwhy.local.lime_table import Spread, Table
from askwhy.local.surrogate import Samples
from askwhy.models.base import NUMERIC, Items, to_numpy
from askwhy.tables import as_numbers

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # values for the model; coordinates, or whether they are like the row's; control


@dataclass(frozen=True, eq=False)
class Axis:
    """How one column is drawn near the row, from even random numbers; without a width, as if the kernel were not there."""

    draw: Callable[[np.ndarray, float | None], Drawn]
    log_mass: Callable[[float], float]  # of the kernel of a width
    name: str
    own: float = 1.0  # the row's own coordinate
    tell: Callable[[float], str] | None = None  # a threshold in words; None: the name says it


@dataclass(frozen=True, eq=False)
class Near:
    """The neighbourhood of one row."""

    row: np.ndarray
    axes: list[Axis]
    discrete: bool

    def log_mass(self, width: float) -> float:
        return sum(axis.log_mass(width) for axis in self.axes)

    def tell(self, j: int, threshold: float) -> str:
        axis = self.axes[j]
        return axis.name if axis.tell is None else axis.tell(threshold)

    def draw(self, samples: int, width: float, sampling: str, rng: np.random.Generator) -> Samples:
        """The kernel is a product over columns, so by drawing each column by it, all neighbours come to weigh the same."""
        local = sampling != "uniform"
        lots = rng.random((len(self.axes), samples))
        rows = np.empty((samples, len(self.axes)), self.row.dtype, order="F")  # column by column is how they are written
        z = np.empty(rows.shape, bool if self.discrete else np.float64, order="F")
        control = np.empty(rows.shape, order="F")
        known = 0
        for j, axis in enumerate(self.axes):
            rows[:, j], z[:, j], extra = axis.draw(lots[j], width if local else None)
            if local and extra is not None:
                control[:, known], known = extra, known + 1
        own = np.array([axis.own for axis in self.axes])
        rows[0], z[0] = self.row, own
        far = len(own) - z.sum(1) if self.discrete else ((z - own) ** 2).sum(1)
        weight = np.ones(samples) if local else np.exp(-far / (2 * width**2))
        return Samples(z, weight, 1, control[:, :known] if known else None, far, np.ascontiguousarray(rows))


def near(table: Table, items: Items, i: int) -> Near:
    row = to_numpy(items.batch[i])
    axes = [axis_of(s, row[j : j + 1], table) for j, s in enumerate(table.spreads(i))]
    return Near(row, axes, table.discrete)


def axis_of(s: Spread, value: np.ndarray, table: Table) -> Axis:
    """Numbers may be drawn around the row, or taken as they are; what is missing, a date or a category is like the row's or not."""
    code = int(s.column.codes(value)[0])
    number = float(as_numbers(value, NUMERIC)[0]) if s.column.kind == NUMERIC else np.nan
    if np.isinf(number):
        raise InputError(f"column {s.column.name!r} is {number}; replace infinite numbers before asking.")
    if np.isnan(number) or s.scale == 0 or (table.discrete and table.around == "data"):
        mass = (s.bounds[code + 1] - s.bounds[code]) / s.bounds[-1]
        return Axis(partial(from_bins, s, code, mass), partial(log_mass_of, mass), s.column.says(code))
    if table.discrete:
        low, high = edges_of(s, code, number)
        return Axis(partial(from_bell, s, number, low, high - low), partial(log_mass_of, high - low), s.column.says(code))
    name, own = f"{s.column.name} (per {s.scale:.4g})", (number - s.mean) / s.scale
    tell = lambda threshold: f"{s.column.name} > {s.mean + threshold * s.scale:.4g}"  # noqa: E731
    if table.around == "data":
        far, weights = np.nan_to_num((s.numbers - number) / s.scale) ** 2, np.where(np.isnan(s.numbers), 0, s.weights)
        return Axis(partial(from_numbers, s, far, weights), partial(log_mass_of_numbers, far, weights), name, own, tell)
    return Axis(partial(from_normal, s, own), lambda width: -0.5 * float(np.log1p(1 / width**2)), name, own, tell)


def split(lots: np.ndarray, mass: float, width: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each draw is like the row, and its place in 0..1, where what is like the row lies first and fills `mass`."""
    beyond = (1 - mass) * (1.0 if width is None else np.exp(-0.5 / width**2))
    share = mass / (mass + beyond) if mass > 0 else 0.0
    alike = lots < share
    inner, outer = mass / share if share > 0 else 0.0, (1 - mass) / (1 - share) if share < 1 else 0.0
    place = lots * outer
    place += mass - share * outer if share < 1 else 0.0
    return alike, np.maximum(place, lots * inner, out=place)  # the second line is the steeper one, and they meet at `share`


def log_mass_of(mass: float, width: float) -> float:
    return float(np.log(mass + (1 - mass) * np.exp(-0.5 / width**2) + 1e-300))


def from_bins(s: Spread, code: int, mass: float, lots: np.ndarray, width: float | None) -> Drawn:
    """Real values of the background: the row's bin, then the others. The control is a value's distance from the mean of its side."""
    alike, place = split(lots, mass, width)
    total = s.bounds[-1]
    place *= total
    place += s.bounds[code]
    index = place.astype(np.intp) if s.upto is None else np.searchsorted(s.upto, place, side="right")
    values = s.values.take(index, mode="clip")
    if s.scale == 0:
        return values, alike, None
    inner, outer = s.pull[code] / max(mass * total, 1e-300), -s.pull[code] / max((1 - mass) * total, 1e-300)  # all together pull by 0
    control = alike * (outer - inner)  # np.where takes many times as long
    control += s.control.take(index, mode="clip")
    control -= outer
    return values, alike, control


def from_bell(s: Spread, number: float, low: float, mass: float, lots: np.ndarray, width: float | None) -> Drawn:
    """Normal around the row's number, told apart by the row's bin, which lies between `low` and `low + mass` of the bell."""
    from scipy.special import ndtri

    alike, place = split(lots, mass, width)
    return rounded(s, number + s.scale * ndtri(((low + place) % 1).clip(1e-12, 1 - 1e-12))), alike, None


def edges_of(s: Spread, code: int, number: float) -> tuple[float, float]:
    """Where the row's bin begins and ends in the bell around its number; whole numbers are rounded into it."""
    from scipy.special import ndtr

    edges = np.concatenate([[-np.inf], s.column.edges, [np.inf]])[code : code + 2]
    ends = ndtr(((np.floor(edges) + 0.5 if s.whole else edges) - number) / s.scale)
    return float(ends[0]), float(ends[1])


def from_numbers(s: Spread, far: np.ndarray, weights: np.ndarray, lots: np.ndarray, width: float | None) -> Drawn:
    """Real numbers of the background, the near ones more often."""
    upto = np.cumsum(weights if width is None else weights * np.exp(-far / (2 * width**2)))
    index = np.searchsorted(upto, lots * upto[-1], side="right").clip(max=len(upto) - 1)
    return s.values[index], (s.numbers[index] - s.mean) / s.scale, None


def log_mass_of_numbers(far: np.ndarray, weights: np.ndarray, width: float) -> float:
    return float(np.log(weights @ np.exp(-far / (2 * width**2)) / weights.sum() + 1e-300))


def from_normal(s: Spread, own: float, lots: np.ndarray, width: float | None) -> Drawn:
    """Normal around the row's number; the kernel makes the bell narrower."""
    from scipy.special import ndtri

    narrow = 1.0 if width is None else (1 + 1 / width**2) ** -0.5
    values = rounded(s, s.mean + s.scale * (own + narrow * ndtri(lots.clip(1e-12, 1 - 1e-12))))
    return values, (values - s.mean) / s.scale, None


def rounded(s: Spread, numbers: np.ndarray) -> np.ndarray:
    return np.rint(numbers) if s.whole else numbers
