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

STRIDE = 64  # lanes from one part of a frame to the next
POINTS = 64  # of the quadrature, at most: 128 different features on one path
LANE, ONE = uintp(STRIDE), uintp(1)
LEFT = uintp(POINTS * STRIDE)  # parts of a frame: P, what is expected on the left, on the right
RIGHT = uintp(2 * POINTS * STRIDE)
RATIO = uintp(3 * POINTS * STRIDE)  # c u / g of the child that is being looked at, for interactions
U, O, J = uintp(4 * POINTS * STRIDE), uintp((4 * POINTS + 1) * STRIDE), uintp((4 * POINTS + 2) * STRIDE)  # noqa: E741
SIZE = (4 * POINTS + 3) * STRIDE
FRAME = uintp(SIZE)
NUMERIC, MISSING_LEFT, CATEGORICAL = 0, 1, 2
FAST = {"contract", "nsz"}  # a product and a sum in one step; nothing that changes what a NaN or an infinity does


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def belongs(code, members, row):
    """members [splits, codes + 1]: the last says where a missing value goes."""
    last = members.shape[1] - 1
    if np.isnan(code):
        return members[row, last]
    return 0 <= code < last and members[row, int(code)]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def enter(W, here, prior, from_left, lanes, rho):
    """u, o and j of a split, from s in j. prior: the frame of the last split above on the same feature, 0 if there is none."""
    if prior == 0:
        for b in range(lanes):
            W[here + O + b] = 1.0
            W[here + U + b] = W[here + J + b] - rho
        return
    for b in range(lanes):
        o = W[prior + J + b]
        o = o if from_left else W[prior + O + b] - o
        j = o * W[here + J + b]
        W[here + O + b] = o
        W[here + J + b] = j
        W[here + U + b] = j - o * rho


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def descend(W, here, lanes, share, sign, h, row, points):
    """The weight that arrives at a child."""
    for q in range(points):
        slope, part = sign * h[row, q], q * LANE
        for b in range(lanes):
            W[here + FRAME + part + b] = W[here + part + b] * (share + slope * W[here + U + b])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
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
    for b in range(lanes):
        phi[at + b] += W[here + J + b] * W[here + U + b]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def through(root, splits, numbers, leaf, members, t, points, x, at, lanes, W, stage, path, h, c, phi):
    """Send lanes of rows through one tree, in depth first order: stage 0 comes from above, 1 back from the left, 2 from the right."""
    for q in range(points):
        h[0, q], c[0, q] = t[points, q], 1.0
    level = uintp(0)
    path[0], stage[0] = root, 0
    while True:
        k = path[level]
        here, rho = (level + ONE) * FRAME, numbers[k, 1]
        row = level + ONE if splits[k, 3] >= 0 else uintp(0)
        low, high, own = splits[k, 1], splits[k, 2], at + uintp(splits[k, 0]) * LANE
        if stage[level] == 0:
            kind, prior = splits[k, 4], splits[k, 3]
            sides(W, here + J, x, own, lanes, kind, numbers[k, 0], members, splits[k, 5])
            enter(W, here, uintp(prior + 1) * FRAME, prior >= 0 and stage[prior] == 1, lanes, rho)
            if prior >= 0:
                r = numbers[k, 2]
                for q in range(points):
                    kept = t[points, q] + (1.0 - t[points, q]) * r
                    h[level + ONE, q], c[level + ONE, q] = t[points, q] / kept, r / (kept * kept)
        stage[level] += 1
        if stage[level] <= 2 and (low if stage[level] == 1 else high) >= 0:
            share, sign = (rho, 1.0) if stage[level] == 1 else (1.0 - rho, -1.0)
            descend(W, here, lanes, share, sign, h, row, points)
            level += ONE
            path[level], stage[level] = low if stage[level - ONE] == 1 else high, 0
            continue
        if stage[level] <= 2:
            continue
        if level > 0 and stage[level - ONE] == 2:
            leave(W, here, here - FRAME + RIGHT, lanes, low < 0, high < 0, leaf, k, rho, h, c, row, points, phi, own)
        else:
            leave(W, here, here - FRAME + LEFT, lanes, low < 0, high < 0, leaf, k, rho, h, c, row, points, phi, own)
        if level == 0:
            return
        level -= ONE


@njit(cache=True, nogil=True, error_model="numpy")
def path_values(splits, numbers, leaf, members, starts, points, nodes, weights, trees, depth, X, lanes, out):
    """out [n, d] += the values of some trees, each for all rows, while its constants are in the fast memory; n is a few 100."""
    count, d = X.shape
    blocks = (count + lanes - 1) // lanes
    x, phi = np.zeros(blocks * d * STRIDE), np.zeros(blocks * d * STRIDE)
    for b in range(count):
        for j in range(d):
            x[(b // lanes * d + j) * STRIDE + b % lanes] = X[b, j]
    W = np.empty((depth + 2) * SIZE)
    stage, path = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    h, c = np.empty((depth + 2, POINTS)), np.empty((depth + 2, POINTS))
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
