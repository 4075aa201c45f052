"""The kernels for all rows: which one, in which portions, on all processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from askwhy.compiled.interactions import path_interactions
from askwhy.compiled.pairs import pair_values, shares
from askwhy.compiled.patterns import LONGEST, fill, gather_all, units
from askwhy.compiled.program import Program, quadrature
from askwhy.compiled.quadrature import STRIDE, path_values
from askwhy.game import Progress, counted

PORTION = 8 * STRIDE  # rows for which a tree's constants stay in the fast memory
TABLES = 2**22  # numbers in the tables of patterns that are kept at a time: 32 MB
PAIR, ENTRY, LOOK = 150.0, 2.0, 1.5  # nanoseconds of a pair of rows in a tree, of an entry of a table and point, of a bit of a row's pattern
Work = Callable[[int, int], None]


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(work: Work, n: int, portion: int, tick: Progress | None = None) -> None:
    """work(start, stop) for portions of n, on all processors; the kernels hold no lock. Plain threads, which survive a fork and can be stopped."""
    portions = [(start, min(start + portion, n)) for start in range(0, n, portion)]
    if len(portions) == 1 or processors() == 1:
        for start, stop in portions:
            work(start, stop)
            counted(tick, stop, n)
        return
    with ThreadPoolExecutor(processors()) as pool:
        try:
            futures = [pool.submit(work, start, stop) for start, stop in portions]
            for (_, stop), future in zip(portions, futures, strict=True):
                future.result()
                counted(tick, stop, n)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def even(n: int, most: int, unit: int) -> int:
    """The size of portions of n, at most `most`, that keep all processors busy; a multiple of `unit`."""
    rounds = -(-n // (most * processors()))
    return max(unit, min(most, -(-n // (rounds * processors() * unit)) * unit))


def own_trees(program: Program, output: int) -> tuple[np.ndarray, np.ndarray]:
    """The trees that answer for an output, and their leaves."""
    if len(program.leaf) > 1:
        return np.arange(len(program.features)), program.leaf[output]
    return np.flatnonzero(program.output == output), program.leaf[0]


def path_dependent(program: Program, output: int, X: np.ndarray, interactions: bool, tick: Progress | None = None) -> np.ndarray:
    """[n, d] or [n, d, d]: values of one raw score, from the covers of the training data."""
    trees, leaf = own_trees(program, output)
    nodes, weights = quadrature()
    n, d = X.shape
    out = np.zeros((n, d, d) if interactions else (n, d))
    kernel = path_interactions if interactions else path_values
    portion, lanes = layout(n, d, interactions)

    def work(start: int, stop: int) -> None:
        kernel(
            program.splits, program.numbers, leaf, program.members, program.starts, program.points, nodes, weights, trees, program.depth,
            X[start:stop], lanes, out[start:stop],
        )  # fmt: skip

    side_by_side(work, n, portion, tick)
    return out


def layout(n: int, d: int, interactions: bool) -> tuple[int, int]:
    """Rows in a portion, and how many of these go side by side: equal shares, up to what the fast memory holds."""
    most = STRIDE if not interactions or d <= 100 else STRIDE // 8
    portion = even(n, most if interactions else PORTION, 1)
    rounds = -(-portion // most)
    return portion, -(-portion // rounds)


def interventional(
    program: Program, output: int, X: np.ndarray, Z: np.ndarray, weights: np.ndarray, interactions: bool, tick: Progress | None = None
) -> np.ndarray:
    """[n, d] or [n, d, d]: values of one raw score against background rows Z [m, d]; weights [m], or [n, m] for the pairs."""
    trees, leaf = own_trees(program, output)
    n, d = X.shape
    out, both = np.zeros((n, d)), np.zeros((n, d, d) if interactions else (0, d, d))
    tabled, rest = trees[:0], trees
    if weights.ndim == 1 and not interactions:
        quick = worth_tables(program, trees, n, len(Z))
        tabled, rest = trees[quick], trees[~quick]
    if len(tabled):
        by_tables(program, leaf, tabled, X, Z, weights, out, tick)
    if len(rest):
        by_pairs(program, leaf, rest, X, Z, np.broadcast_to(weights, (n, len(Z))), out, both, tick)
    if not interactions:
        return out
    diagonal = np.einsum("ijj->ij", both)
    diagonal[:] = out - both.sum(2)
    return both


def worth_tables(program: Program, trees: np.ndarray, n: int, m: int) -> np.ndarray:
    """bool [trees]: whether tables of patterns cost less than going through all pairs."""
    size, work = sizes(program, trees)
    longest = program.features[trees]
    bits = np.diff(program.starts)[trees] * longest
    return (longest <= LONGEST) & (ENTRY * work + LOOK * n * bits < PAIR * n * m) & (size > 0)


def sizes(program: Program, trees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in the tables of each tree, and the work of filling them; nothing for paths that are too long."""
    found = np.zeros((2, len(trees)))
    for k, tree in enumerate(trees):
        if program.features[tree] <= LONGEST:
            first, stop = program.starts[tree], program.starts[tree + 1]
            found[:, k] = units(first, stop, program.splits, np.zeros(stop - first, np.int64))
    return found[0], found[1]


