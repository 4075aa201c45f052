"""Interventional Shapley values of trees: the mean over pairs of a row and a background row, compiled by numba.

For one pair, a leaf counts for a coalition if all features that only the row keeps on the path are in it (a of them), and all that only
the background row keeps are not (b of them). Each of the first gets (a - 1)! b! / (a + b)! of the leaf's value, each of the
others loses a! (b - 1)! / (a + b)! of it (Lundberg et al. 2020). The walk visits only leaves that some mixture of the two reaches.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.special import beta

from askwhy.compiled.options import KERNEL, LEAN
from askwhy.compiled.quadrature import CATEGORICAL, MISSING_LEFT, belongs

ROW, OTHER = 1, 2  # whose value a feature has on this walk, where the two would go different ways


def shares(most: int) -> np.ndarray:
    """[most + 2, most + 2]: B(a, b), the integral of t^(a - 1) (1 - t)^(b - 1); 0 where a or b is 0."""
    count = np.arange(most + 2.0)
    with np.errstate(all="ignore"):
        found = beta(count[:, None], count[None])
    return np.where(np.isfinite(found), found, 0.0)


@njit(**KERNEL)
def ways(X, splits, numbers, members, first, stop):
    """bool [n, splits of a tree]: where each row would go at each split."""
    found = np.empty((len(X), stop - first), np.bool_)
    for k in range(first, stop):
        kind, threshold, f, row = splits[k, 4], numbers[k, 0], splits[k, 0], splits[k, 5]
        for i in range(len(X)):
            if kind == CATEGORICAL:
                found[i, k - first] = belongs(X[i, f], members, row)
            elif kind == MISSING_LEFT:
                found[i, k - first] = not X[i, f] > threshold
            else:
                found[i, k - first] = X[i, f] <= threshold
    return found


@njit(**LEAN)
def one_pair(first, splits, leaf, way_x, way_z, weight, share, state, turns, features, phi, pairs):
    """Add what one tree says of one pair: to phi [d], and to pairs [d, d] where that has rows."""
    level, a, b, k = 0, 0, 0, first
    while True:
        below = k
        while below >= 0:  # down to a leaf
            k = below
            here_x, here_z, f = way_x[k - first], way_z[k - first], splits[k, 0]
            if here_x != here_z and state[f] == 0:
                state[f], turns[level], features[level] = ROW, k, f
                level, a = level + 1, a + 1
            side = 0 if (here_z if state[f] == OTHER else here_x) else 1
            below = splits[k, 1 + side]
        value = leaf[k, side] * weight
        for e in range(level):
            f = features[e]
            phi[f] += value * share[a, b + 1] if state[f] == ROW else -value * share[a + 1, b]
            for other in range(e if len(pairs) > 0 else 0):
                g = features[other]
                if state[f] != state[g]:
                    both = -value * share[a, b]
                else:
                    both = value * (share[a - 1, b + 1] if state[f] == ROW else share[a + 1, b - 1])
                pairs[f, g] += both / 2
                pairs[g, f] += both / 2
        while level > 0 and state[features[level - 1]] == OTHER:  # back to the last turn whose other side is open
            level, b = level - 1, b - 1
            state[features[level]] = 0
        if level == 0:
            return
        k, a, b = turns[level - 1], a - 1, b + 1
        state[features[level - 1]] = OTHER


@njit(**KERNEL)
def pair_values(splits, numbers, leaf, members, starts, trees, depth, X, Z, weights, share, out, both):
    """out [n, d] += the values of some trees, and both [n, d, d], if it has rows, += the interactions; weights [n, m] of the pairs."""
    d = X.shape[1]
    nothing = np.zeros((0, 0))
    state, turns, features = np.zeros(d, np.int64), np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    for tree in trees:
        first, stop = starts[tree], starts[tree + 1]
        if first == stop:
            continue
        way_x, way_z = ways(X, splits, numbers, members, first, stop), ways(Z, splits, numbers, members, first, stop)
        for i in range(len(X)):
            pairs = both[i] if len(both) > 0 else nothing
            for j in range(len(Z)):
                one_pair(first, splits, leaf, way_x[i], way_z[j], weights[i, j], share, state, turns, features, out[i], pairs)
