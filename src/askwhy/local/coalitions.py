"""Which coalitions to ask about for Shapley values, and the regression that reads the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

ENDLESS = 10**18  # sets of one size, of which nobody asks a share that counts
LISTED = 20_000  # sets of one size that are listed, and not drawn one by one
BLOCK = 8  # sets drawn at once: a longer design begins with a shorter one, whose answers are known


@dataclass(frozen=True, eq=False)
class Design:
    """Pairs of a coalition and its complement. Every coalition of one size is as likely as any other."""

    z: np.ndarray  # bool [k, d]: one of each pair
    weight: np.ndarray  # [k]: of the pair in the regression
    share: np.ndarray  # [k]: how likely the pair was to be drawn

    def pairs(self) -> np.ndarray:
        """bool [2 k, d]: each coalition, then its complement."""
        return np.stack([self.z, ~self.z], 1).reshape(-1, self.z.shape[1])


def everything(d: int) -> np.ndarray:
    """bool [2^d, d]: all coalitions; player i is present where bit i of the row's number is set."""
    return (np.arange(2**d)[:, None] >> np.arange(d) & 1).astype(bool)


def design(d: int, samples: int, seed: tuple[int, ...]) -> Design:
    """About `samples` coalitions in pairs, without repeats, as many of each size as there are (or all of that size).

    So each coalition is drawn with a probability in proportion to its leverage in the regression (Musco & Witter 2025).
    """
    sizes = np.arange(1, d // 2 + 1)
    there = np.array([float(min(comb(d, int(s)), ENDLESS)) for s in sizes]) / np.where(2 * sizes == d, 2, 1)  # pairs of each size
    wanted = fill(there, np.where(2 * sizes == d, 0.5, 1.0), max(samples // 2, 1))
    count = np.minimum(rounded(wanted, np.random.default_rng([*seed, 0])), there).astype(int)
    z = [draw(d, int(s), int(k), (*seed, int(s))) for s, k in zip(sizes, count, strict=True)]
    owner = np.repeat(np.arange(len(sizes)), count)
    both = np.where(2 * sizes == d, 1, 2)
    return Design(np.concatenate(z), (both * (d - 1) / (sizes * (d - sizes) * wanted))[owner], (wanted / there)[owner])


def fill(there: np.ndarray, share: np.ndarray, total: int) -> np.ndarray:
    """min(there, c share), with the c at which they sum to `total` (or to all there are)."""
    order = np.argsort(there / share)
    left, found = float(total), np.zeros(len(there))
    for place, k in enumerate(order):
        level = left / share[order[place:]].sum()
        found[k] = min(there[k], level * share[k])
        left -= found[k]
    return found


def rounded(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers next to the wanted ones, equal to them on average, with the same sum (systematic sampling)."""
    ends = np.floor(np.concatenate([[0.0], np.cumsum(wanted)]) + rng.random() + 1e-9)
    return np.diff(ends)


def draw(d: int, size: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """bool [count, d]: different sets of one size, the same first ones for every count; of a set and its complement only one."""
    rng = np.random.default_rng(seed)
    if comb(d, size) <= LISTED:
        members = np.array([c for c in combinations(range(d), size) if 2 * size != d or c[0] == 0])
        members = members[rng.permutation(len(members))[:count]]
    else:
        members = np.array(list(fresh(d, size, count, rng))).reshape(-1, size)
    z = np.zeros((len(members), d), dtype=bool)
    np.put_along_axis(z, members, True, axis=1)
    return z


def fresh(d: int, size: int, count: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Random sets, none of which comes twice."""
    seen: set[tuple[int, ...]] = set()
    while len(seen) < count:
        for row in np.sort(rng.random((BLOCK, d)).argsort(1)[:, :size], axis=1).tolist():
            members = tuple(row if 2 * size != d or row[0] == 0 else sorted(set(range(d)) - set(row)))
            if members not in seen and len(seen) < count:
                seen.add(members)
                yield members


# ---- the regression -------------------------------------------------------------------------------------------------


def odd(answers: np.ndarray) -> np.ndarray:
    """[2 k] -> [k]: half of what a coalition gains over its complement. Shapley values depend on nothing else."""
    return (answers[0::2] - answers[1::2]) / 2


def regress(found: Design, gains: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapley values [d] that sum to `total`, from gains [k] (see `odd`); their standard errors; and what the line leaves of the gains.

    Weighted least squares in which each coalition weighs as in the Shapley value (Lundberg & Lee 2017, in pairs: Covert &
    Lee 2021). The errors are sandwich errors of a sample without replacement, widened by Student's t for few pairs, so
    that 1.96 of them hold 95 %.
    """
    from scipy.stats import t

    k, d = found.z.shape
    x = found.z - found.z.mean(1, keepdims=True)
    middle = (found.z.sum(1) - d / 2) * total / d  # of the line in which all count alike
    gram = (x * found.weight[:, None]).T @ x
    bread = np.linalg.pinv(gram + np.trace(gram) / d, rcond=1e-10, hermitian=True)  # x has no part along (1, ..., 1)
    change = bread @ (x.T @ (found.weight * (gains - middle)))
    values = total / d + change - change.mean()
    left = gains - middle - x @ change
    lever = found.weight * ((x @ bread) * x).sum(1)
    pull = bread @ (x * (found.weight * left / np.sqrt(np.maximum(1 - lever, 0.05)))[:, None]).T  # [d, k]
    variance = (pull**2 * np.maximum(1 - found.share, 0)).sum(1)
    return values, np.sqrt(variance) * widened(t, k - d + 1), left


def widened(t: object, freedom: int) -> float:
    """Student's quantile over the normal one."""
    return float(t.ppf(0.975, max(freedom, 1)) / 1.96)  # type: ignore[attr-defined]


# ---- every coalition ------------------------------------------------------------------------------------------------


def exact(answers: np.ndarray) -> np.ndarray:
    """Shapley values [d] from v of all coalitions [2^d]: sum_S |S|! (d - |S| - 1)! / d! (v(S + i) - v(S))."""
    d = len(answers).bit_length() - 1
    z = everything(d)
    size = z.sum(1)
    weight = np.array([1 / (d * comb(d - 1, s)) for s in range(d)])
    rows = np.arange(2**d)
    without = [rows[~z[:, i]] for i in range(d)]
    return np.array([(weight[size[rest]] * (answers[rest | 1 << i] - answers[rest])).sum() for i, rest in enumerate(without)])


def interactions(answers: np.ndarray) -> np.ndarray:
    """[d, d]: half of each pair's Shapley interaction index off the diagonal, the rest of each value on it; rows sum to the values."""
    d = len(answers).bit_length() - 1
    z, rows = everything(d), np.arange(2**d)
    size = z.sum(1)
    weight = np.array([1 / ((d - 1) * comb(d - 2, s)) for s in range(d - 1)]) if d > 1 else np.empty(0)
    found = np.zeros((d, d))
    for i, j in combinations(range(d), 2):
        rest = rows[~(z[:, i] | z[:, j])]
        a, b = 1 << i, 1 << j
        both = answers[rest | a | b] - answers[rest | a] - answers[rest | b] + answers[rest]
        found[i, j] = found[j, i] = (weight[size[rest]] * both).sum() / 2
    found[np.diag_indices(d)] = exact(answers) - found.sum(1)
    return found