def by_tables(
    program: Program, leaf: np.ndarray, trees: np.ndarray, X: np.ndarray, Z: np.ndarray, weights: np.ndarray, out: np.ndarray, tick: Progress | None
) -> None:
    """Groups of trees whose tables fit into the memory: fill them, then look every row up."""
    nodes, parts = quadrature()
    size = sizes(program, trees)[0].astype(np.int64)
    done = 0
    for group in groups(size):
        chosen, offsets = trees[group], np.concatenate([[0], np.cumsum(size[group])])
        table = np.zeros(offsets[-1])

        def prepare(start: int, stop: int, chosen: np.ndarray = chosen, offsets: np.ndarray = offsets, table: np.ndarray = table) -> None:
            fill(
                chosen[start:stop], offsets[start:stop], program.starts, program.splits, program.numbers, leaf, program.members, nodes, parts,
                program.depth, Z, weights, table,
            )  # fmt: skip

        def look_up(start: int, stop: int, chosen: np.ndarray = chosen, offsets: np.ndarray = offsets, table: np.ndarray = table) -> None:
            gather_all(
                chosen, offsets, program.starts, program.splits, program.numbers, program.members, program.depth, X[start:stop], table,
                out[start:stop],
            )  # fmt: skip

        side_by_side(prepare, len(chosen), even(len(chosen), 4, 1))
        side_by_side(look_up, len(X), even(len(X), PORTION, 1))
        done += len(chosen)
        counted(tick, done, len(trees))


def groups(size: Sequence[int] | np.ndarray) -> Iterator[slice]:
    """Runs of trees that have at most TABLES numbers together, or one tree."""
    start, total = 0, 0
    for k, one in enumerate(size):
        if k > start and total + one > TABLES:
            yield slice(start, k)
            start, total = k, 0
        total += one
    if len(size):
        yield slice(start, len(size))


def by_pairs(
    program: Program, leaf: np.ndarray, trees: np.ndarray, X: np.ndarray, Z: np.ndarray, weights: np.ndarray, out: np.ndarray, both: np.ndarray,
    tick: Progress | None,
) -> None:  # fmt: skip
    """Every row with every background row."""
    share = shares(program.depth)

    def work(start: int, stop: int) -> None:
        pair_values(
            program.splits, program.numbers, leaf, program.members, program.starts, trees, program.depth, X[start:stop], Z, weights[start:stop],
            share, out[start:stop], both[start:stop] if len(both) else both,
        )  # fmt: skip

    side_by_side(work, len(X), even(len(X), 64, 1), tick)
