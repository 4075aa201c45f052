"""Expected gradients: integrated gradients, averaged over a background of inputs instead of one baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.absence import absent
from askwhy.answer import answer
from askwhy.checks import whole
from askwhy.components import undivided
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.game import Progress, progress_of
from askwhy.local.path import Lines, residual
from askwhy.local.slopes import Slopes, check_floats, need_torch, slopes
from askwhy.models.base import to_numpy
from askwhy.registry import method
from askwhy.score import Score, ask

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

CELLS = 10  # groups of samples, about, whose spread is the standard error


@method(
    title="Expected gradients",
    needs="gradients",
    inputs=("image", "table", "text", "several", "other"),
    asks="On the way from typical inputs to this one, how much of the score's change came through each number of the input?",
    reads="positive: this number, compared with those of the background, raised the score; negative: lowered it. The sum is the score minus its mean on the background",
    paper="Erion et al. 2021, https://arxiv.org/abs/1906.10670",
)
def expected_gradients(
    model: Any, x: Any, target: Any = None, *, background: Any, versus: Any = None, samples: int = 200, seed: int = 0,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """E[(x - b) dS/dx at b + a (x - b)] over rows b of `background` [k, *item] and a in 0..1: shaped like x, score units.

    Also called GradientSHAP. Every row is used equally often, to within one, and counts the same; the places a are
    stratified. The sum is S(x) minus the mean of S over the background (`base_value`), up to `residual`, relative to that
    change. std_error: from the spread between groups of samples; on the safe side for fewer than 2 samples a row.
    Erion et al. 2021. Raises InputError, UnsupportedError.
    Example: `askwhy.expected_gradients(net, x, background=train[:100], samples=400).plot()`.
    """
    whole("samples", samples, 2, why=", better some hundred")
    score = ask(model, x, target, versus)
    need_torch(score)
    check_floats(score)
    score.predict()
    rows = rows_of(background, score)
    n, k = len(score), len(rows)
    lines = Lines(rows, np.tile(np.arange(k), n), np.repeat(np.arange(n), k), score.items.batch)
    plans = [plan(k, int(samples), np.random.default_rng([seed, i])) for i in range(n)]
    with slopes(score, n * samples, lines.samples(), 0, batch_size) as at, progress_of(progress, "expected_gradients") as tick:
        base = levels(at, lines)
        values, errors = sampled(at, lines, plans, tick)
    return answer(score, to_numpy(values), base_value=base, residual=residual(values, score.prediction, base), std_error=errors)


def rows_of(background: Any, score: Score) -> torch.Tensor:
    """The background [k, *item] as the model takes it."""
    batch = score.items.batch
    if background is None or isinstance(background, str):
        raise InputError(
            f"background={background!r}: give rows [k, {', '.join(map(str, batch.shape[1:]))}] of typical inputs, say 100 of the training data."
        )
    rows, _ = absent(background, score.items, 0, undivided(score.items))
    return torch.as_tensor(np.ascontiguousarray(rows)).to(batch.device, batch.dtype)


@dataclass
class Plan:
    """Which background row each sample takes, and where on its line."""

    row: np.ndarray  # [s]
    where: np.ndarray  # [s], in 0..1
    weight: np.ndarray  # [s], the sum is 1
    cell: np.ndarray  # [s]
    block: np.ndarray  # [cells]: cells of one block answer the same question independently of each other


def plan(k: int, samples: int, rng: np.random.Generator) -> Plan:
    """Rows as equally often as possible, and in all with the same weight; places stratified in each cell.

    The rows fall into blocks of rows that are used equally often, and a block's turns into cells: they differ by chance
    only, and neither by rows nor by places. With fewer than two turns a row, cells have different rows, so that their
    spread is that of the rows, too.
    """
    turns, extra = divmod(samples, k)
    order = rng.permutation(k)
    if turns < 2:
        blocks = [np.array_split(np.concatenate([order[: turns * k], order[:extra]]), min(CELLS, samples))]
    else:
        parts = [(order[:extra], turns + 1), (order[extra:], turns)]
        blocks = [cells for rows, times in parts for cells in blocks_of(rows, times)]
    cells = [cell for block in blocks for cell in block]
    row = np.concatenate(cells)
    where = np.concatenate([(rng.permutation(len(cell)) + rng.random(len(cell))) / len(cell) for cell in cells])
    weight = 1 / np.bincount(row, minlength=k)[row]
    which = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    return Plan(row, where, weight / weight.sum(), which, np.repeat(np.arange(len(blocks)), [len(block) for block in blocks]))


def blocks_of(rows: np.ndarray, turns: int) -> list[list[np.ndarray]]:
    """Cells of blocks of rows, enough for a standard error: at most ten cells a block, and the more blocks the fewer cells."""
    if len(rows) == 0:
        return []
    groups = min(turns, CELLS)
    count = min(len(rows), -(-(CELLS - 1) // (groups - 1)))
    return [[np.tile(block, len(some)) for some in np.array_split(np.arange(turns), groups)] for block in np.array_split(rows, count)]


def sampled(at: Slopes, lines: Lines, plans: list[Plan], tick: Progress | None) -> tuple[torch.Tensor, np.ndarray]:
    """The values [n, *item] and their standard error."""
    k, samples = len(lines.starts), len(plans[0].row)
    line = np.concatenate([i * k + p.row for i, p in enumerate(plans)])
    where, weight = (np.concatenate([getattr(p, name) for p in plans]) for name in ("where", "weight"))
    sizes = [len(p.block) for p in plans]
    cell = np.concatenate([p.cell + sum(sizes[:i]) for i, p in enumerate(plans)])
    total = lines.nothing()
    sums = torch.zeros((sum(sizes), *total.shape[1:]), dtype=total.dtype, device=total.device)

    def use(chunk: slice, gradients: torch.Tensor) -> None:
        part = lines.through(line[chunk], gradients)
        lines.add(total, line[chunk], weight[chunk], part)
        sums.index_add_(0, torch.as_tensor(cell[chunk]).to(sums.device), part)

    at(np.repeat(np.arange(len(plans)), samples), lambda start, stop: lines.at(line[start:stop], where[start:stop]), use, tick)
    found = at.score.items.shown(to_numpy(sums))
    means = found / np.bincount(cell).reshape(-1, *[1] * (found.ndim - 1))
    return total, np.stack([standard_error(own, p) for own, p in zip(np.split(means, np.cumsum(sizes)[:-1]), plans, strict=True)])


def standard_error(means: np.ndarray, p: Plan) -> np.ndarray:
    """Of the weighted sum of the blocks, from the means of their cells [cells, *item]."""
    variance = np.zeros(means.shape[1:])
    for block in range(p.block[-1] + 1):
        cells = np.flatnonzero(p.block == block)
        variance += p.weight[np.isin(p.cell, cells)].sum() ** 2 * means[cells].var(0, ddof=1) / len(cells)
    return np.sqrt(variance)


def levels(at: Slopes, lines: Lines) -> np.ndarray:
    """The mean score on the background, [n]; asked once where all items have one question."""
    score, k = at.score, len(lines.starts)
    asked = {(score.targets[i], None if score.versus is None else score.versus[i]) for i in range(len(score))}
    many = k if len(asked) == 1 else len(lines)
    found = at.levels(lines.owner[:many], lambda start, stop: lines.starts[lines.origin[start:stop]])
    return np.resize(found, len(lines)).reshape(-1, k).mean(1)
