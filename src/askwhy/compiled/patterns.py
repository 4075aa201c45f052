"""Interventional Shapley values of trees for many rows: what each leaf adds, once for every pattern in which a row keeps to its path.

A leaf whose path asks for m features sees of a row only which of them keep to it: 2^m patterns. The background rows fall into the same
patterns. With a chance t for every other feature to be the row's own, the sum over the background is a product over the m bits,
so that it is worked out one bit after the other (as a fast Hadamard transform), at the points of the same quadrature. Two leaves below
one split share their patterns, if no split above has its feature.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from askwhy.compiled.options import KERNEL, LEAN
from askwhy.compiled.quadrature import CATEGORICAL, MISSING_LEFT, belongs

ROWS = 64  # that walk through a tree side by side
LONGEST = 12  # features of a path


@njit(**LEAN)
def look(x, f, lanes, kind, threshold, members, row, goes, level):
    """goes[level] = 1 where a row goes left."""
    if kind == CATEGORICAL:
        for b in range(lanes):
            goes[level, b] = 1 if belongs(x[f, b], members, row) else 0
    elif kind == MISSING_LEFT:
        for b in range(lanes):
            goes[level, b] = 0 if x[f, b] > threshold else 1
    else:
        for b in range(lanes):
            goes[level, b] = 1 if x[f, b] <= threshold else 0


@njit(**LEAN)
def turn(pattern, goes, level, lanes, bit, fresh, left):
    """The patterns one level further down: a new bit, or one that stays only where the row still keeps to the path."""
    flip = 0 if left else 1
    for b in range(lanes):
        kept = (goes[level, b] ^ flip) << bit
        pattern[level + 1, b] = pattern[level, b] | kept if fresh else pattern[level, b] & (kept | ~(1 << bit))


@njit(**LEAN)
def gather(table, at, m, pattern, level, lanes, names, phi):
    """phi [d, rows] += what the table has for the pattern of each row."""
    for k in range(m):
        f, first = names[k], at + (k << m)
        for b in range(lanes):
            phi[f, b] += table[first + pattern[level, b]]


@njit(**LEAN)
def count(table, at, pattern, level, lanes, weights, start):
    """The weight of the background rows of each pattern."""
    for b in range(lanes):
        table[at + pattern[level, b]] += weights[start + b]


@njit(**LEAN)
def work_out(table, at, m, value, flipped, t, weights, points, seen, sums):
    """Add value times each bit's part to table [m, 2^m], from the weights `seen` [2^m]; flipped: the last bit means its opposite."""
    size, other = 1 << m, 1 << (m - 1) if flipped else 0
    for q in range(points):
        for p in range(size):
            sums[p] = seen[p ^ other]
        chance, rest = t[points, q], 1.0 - t[points, q]
        for k in range(m):
            half = 1 << k
            for start in range(0, size, 2 * half):
                for p in range(start, start + half):
                    out, within = sums[p], sums[p + half]
                    sums[p], sums[p + half] = rest * within, chance * out + within
        scale = weights[points, q] * value
        for k in range(m):
            half = 1 << k
            for start in range(0, size, 2 * half):
                low, high = at + (k << m) + (start ^ other) - start, at + (k << m) + ((start + half) ^ other) - start
                for p in range(start, start + half):
                    within = sums[p] / rest
                    table[low + p] -= scale * within
                    table[high + p] += scale / chance * (sums[p + half] - within)


@njit(**LEAN)
def walk(tree, splits, numbers, members, x, lanes, table, at, phi, weights, start, counting, bits, names, pattern, goes, path, stage):
    """Every leaf of a tree, or pair of leaves, in depth first order: gather from its table, or count into the first 2^m places of it."""
    level = 0
    path[0], stage[0], bits[0] = tree, 0, 0
    for b in range(lanes):
        pattern[0, b] = 0
    while level >= 0:
        k = path[level]
        f, prior, m = splits[k, 0], splits[k, 3], bits[level]
        fresh = prior < 0
        bit = m
        if not fresh:
            for e in range(m):
                bit = e if names[e] == f else bit
        elif stage[level] == 0:
            names[m] = f
        if stage[level] == 0:
            look(x, f, lanes, splits[k, 4], numbers[k, 0], members, splits[k, 5], goes, level)
        names[bit] = f
        stage[level] += 1
        if stage[level] > 2:
            level -= 1
            continue
        longer = m + (1 if fresh else 0)
        turn(pattern, goes, level, lanes, bit, fresh, stage[level] == 1)
        child = splits[k, stage[level]]
        if child >= 0:
            level += 1
            path[level], stage[level], bits[level] = child, 0, longer
            continue
        both = fresh and splits[k, 1] < 0 and splits[k, 2] < 0
        if counting:
            count(table, at, pattern, level + 1, lanes, weights, start)
        else:
            gather(table, at, longer, pattern, level + 1, lanes, names, phi)
        at += longer << longer
        if both:
            stage[level] = 2


