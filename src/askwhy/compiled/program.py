"""What the compiled kernels need of a forest: its splits in depth first order, with what the training data say about each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit

from askwhy.compiled.quadrature import CATEGORICAL, MISSING_LEFT, NUMERIC, POINTS
from askwhy.errors import UnsupportedError
from askwhy.models.forest import Forest


@dataclass(frozen=True, eq=False)
class Program:
    """The inner nodes of all trees in depth first order; leaves are numbers at the nodes above them."""

    splits: np.ndarray  # int32 [splits, 6]: feature, inner child on the left, on the right (-1: a leaf), level of the last split on the
    # same feature above (-1: none), kind, row of members
    numbers: np.ndarray  # float64 [splits, 3]: threshold, share of the data that goes left, share kept by the splits above on its feature
    leaf: np.ndarray  # float64 [v, splits, 2]: the values of leaves on the left and on the right
    members: np.ndarray  # bool [categorical splits, codes + 1]; the last is for a missing value
    starts: np.ndarray  # int64 [trees + 1]
    features: np.ndarray  # int64 [trees]: how many different ones the longest path has
    output: np.ndarray  # int64 [trees]
    depth: int  # levels of splits
    expected: np.ndarray  # float64 [k]: the mean raw score as the covers have it
    largest: float  # the sum over the trees of their largest leaves, by magnitude
    unseen: int  # splits that no training data reached; half of the weight goes to either side

    @property
    def points(self) -> np.ndarray:
        """int64 [trees]: how many points the quadrature needs to be exact."""
        return np.maximum(1, (self.features + 1) // 2)


@lru_cache(1)
def quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points and weights on 0 to 1: row q has q of them."""
    points, weights = np.zeros((POINTS + 1, POINTS)), np.zeros((POINTS + 1, POINTS))
    for q in range(1, POINTS + 1):
        at, weight = np.polynomial.legendre.leggauss(q)
        points[q, :q], weights[q, :q] = (at + 1) / 2, weight / 2
    return points, weights


def program_of(forest: Forest) -> Program:
    """Raises UnsupportedError for a path with more different features than the quadrature is exact for."""
    inner = int((forest.left >= 0).sum())
    splits, numbers = np.zeros((inner, 6), np.int32), np.zeros((inner, 3))
    leaf, trees = np.zeros((forest.value.shape[1], inner, 2)), len(forest.roots)
    starts, features, expected = np.zeros(trees + 1, np.int64), np.zeros(trees, np.int64), np.zeros((trees, len(leaf)))
    depth, unseen = annotate(
        forest.left, forest.right, forest.feature, forest.cover, forest.value, forest.roots, splits, numbers, leaf, starts, features, expected
    )
    if features.max(initial=0) > 2 * POINTS:
        raise UnsupportedError(
            f"a path of tree {features.argmax()} asks for {features.max()} different features; tree_shap is exact up to {2 * POINTS}."
        )
    nodes = in_order(forest.left, forest.right, forest.roots, inner)
    numbers[:, 0] = forest.threshold[nodes]
    sets = forest.category[nodes]
    splits[:, 4] = np.where(sets >= 0, CATEGORICAL, np.where(forest.default_left[nodes], MISSING_LEFT, NUMERIC))
    splits[:, 5] = np.maximum(sets, 0)
    members = np.zeros((max(len(forest.members), 1), forest.members.shape[1] + 1), bool)
    members[: len(forest.members), :-1] = forest.members
    members[splits[sets >= 0, 5], -1] = forest.default_left[nodes][sets >= 0]
    mean = forest.base + (expected.sum(0) if len(leaf) > 1 else np.bincount(forest.output, expected[:, 0], len(forest.base)))
    most = np.where(np.diff(starts) > 0, 0.0, np.abs(forest.value[forest.roots]).max(1))  # a tree that never split has a leaf too
    np.maximum.at(most, np.repeat(np.arange(trees), np.diff(starts)), np.abs(leaf).max((0, 2)))
    return Program(splits, numbers, leaf, members, starts, features, forest.output.astype(np.int64), depth, mean, float(most.sum()), unseen)


@njit(cache=True, nogil=True, error_model="numpy")
def in_order(left, right, roots, inner):
    """int64 [splits]: the node of the forest that each split is."""
    found, k = np.empty(inner, np.int64), 0
    stack = np.empty(len(left) + 1, np.int64)
    for root in roots:
        stack[0], size = root, 1
        while size > 0:
            size -= 1
            node = stack[size]
            if left[node] >= 0:
                found[k] = node
                k += 1
                stack[size], stack[size + 1] = right[node], left[node]
                size += 2
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def annotate(left, right, feature, cover, value, roots, splits, numbers, leaf, starts, features, expected):
    """Fill what depends on the way to a node; the levels of splits, and how many have no cover."""
    nodes = len(left) + 1
    stack, parent, side = np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    level, weight = np.empty(nodes, np.int64), np.empty(nodes)
    path, taken, distinct = np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.zeros(nodes + 1, np.int64)
    k, depth, unseen = 0, 0, 0
    for tree in range(len(roots)):
        stack[0], parent[0], side[0], level[0], weight[0] = roots[tree], -1, 0, 0, 1.0
        size = 1
        while size > 0:
            size -= 1
            node, above, which, at, share = stack[size], parent[size], side[size], level[size], weight[size]
            if at > 0:
                taken[at - 1] = which
            if left[node] < 0:
                features[tree] = max(features[tree], distinct[at])
                expected[tree] += share * value[node]
                if above >= 0:
                    leaf[:, above, which] = value[node]
                    splits[above, 1 + which] = -1
                continue
            f = feature[node]
            prior, kept = at - 1, 1.0
            while prior >= 0 and splits[path[prior], 0] != f:
                prior -= 1
            if prior >= 0:
                rho = numbers[path[prior], 1]
                kept = numbers[path[prior], 2] * (1.0 - rho if taken[prior] else rho)
            both = cover[left[node]] + cover[right[node]]
            unseen += not both > 0
            rho = cover[left[node]] / both if both > 0 else 0.5
            splits[k, 0], splits[k, 3] = f, prior
            numbers[k, 1], numbers[k, 2] = rho, kept
            path[at], distinct[at + 1] = k, distinct[at] + (prior < 0)
            if above >= 0:
                splits[above, 1 + which] = k
            depth = max(depth, at + 1)
            for child, number, part in ((right[node], 1, 1.0 - rho), (left[node], 0, rho)):
                stack[size], parent[size], side[size], level[size], weight[size] = child, k, number, at + 1, share * part
                size += 1
            k += 1
        starts[tree + 1] = k
    return depth, unseen
