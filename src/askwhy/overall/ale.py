"""Accumulated local effects: how the score changes as a column moves by one interval, for the rows that are in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.models.base import CATEGORICAL
from askwhy.overall.axis import Axis
from askwhy.overall.table import Table

Ask = Callable[[int, Callable[[int, int], Any]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Side:
    """Where the rows are on one axis of g points. A row stands between the two ends of its interval, or on its level (which counts as both)."""

    intervals: np.ndarray  # int [n, 2]: those in which it is moved: its own (and -1), or the two beside its level (-1 where there is none)
    points: np.ndarray  # int [n, 2]
    shares: np.ndarray  # [n, 2]: how much it stands on each of the two, as a line between them has it; sum 1
    size: int  # g


def accumulate(table: Table, axes: list[Axis], ask: Ask) -> dict[str, Any]:
    """Values and standard errors on the grid [g] or [g1, g2], from the rows that lie on it."""
    on = np.flatnonzero(np.all([on_grid(axis) for axis in axes], 0))
    if not len(on):
        raise InputError("no row lies on the grid; choose another grid=.")
    weights = table.weights[on] / table.weights[on].sum()
    sides = [side_of(axis, axis.at[on]) for axis in axes]
    row, cell = moves(sides)
    step = differences(table, axes, on[row], cell, ask)
    shape = tuple(side.size - 1 for side in sides)
    flat, size = np.ravel_multi_index(cell, shape), int(np.prod(shape))
    total, count = np.bincount(flat, weights[row], size), np.bincount(flat, minlength=size)
    mean = np.bincount(flat, weights[row] * step, size) / np.where(count, total, 1)
    lines = operator(sides, weights, count.reshape(shape))  # [cells, *grid]: what a mean step of 1 in a cell adds to the effect
    values = np.tensordot(mean, lines, 1)
    off = step - mean[flat]
    pull = weights[row] * off / total[flat] * np.sqrt(count[flat] / np.maximum(count[flat] - 1, 1))
    pulls = [Pull(row, flat, pull, lines), of_mean(values, sides, weights)]
    if len(axes) == 2:
        along = added(mean[filled(count.reshape(shape))][None])[0]
        pulls += [main(along, sides, weights), turned(main(along.T, sides[::-1], weights))]
    variance = variance_of(pulls, len(on)) + np.tensordot(chance(off, flat, count), lines**2, 1)
    found = {"values": values, "std_error": np.sqrt(variance), "left_out": len(table) - len(on)}
    return found if len(axes) == 1 else found | {"off_data": lonely(count.reshape(shape)), "empty_cells": float((count == 0).mean())}


def on_grid(axis: Axis) -> np.ndarray:
    return ~np.isnan(axis.at) & (axis.at >= axis.ticks[0]) & (axis.at <= axis.ticks[-1])


def side_of(axis: Axis, at: np.ndarray) -> Side:
    """Raises InputError for an interval of numbers without rows."""
    size = len(axis)
    if axis.kind == CATEGORICAL:
        own = at.astype(int)
        return Side(np.stack([own - 1, np.where(own < size - 1, own, -1)], 1), np.stack([own, own], 1), np.full((len(own), 2), 0.5), size)
    own = np.clip(np.searchsorted(axis.ticks, at) - 1, 0, size - 2)
    empty = np.flatnonzero(np.bincount(own, minlength=size - 1) == 0)
    if len(empty):
        low, high = axis.grid[empty[0]], axis.grid[empty[0] + 1]
        raise InputError(f"grid= has no row of {axis.name!r} between {low} and {high}, and ALE needs some in every interval; leave one of them out.")
    way = (at - axis.ticks[own]) / np.diff(axis.ticks)[own]
    return Side(np.stack([own, np.full(len(own), -1)], 1), np.stack([own, own + 1], 1), np.stack([1 - way, way], 1), size)


def moves(sides: list[Side]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Each row with each cell in which it is moved: rows [p], and the cells' interval on each axis [p]."""
    rows, cells = [], []
    for which in product((0, 1), repeat=len(sides)):
        intervals = np.stack([side.intervals[:, one] for side, one in zip(sides, which, strict=True)])
        inside = np.flatnonzero((intervals >= 0).all(0))
        rows.append(inside)
        cells.append(intervals[:, inside])
    return np.concatenate(rows), tuple(np.concatenate(cells, 1))


def differences(table: Table, axes: list[Axis], rows: np.ndarray, cell: tuple[np.ndarray, ...], ask: Ask) -> np.ndarray:
    """[p]: the score at the upper end less that at the lower; of two axes the difference of these differences."""
    p = len(rows)

    def show(start: int, stop: int) -> Any:
        one = np.arange(start, stop) % p
        corner = np.arange(start, stop) // p
        ends = {axis.place: axis.cells.take(cell[d][one] + (corner >> d & 1)) for d, axis in enumerate(axes)}
        return table.changed(rows[one], ends)

    scores = ask(p << len(axes), show).reshape(-1, p)
    signs = np.array([(-1) ** (len(axes) - corner.bit_count()) for corner in range(len(scores))])
    return signs @ scores  # type: ignore[no-any-return]


