"""The search for the shortest rule that settles an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import Cancelled
from askwhy.game import Progress
from askwhy.local.bandit import FIRST, Aim, Tally, race, untossed
from askwhy.local.draws import MEASURE, SEARCH, TEST, Cases, Draws

Members = tuple[int, ...]  # the conditions of a rule, in the order in which they were added


@dataclass(frozen=True, eq=False)
class Rule:
    """What was found, and how it did on fresh cases under its first 0, 1, ... all conditions."""

    members: Members
    reached: bool
    stayed: np.ndarray  # [len(members) + 1]
    cases: np.ndarray  # [len(members) + 1]
    coverage: float
    d: int

    @property
    def shares(self) -> np.ndarray:
        return self.stayed / self.cases

    @property
    def values(self) -> np.ndarray:
        out = np.zeros(self.d)
        out[list(self.members)] = np.diff(self.shares)
        return out

    @property
    def std_error(self) -> np.ndarray:
        out, variance = np.full(self.d, np.nan), self.shares * (1 - self.shares) / self.cases
        out[list(self.members)] = np.sqrt(variance[1:] + variance[:-1])
        return out


def find(draws: Draws, aim: Aim, longest: int, seeds: list[int], steps: Steps) -> Rule:
    """The shortest rule that reaches the precision, measured again on cases that the search never saw."""
    rng = np.random.default_rng(seeds)
    members, reached = search(draws, aim, longest, rng, steps)
    steps.next(longest + 1)
    rules = as_masks([members[:k] for k in range(len(members) + 1)], len(draws))
    fresh = draws.cases(rules, MEASURE, rng, aim.samples)
    cases = np.minimum(fresh.most, [*[aim.samples // 4] * len(members), aim.samples])  # fewer are enough for the conditions one by one
    stayed = fresh.count(np.arange(len(rules)), np.zeros(len(rules), int), cases)
    steps.next(longest + 2)
    return Rule(members, reached, stayed, cases, float(draws.coverage(rules[-1:])[0]), len(draws))


def search(draws: Draws, aim: Aim, longest: int, rng: np.random.Generator, steps: Steps) -> tuple[Members, bool]:
    """Beam search from the empty rule.

    Its bounds are those of one rule at a time, and many rules are looked at; so the one that it proposes is tested on
    cases of its own, which keep the promise of `delta` for all tests together.
    """
    kept: list[Members] = []
    best: Members = ()
    bound, tests = -1.0, 0
    usable = np.flatnonzero(draws.coverage(np.eye(len(draws), dtype=bool)) < 1 - 1e-9)
    for size in range(longest + 1):
        steps.next(size)
        rules = grown(kept, usable) if size else [()]
        masks = as_masks(rules, len(draws))
        cases = draws.cases(masks, SEARCH, rng, aim.samples)
        worth = np.where(cases.most < min(FIRST, aim.samples), -1, draws.coverage(masks))
        if not (worth >= 0).any():
            break
        tally = race(cases.count, cases.most, worth, aim, untossed(len(rules), math.log(1 / aim.delta)))
        while (k := worthiest(tally, worth, aim)) is not None:
            tests += 1
            if holds(draws.cases(masks[k : k + 1], TEST, rng, aim.samples), aim, tests):
                return rules[k], True
            worth[k] = -1
            tally = race(cases.count, cases.most, worth, aim, tally)
        lower = np.where(cases.most < FIRST, -1, tally.lower())
        if lower.max() > bound:
            best, bound = rules[int(lower.argmax())], float(lower.max())
        kept = [rules[k] for k in np.argsort(-np.where(cases.most < FIRST, -1, tally.share), kind="stable")[: aim.beam]]
    return best, False


def worthiest(tally: Tally, worth: np.ndarray, aim: Aim) -> int | None:
    """Of those that seem to reach the precision, the one for most cases."""
    found = np.flatnonzero(tally.reaches(aim.precision) & (worth >= 0))
    return int(found[np.lexsort((-tally.share[found], -worth[found]))[0]]) if len(found) else None


def holds(cases: Cases, aim: Aim, test: int) -> bool:
    """Whether the lower bound of one rule reaches the precision; all tests together fail with a probability of at most delta."""
    stayed = cases.count(np.zeros(1, int), np.zeros(1, int), cases.most)[0]
    return lowest(stayed, int(cases.most[0]), aim.delta / (test * (test + 1))) >= aim.precision


def fewest(aim: Aim) -> int:
    """The cases that the first test needs of a rule that never fails."""
    return math.ceil(math.log(aim.delta / 2) / math.log(aim.precision))


def grown(kept: list[Members], usable: np.ndarray) -> list[Members]:
    """Each rule with one condition more, each set of conditions once."""
    found: dict[frozenset[int], Members] = {}
    for rule in kept:
        for k in usable.tolist():
            if k not in rule:
                found.setdefault(frozenset((*rule, k)), (*rule, k))
    return list(found.values())


def as_masks(rules: Sequence[Members], d: int) -> np.ndarray:
    masks = np.zeros((len(rules), d), bool)
    for mask, rule in zip(masks, rules, strict=True):
        mask[list(rule)] = True
    return masks


def lowest(stayed: float, cases: int, delta: float) -> float:
    """The share lies below this with a probability of at most delta."""
    from scipy.special import betaincinv

    return float(betaincinv(stayed, cases - stayed + 1, delta)) if stayed else 0.0


@dataclass
class Steps:
    """Progress, counted in sizes of rules, since nobody knows how many cases the next will need."""

    tick: Progress | None
    total: int
    done: int = 0

    def again(self, done: int = 0, total: int = 0) -> Any:
        return None if self.tick is None else self.tick(self.done, self.total)

    def next(self, done: int) -> None:
        self.done = done
        if self.again() is False:
            raise Cancelled(f"stopped before rules of {done} conditions.")