@njit(**LEAN)
def units(tree, stop, splits, levels):
    """Of one tree: the size of its tables, and the work that it takes to fill them."""
    size, work = 0, 0
    for k in range(tree, stop):
        fresh = splits[k, 3] < 0
        if k == tree:
            levels[k - tree] = 1
        m = levels[k - tree]
        leaves = (1 if splits[k, 1] < 0 else 0) + (1 if splits[k, 2] < 0 else 0)
        work += leaves * (m << m) * ((m + 1) // 2)
        size += (m << m) * (1 if leaves == 2 and fresh else leaves)
        for side in range(1, 3):
            if splits[k, side] >= 0:
                levels[splits[k, side] - tree] = m + (1 if splits[splits[k, side], 3] < 0 else 0)
    return size, work


@njit(**KERNEL)
def fill(trees, offsets, starts, splits, numbers, leaf, members, nodes, weights, depth, Z, shares, table):
    """The tables of some trees, one after the other in `table`."""
    m, d = Z.shape
    for number in range(len(trees)):
        tree, stop = starts[trees[number]], starts[trees[number] + 1]
        bits, names = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
        pattern, goes = np.zeros((depth + 2, ROWS), np.int64), np.zeros((depth + 1, ROWS), np.int64)
        path, stage = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
        x, nothing = np.zeros((d, ROWS)), np.zeros((0, 0))
        for start in range(0, m, ROWS):
            lanes = min(ROWS, m - start)
            for b in range(lanes):
                for f in range(d):
                    x[f, b] = Z[start + b, f]
            walk(
                tree, splits, numbers, members, x, lanes, table, offsets[number], nothing, shares, start, True, bits, names, pattern, goes, path, stage
            )  # fmt: skip
        seen, sums = np.empty(1 << LONGEST), np.empty(1 << LONGEST)
        levels = np.zeros(stop - tree, np.int64)
        units(tree, stop, splits, levels)
        at = offsets[number]
        level = 0
        path[0], stage[0] = tree, 0
        while level >= 0:
            k = path[level]
            stage[level] += 1
            if stage[level] > 2:
                level -= 1
                continue
            child = splits[k, stage[level]]
            if child >= 0:
                level += 1
                path[level], stage[level] = child, 0
                continue
            width = levels[k - tree]
            points = max(1, (width + 1) // 2)
            for p in range(1 << width):
                seen[p] = table[at + p]
                table[at + p] = 0.0
            work_out(table, at, width, leaf[k, stage[level] - 1], False, nodes, weights, points, seen, sums)
            if splits[k, 3] < 0 and splits[k, 1] < 0 and splits[k, 2] < 0:
                work_out(table, at, width, leaf[k, 1], True, nodes, weights, points, seen, sums)
                stage[level] = 2
            at += width << width


@njit(**KERNEL)
def gather_all(trees, offsets, starts, splits, numbers, members, depth, X, table, out):
    """out [n, d] += the values of some trees; n is a few 100."""
    n, d = X.shape
    bits, names = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    pattern, goes = np.zeros((depth + 2, ROWS), np.int64), np.zeros((depth + 1, ROWS), np.int64)
    path, stage = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    blocks = (n + ROWS - 1) // ROWS
    x, phi, nothing = np.zeros((blocks, d, ROWS)), np.zeros((blocks, d, ROWS)), np.zeros(0)
    for i in range(n):
        for f in range(d):
            x[i // ROWS, f, i % ROWS] = X[i, f]
    for number in range(len(trees)):
        for block in range(blocks):
            lanes = min(ROWS, n - block * ROWS)
            walk(
                starts[trees[number]], splits, numbers, members, x[block], lanes, table, offsets[number], phi[block], nothing, 0, False,
                bits, names, pattern, goes, path, stage,
            )  # fmt: skip
    for i in range(n):
        for f in range(d):
            out[i, f] += phi[i // ROWS, f, i % ROWS]
