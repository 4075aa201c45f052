"""Path-dependent Shapley interactions of trees, by the quadrature of `quadrature`.

The interaction index of features i and j is the same integral with both factors replaced by what the feature adds. Each split on
j below a split on i adds u_j sum_q P_q c_q (L - R)_q times (c u / g)_q of the way that was taken at the split on i.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uintp

from askwhy.compiled.options import FUSED, KERNEL, LEAN
from askwhy.compiled.quadrature import FRAME, LANE, LEFT, RATIO, RIGHT, SIZE, STRIDE, J, U, descend, opened


@njit(**LEAN)
def ratios(W, here, lanes, share, sign, h, c, row, points):
    """What a feature adds, over its factor, on the way to a child. Where the factor is 0, nothing arrives there and nothing is added."""
    for q in range(points):
        slope, weight, part = sign * h[row, q], sign * c[row, q], q * LANE
        for b in range(lanes):
            u = W[here + U + b]
            factor = share + slope * u
            W[here + RATIO + part + b] = weight * u / factor if factor > 0.0 else 0.0


@njit(**LEAN, fastmath=FUSED)
def close(W, here, up, lanes, leaf_left, leaf_right, leaf, k, rho, h, c, row, points):
    """What is expected at a split, kept for the one above; P becomes what the split adds to its feature, at each point."""
    for q in range(points):
        slope, weight, part = h[row, q], c[row, q], q * LANE
        if leaf_left:
            for b in range(lanes):
                W[here + LEFT + part + b] = leaf[k, 0]
        if leaf_right:
            for b in range(lanes):
                W[here + RIGHT + part + b] = leaf[k, 1]
        for b in range(lanes):
            right, u = W[here + RIGHT + part + b], W[here + U + b]
            step = W[here + LEFT + part + b] - right
            W[here + part + b] *= weight * step * u
            W[up + part + b] = right + (rho + slope * u) * step


@njit(**LEAN, fastmath=FUSED)
def meet(W, here, splits, path, level, d, lanes, points, pairs):
    """Add a split's own value on the diagonal of pairs [d, d], and what it shares with each split above on another feature."""
    f = splits[path[level], 0]
    own = uintp((f * d + f) * lanes)
    for q in range(points):
        for b in range(lanes):
            pairs[own + b] += W[here + q * LANE + b]
    for above in range(level):
        g = splits[path[above], 0]
        if g == f:
            continue
        there, at = uintp(above + 1) * FRAME + RATIO, uintp((min(f, g) * d + max(f, g)) * lanes)
        for b in range(lanes):
            W[here + J + b] = 0.0
        for q in range(points):
            for b in range(lanes):
                W[here + J + b] += W[here + q * LANE + b] * W[there + q * LANE + b]
        for b in range(lanes):
            pairs[at + b] += W[here + J + b]


@njit(**LEAN)
def through_pairs(root, splits, numbers, leaf, members, t, points, x, d, lanes, W, stage, path, h, c, pairs):
    """As `quadrature.through`, with the ratios kept on the way down."""
    for q in range(points):
        h[0, q], c[0, q] = t[points, q], 1.0
    level = 0
    path[0], stage[0] = root, 0
    while level >= 0:
        k = path[level]
        here, rho, row = uintp(level + 1) * FRAME, numbers[k, 1], level + 1 if splits[k, 3] >= 0 else 0
        low, high = splits[k, 1], splits[k, 2]
        if stage[level] == 0:
            opened(W, uintp(level), k, splits, numbers, members, path, stage, x, uintp(0), lanes, t, points, h, c)
        stage[level] += 1
        child = low if stage[level] == 1 else high
        if stage[level] <= 2 and child >= 0:
            share, sign = (rho, 1.0) if stage[level] == 1 else (1.0 - rho, -1.0)
            descend(W, here, lanes, share, sign, h, row, points)
            ratios(W, here, lanes, share, sign, h, c, row, points)
            level += 1
            path[level], stage[level] = child, 0
        elif stage[level] > 2:
            up = RIGHT if level > 0 and stage[level - 1] == 2 else LEFT
            close(W, here, here - FRAME + up, lanes, low < 0, high < 0, leaf, k, rho, h, c, row, points)
            meet(W, here, splits, path, level, d, lanes, points, pairs)
            level -= 1


@njit(**KERNEL)
def path_interactions(splits, numbers, leaf, members, starts, points, nodes, weights, trees, depth, X, lanes, out):
    """out [n, d, d] += half of each interaction index off the diagonal, and on it what is left of the Shapley value."""
    n, d = X.shape
    for first in range(0, n, lanes):
        count = min(lanes, n - first)
        x, pairs = np.zeros(d * STRIDE), np.zeros(d * d * lanes)
        for b in range(count):
            for j in range(d):
                x[j * STRIDE + b] = X[first + b, j]
        W = np.empty((depth + 2) * SIZE)
        stage, path = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
        h, c = np.empty((depth + 2, nodes.shape[1])), np.empty((depth + 2, nodes.shape[1]))
        for tree in trees:
            if starts[tree] == starts[tree + 1]:
                continue
            q = points[tree]
            for k in range(q):
                for b in range(lanes):
                    W[FRAME + uintp(k * STRIDE + b)] = weights[q, k]
            through_pairs(starts[tree], splits, numbers, leaf, members, nodes, uintp(q), x, d, uintp(lanes), W, stage, path, h, c, pairs)
        for i in range(d):
            for j in range(i, d):
                for b in range(count):
                    value = pairs[(i * d + j) * lanes + b]
                    if i == j:
                        out[first + b, i, i] += value
                    elif value != 0.0:
                        out[first + b, i, j] += value / 2
                        out[first + b, j, i] += value / 2
                        out[first + b, i, i] -= value / 2
                        out[first + b, j, j] -= value / 2
