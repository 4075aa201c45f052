"""KL-LUCB: which of many coins come up heads often enough, found with few tosses (Kaufmann & Kalyanakrishnan 2013)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FIRST = 32  # tosses of each coin at once; later its tosses are doubled, so that there are few looks and large batches
ROUND = 1024  # tosses of several coins that go together where no more is known of which are needed

Toss = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # coins int [k], their tosses from, to [k] -> heads [k]


@dataclass(frozen=True)
class Aim:
    """What is looked for: coins with at least this share of heads, the worthiest of them first."""

    precision: float
    delta: float  # how likely it may be that a bound is wrong
    samples: int  # the most tosses of one coin
    beam: int  # how many of the best are needed where none reaches it
    tolerance: float  # how much worse than the best these may be


@dataclass(frozen=True)
class Tally:
    """How the coins fell, and how much evidence, in nats, a bound needs: the truth lies beyond it with a probability of exp(-beta)."""

    heads: np.ndarray  # [k]
    tosses: np.ndarray  # [k]
    beta: float

    @property
    def share(self) -> np.ndarray:
        return self.heads / np.maximum(self.tosses, 1)

    def reaches(self, precision: float) -> np.ndarray:
        """bool [k]: whether the lower bound of the coin is at least that."""
        return (self.share >= precision) & (self.tosses * divergence(self.share, precision) >= self.beta)

    def may_reach(self, share: np.ndarray, delta: float) -> np.ndarray:
        """bool [k]: whether the coin's upper bound, if delta may fail, is at least that."""
        return (self.share >= share) | (self.tosses * divergence(self.share, share) <= math.log(1 / delta))

    def lower(self) -> np.ndarray:
        return 1 - upper(1 - self.share, self.tosses, self.beta)

    def upper(self) -> np.ndarray:
        return upper(self.share, self.tosses, self.beta)


def untossed(coins: int, beta: float) -> Tally:
    return Tally(np.zeros(coins), np.zeros(coins, int), beta)


def divergence(p: np.ndarray, q: np.ndarray | float) -> np.ndarray:
    """Kullback-Leibler, in nats, of a coin with the share p of heads from one with q."""
    from scipy.special import rel_entr

    return np.asarray(rel_entr(p, q) + rel_entr(1 - p, 1 - np.asarray(q)))


def upper(share: np.ndarray, tosses: np.ndarray, beta: float, halvings: int = 20) -> np.ndarray:
    """The largest q with tosses * divergence(share, q) <= beta."""
    low, high = share, np.ones_like(share)
    for _ in range(halvings):
        middle = (low + high) / 2
        near = tosses * divergence(share, middle) <= beta
        low, high = np.where(near, middle, low), np.where(near, high, middle)
    return high


def race(toss: Toss, most: np.ndarray, worth: np.ndarray, aim: Aim, tally: Tally) -> Tally:
    """Toss on until the worthiest coin that reaches the precision is known, or else the `beam` with most heads.

    most: [k], how often each can be tossed. worth: [k]; below 0 for a coin that is out of the question.
    """
    heads, tosses = tally.heads.copy(), tally.tosses.copy()
    tally = Tally(heads, tosses, tally.beta)
    enough = least(most, aim.precision, tally.beta)
    which = np.flatnonzero(tosses == 0)
    while True:
        if len(which):
            until = np.minimum(np.maximum(2 * tosses[which], FIRST), most[which])
            heads[which] += toss(which, tosses[which], until)
            tosses[which] = until
        which = hopeful(tally, most, worth, aim, enough)
        if not len(which) and not (tally.reaches(aim.precision) & (worth >= 0)).any():
            which = rivals(tally, most, aim)
        if not len(which):
            return tally


def least(most: np.ndarray, precision: float, beta: float, halvings: int = 20) -> np.ndarray:
    """[k]: the share of heads in all its tosses from which on a coin reaches the precision; NaN where no share is enough."""
    low, high = np.full(len(most), precision), np.ones(len(most))
    for _ in range(halvings):
        middle = (low + high) / 2
        reaches = most * divergence(middle, precision) >= beta
        low, high = np.where(reaches, low, middle), np.where(reaches, middle, high)
    return np.where(most * -math.log(precision) >= beta, high, np.nan)


def hopeful(tally: Tally, most: np.ndarray, worth: np.ndarray, aim: Aim, enough: np.ndarray) -> np.ndarray:
    """The worthiest coins that may well come to have enough heads, and are worth more than those that do.

    A coin that falls a little more often than asked cannot show it in so few tosses, and is given up early.
    """
    sure = tally.reaches(aim.precision) & (worth >= 0)
    likely = tally.may_reach(enough, aim.delta) & ~sure & (tally.tosses < most)
    found = np.flatnonzero(likely & (worth > worth[sure].max(initial=-1)))
    found = found[np.lexsort((-tally.share[found], -worth[found]))]
    cheap = np.maximum(tally.tosses[found], FIRST).cumsum() <= ROUND
    return found[: max(aim.beam, np.count_nonzero(cheap))]


def rivals(tally: Tally, most: np.ndarray, aim: Aim) -> np.ndarray:
    """The coins that leave open which are the best: the weakest bounds among these, the strongest among the others."""
    order = np.argsort(-tally.share, kind="stable")
    best, rest = order[: aim.beam], order[aim.beam :]
    if not len(rest):
        return rest
    low, high = tally.lower()[best], tally.upper()[rest]
    weak = best[low < high.max() - aim.tolerance]
    first = np.argsort(-high)[: aim.beam]
    strong = rest[first[high[first] > low.min() + aim.tolerance]]
    found = np.concatenate([weak, strong])
    return found[tally.tosses[found] < most[found]]
