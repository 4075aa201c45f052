"""Trees that learn the game from the coalitions that were asked, so that the regression has less to explain."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np

from askwhy.local.coalitions import Design, odd, regress

FEW = 400  # pairs from which on trees learn enough from half of them
SETTINGS = {"n_estimators": 60, "max_depth": 5, "learning_rate": 0.15, "subsample": 0.7}


def regress_on_trees(found: Design, gains: np.ndarray, total: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapley values [d] and standard errors: of the line, plus those of trees (exact), plus those of what both leave.

    Each fold of the pairs is left to trees that did not see it, so what they leave there stands for all coalitions that
    nobody asked about (the regression adjustment of Witter, Liu & Musco 2025, on pairs); of those that were asked, a
    `share` of all, it is known what the trees of all folds leave.
    """
    line, _, left = regress(found, gains, total)
    folds = 10 if len(left) < FEW else 2
    fold = np.random.default_rng([seed, 7]).permutation(len(left)) % folds
    grown = [grow(found.z[fold != k], left[fold != k], seed) for k in range(folds)]
    learned = np.mean([shapley_of_trees(trees, len(line)) for trees in grown], axis=0)
    rest = np.stack([left - odd(trees.predict(found.pairs())) for trees in grown])  # [folds, pairs]
    unseen = rest[fold, np.arange(len(left))]
    more, _, _ = regress(found, unseen + found.share * (rest.mean(0) - unseen), -learned.sum())
    _, error, _ = regress(found, unseen, -learned.sum())
    return line + learned + more, error


def grow(z: np.ndarray, gains: np.ndarray, seed: int) -> Any:
    """Boosted trees for the gains of coalitions; a complement has the same gain with the other sign."""
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(**SETTINGS, random_state=seed).fit(np.concatenate([z, ~z]), np.concatenate([gains, -gains]))


def shapley_of_trees(trees: Any, d: int) -> np.ndarray:
    """The Shapley values [d] of the game z -> trees(z).

    A leaf that needs the players A and forbids the players B adds its value times 1 / (|A| C(|A| + |B|, |A|)) to each of
    A, and takes 1 / (|B| C(|A| + |B|, |A|)) from each of B.
    """
    values = np.zeros(d)
    for (tree,) in trees.estimators_:
        for worth, needs, forbids in leaves(tree.tree_):
            ways = comb(len(needs) + len(forbids), len(needs))
            for players, sign in ((needs, 1), (forbids, -1)):
                for player in players:
                    values[player] += sign * worth / (len(players) * ways)
    return values * trees.learning_rate


def leaves(tree: Any) -> Iterator[tuple[float, frozenset[int], frozenset[int]]]:
    """(value, players that have to be present, players that have to be absent) of each leaf that can be reached."""
    left, right, feature, value = (a.tolist() for a in (tree.children_left, tree.children_right, tree.feature, tree.value[:, 0, 0]))
    waiting: list[tuple[int, frozenset[int], frozenset[int]]] = [(0, frozenset(), frozenset())]
    while waiting:
        node, needs, forbids = waiting.pop()
        if left[node] < 0:
            yield value[node], needs, forbids
            continue
        player = feature[node]
        if player not in needs:
            waiting.append((left[node], needs, forbids | {player}))
        if player not in forbids:
            waiting.append((right[node], needs | {player}, forbids))
