"""The pieces of a force plot: what pushes the score up to where it is, and what holds it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import checked, parted

GAP = 1e-3  # of the sum of |values|: a larger gap to the score would be seen in the picture


@dataclass(frozen=True)
class Segment:
    """One feature's piece of the axis, from where it is without the feature to where it is with it."""

    name: str
    value: float
    start: float
    stop: float

    @property
    def middle(self) -> float:
        return (self.start + self.stop) / 2


def segments(values: np.ndarray, names: Sequence[str], base: float, end: float, most: int) -> list[Segment]:
    """Those for, largest next to `end` from the left, then those against, largest next to `end` from the right; zeros have none.

    Beyond `most` the smaller ones are summed, for each sign on its own. Raises InputError where the values do not lead from base to end.
    """
    values = checked(values, names, "[d]")
    if not abs(base + values.sum() - end) <= GAP * max(float(np.abs(values).sum()), 1e-9 * abs(end), 1e-12):
        raise InputError(
            f"base {base:.6g} and the values' sum {values.sum():.6g} do not give {end:.6g}; a force plot needs values that sum to the score."
        )
    shown, rest = parted(np.argsort(-np.abs(values), kind="stable"), most)
    return [piece for sign in (1, -1) for piece in side([*pieces(values, names, shown, sign), *smaller(values, names, rest, sign)], end)]


def pieces(values: np.ndarray, names: Sequence[str], shown: np.ndarray, sign: int) -> list[tuple[str, float]]:
    return [(names[j], float(values[j])) for j in shown if values[j] * sign > 0]


def smaller(values: np.ndarray, names: Sequence[str], rest: np.ndarray, sign: int) -> list[tuple[str, float]]:
    mine = pieces(values, names, rest, sign)
    return [(f"{len(mine)} smaller ones", sum(value for _, value in mine))] if len(mine) > 1 else mine


def side(found: Sequence[tuple[str, float]], end: float) -> list[Segment]:
    """One after the other, away from the score."""
    stops = end - np.cumsum([0.0, *(value for _, value in found)])
    return [Segment(name, value, float(stops[k + 1]), float(stops[k])) for k, (name, value) in enumerate(found)]
