"""The cases that a rule is judged by: rows of a table, mixed rows, or parts of one item that come and go."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.components import Components
from askwhy.game import Game, Progress, batch_size_for, in_chunks
from askwhy.local.decision import Stays
from askwhy.score import Score
from askwhy.tables import Column

SEARCH, TEST, MEASURE = 0, 1, 2  # purposes that share no case


@dataclass(frozen=True)
class Cases:
    """Of each of some rules, the cases that it speaks of, in a random order."""

    stay: Callable[[np.ndarray, np.ndarray], np.ndarray]  # rules int [m], which of their cases int [m] -> whether the answer stays there, bool [m]
    most: np.ndarray  # [rules]: how many cases there are

    def count(self, rules: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """In how many of the cases start..stop the answer stays, for each of these rules; all are asked in one batch."""
        lengths = stop - start
        owner = np.repeat(np.arange(len(rules)), lengths)
        which = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + start[owner]
        return np.bincount(owner, self.stay(rules[owner], which), len(rules))


@dataclass(frozen=True)
class Draws:
    """What rules about one item are made of, and judged by."""

    components: Components  # the conditions
    coverage: Callable[[np.ndarray], np.ndarray]  # rules bool [r, d] -> the share of all that they speak of, [r]
    cases: Callable[[np.ndarray, int, np.random.Generator, int], Cases]  # rules, purpose, chance, how many of each at most

    def __len__(self) -> int:
        return len(self.components)


def of_parts(v: Game, stays: Stays) -> Draws:
    """Parts outside the rule are shown with probability 1/2."""

    def cases(rules: np.ndarray, purpose: int, rng: np.random.Generator, samples: int) -> Cases:
        shown = rng.random((samples, len(v))) < 0.5
        return Cases(lambda rule, which: stays(v(rules[rule] | shown[which])), np.full(len(rules), samples))

    return Draws(v.components, lambda rules: 0.5 ** rules.sum(1), cases)


# ---- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Table:
    """Background rows, and the bin of each value."""

    rows: np.ndarray  # [k, d]
    weights: np.ndarray  # [k], their sum is 1
    columns: list[Column]
    codes: np.ndarray  # [k, d]
    groups: Components  # of the columns

    def conditions(self, row: np.ndarray) -> tuple[Components, np.ndarray]:
        """What a rule can say about a row, and where it holds: bool [conditions, k]."""
        own = np.array([column.codes(row[k : k + 1])[0] for k, column in enumerate(self.columns)])
        members = [np.flatnonzero(self.groups.labels == g) for g in range(len(self.groups))]
        holds = np.stack([(self.codes[:, which] == own[which]).all(1) for which in members])
        names = [
            self.columns[which[0]].says(own[which[0]]) if len(which) == 1 else f"{title} as here"
            for which, title in zip(members, self.groups.names, strict=True)
        ]
        return Components(tuple(names), self.groups.labels), holds

    def coverage(self, holds: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda rules: np.array([holds[rule].all(0) @ self.weights for rule in rules])


@dataclass(eq=False)
class Known:
    """What the model answers on the background rows, each asked once for all items and rules."""

    rows: np.ndarray
    answers: np.ndarray  # [k]; NaN: not asked yet

    def __call__(self, which: np.ndarray, ask: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        new = np.unique(which[np.isnan(self.answers[which])])
        if len(new):
            self.answers[new] = ask(self.rows[new])
        return self.answers[which]


def of_rows(table: Table, row: np.ndarray, ask: Callable[[np.ndarray], np.ndarray], stays: Stays, known: Known, seed: int) -> Draws:
    """The background rows that satisfy a rule: two fifths of them for the search, as many for its tests, a fifth to measure."""
    named, holds = table.conditions(row)
    order, cuts = np.random.default_rng(seed).permutation(len(table.rows)), [2 * len(table.rows) // 5, 4 * len(table.rows) // 5]
    shuffled = np.ascontiguousarray(holds[:, order])

    def cases(rules: np.ndarray, purpose: int, rng: np.random.Generator, samples: int) -> Cases:
        inside = [np.split(shuffled[rule].all(0), cuts) for rule in rules]
        found = [np.flatnonzero(one[purpose])[:samples] for one in inside]
        most = np.array([min(map(np.count_nonzero, one)) for one in inside])
        lengths = np.array([len(one) for one in found])
        together, starts = np.split(order, cuts)[purpose][np.concatenate(found)], lengths.cumsum() - lengths
        return Cases(lambda rule, which: stays(known(together[starts[rule] + which], ask)), np.minimum(most, lengths))

    return Draws(named, table.coverage(holds), cases)


def of_mixed_rows(table: Table, row: np.ndarray, ask: Callable[[np.ndarray], np.ndarray], stays: Stays) -> Draws:
    """Any background row, whose columns in the rule take values of other rows where they are not in the item's bins.

    Case k of several rules is the same but for their conditions, so that they are compared on equal terms, and nothing
    new is asked where a condition already holds.
    """
    named, holds = table.conditions(row)
    givers = [np.flatnonzero(inside) for inside in holds]
    rows = np.concatenate([table.rows, row[None]])  # the item itself gives what no background row has
    draw, draws = by_weight(table.weights), [by_weight(table.weights[found]) for found in givers]

    def cases(rules: np.ndarray, purpose: int, rng: np.random.Generator, samples: int) -> Cases:
        base = draw(rng, samples)
        given = [found[one(rng, samples)] if len(found) else np.full(samples, len(rows) - 1) for found, one in zip(givers, draws, strict=True)]
        giver, inside = np.stack(given, 1), holds.T[base]
        known: dict[bytes, bool] = {}

        def stay(rule: np.ndarray, which: np.ndarray) -> np.ndarray:
            which, taken, keys, back = different(which, rules[rule] & ~inside[which])
            new = np.array([key not in known for key in keys])
            if new.any():
                source = np.where(taken[new], giver[which[new]], base[which[new], None])[:, named.labels]
                asked = stays(ask(rows[source, np.arange(rows.shape[1])]))
                known.update(zip(itertools.compress(keys, new), asked.tolist(), strict=True))
            return np.array([known[key] for key in keys])[back]

        return Cases(stay, np.full(len(rules), samples))

    return Draws(named, table.coverage(holds), cases)


def by_weight(weights: np.ndarray) -> Callable[[np.random.Generator, int], np.ndarray]:
    """How to draw so many places by their weights."""
    if not len(weights) or weights.min() == weights.max():
        return lambda rng, count: rng.integers(len(weights), size=count)
    heap = weights.cumsum()
    return lambda rng, count: np.searchsorted(heap[:-1], rng.random(count) * heap[-1], side="right")


def different(which: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[bytes], np.ndarray]:
    """Each pair of a case and what it takes once, a key for each, and where each is among these."""
    key = np.concatenate([which.astype(">u4")[:, None].view(np.uint8), np.packbits(taken, axis=1)], 1)
    keys, first, back = np.unique(np.ascontiguousarray(key).view(f"V{key.shape[1]}").ravel(), return_index=True, return_inverse=True)
    return which[first], taken[first], keys.tolist(), back


def asking(score: Score, item: int, batch_size: int | str, tick: Progress | None) -> Callable[[np.ndarray], np.ndarray]:
    """Rows [m, d] -> scores [m]."""
    x, model = score.items.batch[item], score.model
    nothing = np.zeros((1, 1), bool)

    def ask(rows: np.ndarray) -> np.ndarray:
        given: Any = x.new_tensor(rows) if hasattr(x, "detach") else rows
        expect = getattr(model, "expect", None)
        if expect is not None:
            expect(len(rows))
        work = lambda start, stop: score.evaluate(model.compose(nothing, x, given[start:stop]), item)  # noqa: E731
        with model.untouched():
            return in_chunks(len(rows), work, batch_size_for(score, batch_size), tick)

    return ask
