"""Path-dependent Shapley values of trees by quadrature, compiled by numba.

With every other feature present with chance t, a split on feature f that sent the share rho of the training data to the left
hands the share g = rho + h u of its weight there: u = o (s - rho), where s is 1 for a row that goes left and o is 1 while the
row keeps to the path at all earlier splits on f, which kept the share r of the data; h = t / F and F = t + (1 - t) r. The
Shapley value is an integral over t (Owen 1972): each split adds u sum_q P_q c_q (L - R)_q with c = r / F^2, where P is the weight
that arrives at the split (times that of the quadrature), and L, R are what is expected below its two sides. All of them are
polynomials of a degree below the number m of features on a path: ceil(m / 2) Gauss-Legendre points give the integral exactly.

Rows go through a tree side by side, in lanes. All that the processor has to know to use its vectors is in the layout: one flat
array, with distances between its parts that are constants.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uintp

from askwhy.compiled.options import FUSED, KERNEL, LEAN

STRIDE = 64  # lanes from one part of a frame to the next
POINTS = 64  # of the quadrature, at most: 128 different features on one path
LANE, ONE = uintp(STRIDE), uintp(1)
LEFT, RIGHT, RATIO = uintp((POINTS + 4) * STRIDE), uintp((2 * POINTS + 8) * STRIDE), uintp((3 * POINTS + 12) * STRIDE)
U, O, J = uintp((4 * POINTS + 13) * STRIDE), uintp((4 * POINTS + 14) * STRIDE), uintp((4 * POINTS + 15) * STRIDE)  # noqa: E741
SIZE = (4 * POINTS + 17) * STRIDE + 24
FRAME = uintp(SIZE)
NUMERIC, MISSING_LEFT, CATEGORICAL = 0, 1, 2


@njit(**LEAN)
def belongs(code, members, row):
    """members [splits, codes + 1]: the last says where a missing value goes."""
    last = members.shape[1] - 1
    if np.isnan(code):
        return members[row, last]
    return 0 <= code < last and members[row, int(code)]


@njit(**LEAN)
def sides(W, place, x, at, lanes, kind, threshold, members, row):
    """W[place + b] = 1 where row b goes left."""
    if kind == NUMERIC:
        for b in range(lanes):
            W[place + b] = 1.0 if x[at + b] <= threshold else 0.0
    elif kind == MISSING_LEFT:
        for b in range(lanes):
            W[place + b] = 0.0 if x[at + b] > threshold else 1.0
    else:
        for b in range(lanes):
            W[place + b] = 1.0 if belongs(x[at + b], members, row) else 0.0


@njit(**LEAN, fastmath=FUSED)
def enter(W, here, splits, numbers, k, members, prior, from_left, first, x, at, lanes):
    """u, o and j of a split. prior: the frame of the last split above on the same feature, 0 if there is none; first: o is 1 there."""
    rho, kind, threshold = numbers[k, 1], splits[k, 4], numbers[k, 0]
    if prior == 0 and kind == NUMERIC:  # nearly all of them: in one go
        for b in range(lanes):
            s = 1.0 if x[at + b] <= threshold else 0.0
            W[here + J + b] = s
            W[here + U + b] = s - rho
        return
    sides(W, here + J, x, at, lanes, kind, threshold, members, splits[k, 5])
    if prior == 0:
        for b in range(lanes):
            W[here + U + b] = W[here + J + b] - rho
        return
    for b in range(lanes):
        o = 1.0 if first else W[prior + O + b]
        o = W[prior + J + b] if from_left else o - W[prior + J + b]
        j = o * W[here + J + b]
        W[here + O + b] = o
        W[here + J + b] = j
        W[here + U + b] = j - o * rho


@njit(**LEAN)
def slopes(h, c, row, t, points, r):
    """h and c of a split whose feature was asked for above."""
    for q in range(points):
        kept = t[points, q] + (1.0 - t[points, q]) * r
        h[row, q], c[row, q] = t[points, q] / kept, r / (kept * kept)


@njit(**LEAN, fastmath=FUSED)
def leave_three(W, here, up, lanes, numbers, leaf, k, low, high, h, c, row, row_low, row_high, points):
    """A split above two splits with leaves, or one and a leaf, all at once. What each adds, but for its u, stays at its j."""
    below, beyond = here + FRAME, here + FRAME + FRAME
    rho, step_low, step_high = numbers[k, 1], 0.0, 0.0
    level_low, level_high = leaf[k, 0], leaf[k, 1]
    if low >= 0:
        step_low = leaf[low, 0] - leaf[low, 1]
        level_low = leaf[low, 1] + numbers[low, 1] * step_low
    if high >= 0:
        step_high = leaf[high, 0] - leaf[high, 1]
        level_high = leaf[high, 1] + numbers[high, 1] * step_high
    for q in range(points):
        keep = 0.0 if q == 0 else 1.0
        slope, weight, part = h[row, q], c[row, q], q * LANE
        slope_low, weight_low = h[row_low, q] * step_low, c[row_low, q] * step_low
        slope_high, weight_high = h[row_high, q] * step_high, c[row_high, q] * step_high
        for b in range(lanes):
            arrives = W[here + part + b]
            share = rho + slope * W[here + U + b]
            to_low = arrives * share
            right = level_high + slope_high * W[beyond + U + b]
            step = level_low + slope_low * W[below + U + b] - right
            W[here + J + b] = keep * W[here + J + b] + weight * arrives * step
            W[below + J + b] = keep * W[below + J + b] + weight_low * to_low
            W[beyond + J + b] = keep * W[beyond + J + b] + weight_high * (arrives - to_low)
            W[up + part + b] = right + share * step


@njit(**LEAN, fastmath=FUSED)
def add(W, here, lanes, phi, at):
    for b in range(lanes):
        phi[at + b] += W[here + J + b] * W[here + U + b]


@njit(**LEAN, fastmath=FUSED)
def descend(W, here, lanes, share, sign, h, row, points):
    """The weight that arrives at a child."""
    for q in range(points):
        slope, part = sign * h[row, q], q * LANE
        for b in range(lanes):
            W[here + FRAME + part + b] = W[here + part + b] * (share + slope * W[here + U + b])


@njit(**LEAN, fastmath=FUSED)
def leave(W, here, up, lanes, leaf_left, leaf_right, leaf, k, rho, h, c, row, points, phi, at):
    """What is expected at a split, kept for the one above; and the split's share in its feature's value."""
    low, high = leaf[k, 0], leaf[k, 1]
    for b in range(lanes):
        W[here + J + b] = 0.0
    for q in range(points):
        slope, weight, part = h[row, q], c[row, q], q * LANE
        if leaf_left and leaf_right:
            step = low - high
            weight, slope, middle = weight * step, slope * step, high + rho * step
            for b in range(lanes):
                W[here + J + b] += weight * W[here + part + b]
                W[up + part + b] = middle + slope * W[here + U + b]
        elif leaf_left:
            for b in range(lanes):
                right = W[here + RIGHT + part + b]
                W[here + J + b] += weight * W[here + part + b] * (low - right)
                W[up + part + b] = right + (rho + slope * W[here + U + b]) * (low - right)
        elif leaf_right:
            for b in range(lanes):
                step = W[here + LEFT + part + b] - high
                W[here + J + b] += weight * W[here + part + b] * step
                W[up + part + b] = high + (rho + slope * W[here + U + b]) * step
        else:
            for b in range(lanes):
                right = W[here + RIGHT + part + b]
                step = W[here + LEFT + part + b] - right
                W[here + J + b] += weight * W[here + part + b] * step
                W[up + part + b] = right + (rho + slope * W[here + U + b]) * step
    add(W, here, lanes, phi, at)


@njit(**LEAN)
def opened(W, place, k, splits, numbers, members, path, stage, x, at, lanes, t, points, h, c):
    """Look at a split, in the frame of a level; the row of h and c that it has."""
    prior, own = splits[k, 3], at + uintp(splits[k, 0]) * LANE
    above, known = uintp(prior + 1) * FRAME, prior >= 0
    from_left, first = known and stage[prior] == 1, known and splits[path[prior], 3] < 0
    enter(W, (place + ONE) * FRAME, splits, numbers, k, members, above, from_left, first, x, own, lanes)
    if not known:
        return uintp(0)
    slopes(h, c, place + ONE, t, points, numbers[k, 2])
    return place + ONE


@njit(**LEAN)
def near_leaves(splits, low, high):
    """Whether a split has only leaves, and splits with only leaves, below it; and one of those."""
    below = (low < 0 or (splits[low, 1] < 0 and splits[low, 2] < 0)) and (high < 0 or (splits[high, 1] < 0 and splits[high, 2] < 0))
    return below and (low >= 0 or high >= 0)


@njit(**LEAN)
def through(root, splits, numbers, leaf, members, t, points, x, at, lanes, W, stage, path, h, c, phi):
    """Send lanes of rows through one tree, in depth first order: stage 0 comes from above, 1 back from the left, 2 from the right."""
    for q in range(points):
        h[0, q], c[0, q] = t[points, q], 1.0
    level = uintp(0)
    path[0], stage[0] = root, 0
    while True:
        k = path[level]
        here, rho = (level + ONE) * FRAME, numbers[k, 1]
        low, high, own = splits[k, 1], splits[k, 2], at + uintp(splits[k, 0]) * LANE
        row = level + ONE if splits[k, 3] >= 0 else uintp(0)
        up = here - FRAME + (RIGHT if level > 0 and stage[level - ONE] == 2 else LEFT)
        if stage[level] == 0:
            opened(W, level, k, splits, numbers, members, path, stage, x, at, lanes, t, points, h, c)
            if near_leaves(splits, low, high):
                row_low, row_high = uintp(0), uintp(0)
                stage[level] = 1
                if low >= 0:
                    row_low = opened(W, level + ONE, low, splits, numbers, members, path, stage, x, at, lanes, t, points, h, c)
                stage[level] = 2
                if high >= 0:
                    row_high = opened(W, level + ONE + ONE, high, splits, numbers, members, path, stage, x, at, lanes, t, points, h, c)
                leave_three(W, here, up, lanes, numbers, leaf, k, low, high, h, c, row, row_low, row_high, points)
                add(W, here, lanes, phi, own)
                if low >= 0:
                    add(W, here + FRAME, lanes, phi, at + uintp(splits[low, 0]) * LANE)
                if high >= 0:
                    add(W, here + FRAME + FRAME, lanes, phi, at + uintp(splits[high, 0]) * LANE)
        stage[level] += 1
        if stage[level] <= 2:
            child = low if stage[level] == 1 else high
            if child >= 0:
                share, sign = (rho, 1.0) if stage[level] == 1 else (1.0 - rho, -1.0)
                descend(W, here, lanes, share, sign, h, row, points)
                level += ONE
                path[level], stage[level] = child, 0
            continue
        if not near_leaves(splits, low, high):
            leave(W, here, up, lanes, low < 0, high < 0, leaf, k, rho, h, c, row, points, phi, own)
        if level == 0:
            return
        level -= ONE


@njit(**KERNEL)
def path_values(splits, numbers, leaf, members, starts, points, nodes, weights, trees, depth, X, lanes, out):
    """out [n, d] += the values of some trees, each for all rows, while its constants are in the fast memory; n is a few 100."""
    count, d = X.shape
    blocks = (count + lanes - 1) // lanes
    x, phi = np.zeros(blocks * d * STRIDE), np.zeros(blocks * d * STRIDE)
    for b in range(count):
        for j in range(d):
            x[(b // lanes * d + j) * STRIDE + b % lanes] = X[b, j]
    W = np.empty((depth + 4) * SIZE)
    for level in range(depth + 4):  # a leaf beside a split counts as a split that adds nothing; but nothing times NaN is NaN
        for b in range(lanes):
            W[uintp(level) * FRAME + U + uintp(b)] = 0.0
    stage, path = np.zeros(depth + 3, np.int64), np.zeros(depth + 3, np.int64)
    h, c = np.empty((depth + 4, POINTS)), np.empty((depth + 4, POINTS))
    for tree in trees:
        if starts[tree] == starts[tree + 1]:
            continue
        q = points[tree]
        for k in range(q):
            for b in range(lanes):
                W[FRAME + uintp(k * STRIDE + b)] = weights[q, k]
        for block in range(blocks):
            through(
                starts[tree], splits, numbers, leaf, members, nodes, uintp(q), x, uintp(block * d * STRIDE), uintp(lanes), W, stage, path, h, c, phi
            )  # fmt: skip
    for b in range(count):
        for j in range(d):
            out[b, j] += phi[(b // lanes * d + j) * STRIDE + b % lanes]