def filled(count: np.ndarray) -> np.ndarray:
    """int, like count: each cell's own number, or that of the nearest with rows where it has none."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(count == 0, return_distances=False, return_indices=True)
    return np.arange(count.size).reshape(count.shape)[tuple(nearest)]


def operator(sides: list[Side], weights: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[cells, *grid]: steps added up, without what either column does alone, moved so that their mean over the rows is 0."""
    steps = np.eye(count.size)[:, filled(count)]
    whole = added(steps)
    if len(sides) == 2:
        first = np.diff(whole, axis=1) * alone(sides[0], sides[1], weights)
        second = np.diff(whole, axis=2) * alone(sides[1], sides[0], weights).T
        whole = whole - added(first.sum(2))[:, :, None] - added(second.sum(1))[:, None, :]
    return centred(whole, mass(sides, weights))


def added(steps: np.ndarray) -> np.ndarray:
    """steps [e, intervals of each axis] -> [e, *grid]: their sums from the first point on."""
    for axis in range(1, steps.ndim):
        steps = steps.cumsum(axis)
    return np.pad(steps, [(0, 0)] + [(1, 0)] * (steps.ndim - 1))


def centred(lines: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return lines - np.tensordot(lines, shares, shares.ndim).reshape(-1, *[1] * shares.ndim)


def standing(sides: list[Side]) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """The points on which the rows stand, one [n] for each axis, with how much; one corner after the other."""
    for which in product((0, 1), repeat=len(sides)):
        pairs = list(zip(sides, which, strict=True))
        yield tuple(side.points[:, one] for side, one in pairs), np.prod([side.shares[:, one] for side, one in pairs], 0)


def mass(sides: list[Side], weights: np.ndarray) -> np.ndarray:
    """[*grid]: the share of the rows that stands on each point."""
    found = np.zeros(tuple(side.size for side in sides))
    for points, shares in standing(sides):
        np.add.at(found, points, weights * shares)
    return found


def alone(side: Side, other: Side, weights: np.ndarray) -> np.ndarray:
    """[intervals, points of the other]: where on the other axis the rows of each interval stand; each row of it sums to 1."""
    found = np.zeros((side.size - 1, other.size))
    for one, two in product((0, 1), repeat=2):
        inside = side.intervals[:, one] >= 0
        np.add.at(found, (side.intervals[inside, one], other.points[inside, two]), (weights * other.shares[:, two])[inside])
    return found / found.sum(1, keepdims=True)


def lonely(count: np.ndarray) -> np.ndarray:
    """1 at points of the grid around which no cell holds a row, else 0."""
    around = np.pad(count, 1)
    return ((around[1:, 1:] + around[1:, :-1] + around[:-1, 1:] + around[:-1, :-1]) == 0).astype(np.float64)


# ---- how far the effect would move with other rows ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pull:
    """What rows contribute to an estimate: `amount` of row `row` moves the effect along line `line`."""

    row: np.ndarray  # int [p]
    line: np.ndarray  # int [p]
    amount: np.ndarray  # [p]
    lines: np.ndarray  # [lines, *grid]


def variance_of(pulls: list[Pull], rows: int) -> np.ndarray:
    """[*grid]: the sum over rows of the square of all that a row contributes (the infinitesimal jackknife)."""
    from scipy.sparse import csr_array, hstack

    every = hstack([csr_array((p.amount, (p.row, p.line)), shape=(rows, len(p.lines))) for p in pulls], format="csr")
    lines = np.concatenate([p.lines for p in pulls])
    flat = lines.reshape(len(lines), -1)
    return np.einsum("ip,ip->p", flat, (every.T @ every) @ flat).clip(0).reshape(lines.shape[1:])


def of_mean(values: np.ndarray, sides: list[Side], weights: np.ndarray) -> Pull:
    """Where a row stands moves the mean of the effect, which is taken away."""
    at: Any = sum(values[points] * shares for points, shares in standing(sides))
    n = len(weights)
    return Pull(np.arange(n), np.zeros(n, int), weights * at, -np.ones((1, *values.shape)))


def main(whole: np.ndarray, sides: list[Side], weights: np.ndarray) -> Pull:
    """Where a row stands on the second axis moves what the first does alone, the mean step of each interval, which is taken away."""
    (side, other), along = sides, np.diff(whole, axis=0)
    mean = (along * alone(side, other, weights)).sum(1)
    row, which = np.nonzero(side.intervals >= 0)
    interval = side.intervals[row, which]
    own = (along[interval[:, None], other.points[row]] * other.shares[row]).sum(1)
    share = weights[row] / np.bincount(interval, weights[row])[interval]
    lines = -np.broadcast_to(added(np.eye(side.size - 1))[:, :, None], (side.size - 1, *whole.shape))
    return Pull(row, interval, share * (own - mean[interval]), centred(lines, mass(sides, weights)))


def turned(pull: Pull) -> Pull:
    return Pull(pull.row, pull.line, pull.amount, pull.lines.swapaxes(1, 2))


def chance(off: np.ndarray, cell: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[cells]: the variance of the step of a cell with a single row, which is that of the others; NaN where there are none."""
    freedom = (count[count > 1] - 1).sum()
    return np.where(count == 1, (off[count[cell] > 1] ** 2).sum() / freedom if freedom else np.nan, 0.0)
