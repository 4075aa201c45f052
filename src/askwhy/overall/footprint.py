"""Boxes of pixels that reach the places of a layer, from asking which places a set of pixels spoils.

In few questions where the boxes lie regularly, and then each of them is proved; else line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Spoil = Callable[[np.ndarray], np.ndarray]  # masks of pixels [k, h, w] -> the places that they reach [k, *grid]
Spans = np.ndarray  # [places, 2]: first pixel, and the one after the last
AT_ONCE = 64  # masks in one question
BESIDE = (0, 0.1, 0.35, 0.6, 0.75)  # how far along the other diagonal, and no two of them as far from its ends


@dataclass(frozen=True, eq=False)
class Footprint:
    """boxes [*grid, 4]: top, left, bottom, right."""

    boxes: np.ndarray
    calls: int
    regular: bool  # found by the rule, and not line by line


def boxes_of(spoil: Spoil, space: tuple[int, int]) -> Footprint | None:
    """The box of every place, zeros for one that sees nothing; None where nothing reaches any place."""
    asked = Asked(spoil)
    corners = np.ones((3, *space), bool)
    corners[1:] = False
    corners[1, 0, 0] = corners[2, -1, -1] = True
    every, first, last = asked(corners)
    if not every.any():
        return None
    if first.all() and last.all():
        return Footprint(np.broadcast_to([0, 0, *space], (*every.shape, 4)).copy(), asked.calls, True)
    found = by_rule(asked, space, every.shape) if every.all() and every.ndim == 2 else None
    boxes = by_lines(asked, space) if found is None else crossed(*found)
    return Footprint(boxes, asked.calls, found is not None)


@dataclass(eq=False)
class Asked:
    """Counts the questions."""

    spoil: Spoil
    calls: int = 0

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        self.calls += len(masks)
        return np.concatenate([self.spoil(masks[k : k + AT_ONCE]) for k in range(0, len(masks), AT_ONCE)])


def crossed(rows: Spans, columns: Spans) -> np.ndarray:
    """[g, 2] and [h, 2] -> [g, h, 4]"""
    shape = len(rows), len(columns)
    parts = rows[:, None, 0], columns[None, :, 0], rows[:, None, 1], columns[None, :, 1]
    return np.stack([np.broadcast_to(part, shape) for part in parts], -1).copy()


# ---- line by line ---------------------------------------------------------------------------------------------------


def by_lines(asked: Asked, space: tuple[int, int]) -> np.ndarray:
    """Every row and every column of pixels on its own."""
    found = [spans(lines(asked, space, axis)) for axis in (0, 1)]  # [*grid, 2] each
    return np.stack([found[0][..., 0], found[1][..., 0], found[0][..., 1], found[1][..., 1]], -1)


def lines(asked: Asked, space: tuple[int, int], axis: int) -> np.ndarray:
    """[lines, *grid]: the places that each line reaches."""
    told = []
    for start in range(0, space[axis], AT_ONCE):
        own = np.arange(start, min(start + AT_ONCE, space[axis]))
        masks = np.zeros((len(own), *space), bool)
        np.moveaxis(masks, axis + 1, 1)[np.arange(len(own)), own] = True
        told.append(asked(masks))
    return np.concatenate(told)


def spans(hit: Any) -> np.ndarray:
    """[lines, *grid] -> [*grid, 2], zeros where no line reaches the place."""
    ends = np.stack([hit.argmax(0), len(hit) - hit[::-1].argmax(0)], -1)
    return np.where(hit.any(0)[..., None], ends, 0)


# ---- by a rule, which is then proved --------------------------------------------------------------------------------


def by_rule(asked: Asked, space: tuple[int, int], grid: tuple[int, ...]) -> tuple[Spans, Spans] | None:
    """Rows and columns of boxes of one size at one distance, cut off at the border; None where that is not how they lie."""
    starts = beginnings(asked, np.array(space), np.array(grid))  # of either end: pixels from there to the box
    rows, columns = (np.stack([starts[0][k], space[k] - starts[1][k][::-1]], 1) for k in (0, 1))
    if any((span[:, 0] >= span[:, 1]).any() for span in (rows, columns)):
        return None
    masks = tests(rows, columns, space)
    return (rows, columns) if (asked(masks) == expected(masks, rows, columns)).all() else None


def beginnings(asked: Asked, space: np.ndarray, grid: np.ndarray) -> list[list[np.ndarray]]:
    """By end and axis: where the boxes would begin along it, seen from that end, if the last two of them tell of all."""
    far = -(-space // np.maximum(grid - 1, 1)) + 1  # no step is longer
    last = bisected(asked, space, grid, np.zeros((2, 2), int), np.stack([space - 1] * 2))
    before = bisected(asked, space, grid - 1, np.maximum(last - far, 0), last)
    return [[np.maximum(last[end, k] - (last - before)[end, k] * np.arange(grid[k])[::-1], 0) for k in (0, 1)] for end in (0, 1)]


def bisected(asked: Asked, space: np.ndarray, wanted: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """By end and axis: the first pixel, from that end, up to which pixels have to be spoiled to reach `wanted` places along the axis."""
    low, high = low.copy(), high.copy()
    while (low < high).any():
        at = (low + high) // 2
        masks = np.zeros((2, *space), bool)
        masks[0, : at[0, 0] + 1, : at[0, 1] + 1] = True
        masks[1, space[0] - 1 - at[1, 0] :, space[1] - 1 - at[1, 1] :] = True
        reached = asked(masks)
        enough = np.stack([reached.any(2).sum(1), reached.any(1).sum(1)], 1) >= wanted
        high, low = np.where(enough, at, high), np.where(enough, low, np.minimum(at + 1, high))
    return high


def tests(rows: Spans, columns: Spans, space: tuple[int, int]) -> np.ndarray:
    """Masks [k, h, w] that no other boxes along the diagonal of the grid, or at some places beside it, would answer in the same way.

    Everything but a box: its place stays clean, so that it sees no more. One corner of a box, then the other: its place is
    reached, so that it sees no less. Boxes that share neither rows nor columns are tested together.
    """
    groups: list[np.ndarray] = []  # of windows, and their first and last corners
    taken: list[np.ndarray] = []
    pairs = {(*rows[i].tolist(), *columns[j].tolist()) for i, j in places_of(len(rows), len(columns))}
    for top, bottom, left, right in sorted(pairs):
        free = (k for k, used in enumerate(taken) if not used[0, top:bottom].any() and not used[1, left:right].any())
        k = next(free, len(groups))
        if k == len(groups):
            groups.append(np.zeros((3, *space), bool))
            taken.append(np.zeros((2, max(space)), bool))
        taken[k][0, top:bottom] = taken[k][1, left:right] = True
        groups[k][0, top:bottom, left:right] = True
        groups[k][1, top, left] = groups[k][2, bottom - 1, right - 1] = True
    masks = np.stack(groups, 1)
    return np.unique(np.concatenate([~masks[0], masks[1], masks[2]]), axis=0)


def places_of(high: int, wide: int) -> list[tuple[int, int]]:
    """The diagonal of a grid, and some places of the other one, which a transposition of the picture would show."""
    longest = max(high, wide)
    diagonal = [(min(k, high - 1), min(k, wide - 1)) for k in range(longest)]
    return diagonal + [(round(k * (high - 1)), round((1 - k) * (wide - 1))) for k in BESIDE]


def expected(masks: np.ndarray, rows: Spans, columns: Spans) -> np.ndarray:
    """[k, h, w] -> [k, g, h]: the boxes that hold a pixel of the mask."""
    sums = np.pad(masks, ((0, 0), (1, 0), (1, 0))).cumsum(1, dtype=np.int32).cumsum(2, dtype=np.int32)
    high = sums[:, rows[:, 1]] - sums[:, rows[:, 0]]  # [k, g, w + 1]
    return (high[:, :, columns[:, 1]] - high[:, :, columns[:, 0]]) > 0


# ---- what matters ---------------------------------------------------------------------------------------------------


def smallest_box(squared: np.ndarray, share: float) -> np.ndarray:
    """The box [top, left, bottom, right] of the least area that holds so much of [h, w]; zeros where there is nothing to hold."""
    sums = np.pad(squared, ((1, 0), (1, 0))).cumsum(0).cumsum(1)  # [h + 1, w + 1]
    need, best, area = share * sums[-1, -1] * (1 - 1e-12), (0, 0, 0, 0), np.inf
    if sums[-1, -1] <= 0:
        return np.zeros(4, int)
    narrowest = tightest(sums[-1], need)[0]
    for top in range(np.searchsorted(sums[:, -1], sums[-1, -1] - need, "right")):
        for bottom in range(int(np.searchsorted(sums[:, -1], sums[top, -1] + need)), len(sums)):
            if (bottom - top) * narrowest >= area:
                break
            width, left = tightest(sums[bottom] - sums[top], need)
            if (bottom - top) * width < area:
                area, best = (bottom - top) * width, (top, left, bottom, left + width)
    return np.array(best)


def tightest(sums: np.ndarray, need: float) -> tuple[int, int]:
    """The shortest stretch of cumulated sums [w + 1] that holds so much: its length, and where it begins."""
    widths = np.searchsorted(sums, sums[:-1] + need) - np.arange(len(sums) - 1)
    fits = np.arange(len(sums) - 1) + widths < len(sums)
    left = int(np.where(fits, widths, len(sums) + 1).argmin())
    return (int(widths[left]), left) if fits[left] else (len(sums) + 1, left)
