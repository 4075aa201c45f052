"""Path methods: the change of the score, added up on the way from an input that says nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy._memory import resident
from askwhy.absence import absent
from askwhy.answer import answer
from askwhy.checks import whole
from askwhy.components import undivided
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.game import Progress, progress_of
from askwhy.local.slopes import Slopes, check_floats, need_torch, slopes
from askwhy.models.base import Items, to_numpy
from askwhy.registry import method
from askwhy.score import Score, ask

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

FIRST = 17  # nodes of a line before its rough parts are refined
MOST = 512  # nodes of a line; one that is still rough then is taken as it is, and the residual says so
TOGETHER = 2**28  # bytes of gradients, about, that are kept while lines are refined together
RULES = ("gauss-legendre", "midpoint")


@method(
    title="Integrated gradients",
    needs="gradients",
    inputs=("image", "table", "text", "several", "other"),
    asks="On the way from an input that says nothing to this one, how much of the score's change came through each number of the input?",
    reads="positive: this number, compared with the baseline's, raised the score; negative: lowered it. The sum is the whole change",
    paper="Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365",
    preference=5,
)
def integrated_gradients(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, baseline: Any = "auto", steps: int | str = "auto", quadrature: str | None = None,
    tolerance: float = 1e-3, seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """(x - b) times the mean of dS/dx on the straight line from b to x: shaped like x, score units; the sum is S(x) - S(b).

    baseline b: "grey", "mean", "blur", "noise" (by `seed`), "zero", a number, an array, or several in a list or an array
    [k, *item], of which the mean is taken. steps: gradients on each line, by `quadrature` "gauss-legendre" (the default)
    or "midpoint". "auto" halves the intervals in which the score changes otherwise than the slopes at their ends say,
    until the residual is below `tolerance`, or 512 gradients are spent, which details["note"] tells.
    residual: (sum - change) / |change|, at least relative to a thousandth of the score. Sundararajan et al. 2017.
    Raises InputError, UnsupportedError. Example: `askwhy.integrated_gradients(net, x, baseline="blur").plot()`.
    """
    check_steps(steps, quadrature, tolerance)
    score = ask(model, x, target, versus)
    need_torch(score)
    check_floats(score)
    score.predict()
    lines, name = straight_lines(score, baseline, seed)
    calls = len(lines) * (steps if isinstance(steps, int) else FIRST)
    with slopes(score, calls, lines.samples(), 0, batch_size) as at, progress_of(progress, "integrated_gradients") as tick:
        base = lines.mean(at.levels(lines.owner, lambda start, stop: lines.at(np.arange(start, stop), np.zeros(stop - start))))
        if isinstance(steps, str):
            values, details = adaptive(at, lines, allowed_gap(score, base, tolerance), tick)
        else:
            values, details = fixed(at, lines, *rule(quadrature or RULES[0], steps), tick), {}
    params = {"baseline": name, "quadrature": quadrature or ("adaptive trapezoid" if isinstance(steps, str) else RULES[0])}
    return answer(score, to_numpy(values), base_value=base, residual=residual(values, score.prediction, base), params=params, details=details)


def check_steps(steps: Any, quadrature: Any, tolerance: float) -> None:
    """One clear message for each wrong setting."""
    if steps != "auto":
        whole("steps", steps, 1, instead="'auto' or ")
    if quadrature is not None and quadrature not in RULES:
        raise InputError(f"quadrature={quadrature!r}: choose {' or '.join(map(repr, RULES))}.")
    if quadrature is not None and steps == "auto":
        raise InputError(f"quadrature={quadrature!r} belongs to a number of steps; give steps= too, or leave quadrature out.")
    if not tolerance > 0:
        raise InputError(f"tolerance={tolerance}: the gap that is allowed, relative to the change of the score, has to be positive.")


# ---- lines --------------------------------------------------------------------------------------------------------


@dataclass
class Lines:
    """Straight lines, each from a start to an item of the batch; every item has as many."""

    starts: torch.Tensor  # [k, *item]
    origin: np.ndarray  # [p]: the start of each line
    owner: np.ndarray  # [p]: the item at its end
    batch: torch.Tensor  # [n, *item]

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def share(self) -> float:
        """Of one line in its item's mean."""
        return len(self.batch) / len(self)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """[p] -> [n]: the mean over the lines of each item."""
        return np.bincount(self.owner, values) * self.share

    def at(self, line: np.ndarray, where: np.ndarray) -> torch.Tensor:
        """Points [m, *item]: `where` 0 is the start, 1 the item."""
        start, end = self._ends(line)
        along = torch.as_tensor(where).to(start.device, start.dtype).view(-1, *[1] * (start.ndim - 1))
        return torch.lerp(start, end, along).to(self.batch.dtype)

    def samples(self) -> torch.Tensor:
        """A few points of the first line, near its item, where a network is most at home."""
        return self.at(np.zeros(16, int), np.linspace(1, 0.25, 16))

    def through(self, line: np.ndarray, gradients: torch.Tensor) -> torch.Tensor:
        """(end - start) * gradient [m, *item]: the slope of the score on the line, divided among the input's numbers."""
        start, end = self._ends(line)
        return (end - start) * gradients

    def _ends(self, line: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """At least in float32, where points and sums do not lose what the model's own dtype would round away."""
        if (line == line[0]).all():
            line = line[:1]
        start, end = self.starts[torch.as_tensor(self.origin[line])], self.batch[torch.as_tensor(self.owner[line])]
        return start.to(wide(start)), end.to(wide(end))

    def nothing(self) -> torch.Tensor:
        """Zeros [n, *item] to add values to."""
        return torch.zeros(self.batch.shape, dtype=wide(self.batch), device=self.batch.device)

    def add(self, total: torch.Tensor, line: np.ndarray, weight: np.ndarray, parts: torch.Tensor) -> None:
        """Each part [m, *item], times its weight [m], to the values of its item."""
        weights = torch.as_tensor(weight).to(parts.device, parts.dtype)
        if (self.owner[line] == self.owner[line[0]]).all():
            total[self.owner[line[0]]] += torch.tensordot(weights, parts, 1)
        else:
            total.index_add_(0, torch.as_tensor(self.owner[line]).to(parts.device), parts * weights.view(-1, *[1] * (parts.ndim - 1)))

    def add_slopes(self, total: torch.Tensor, line: np.ndarray, weight: np.ndarray, gradients: torch.Tensor) -> None:
        """The same for gradients; those on one line are added up before they are multiplied."""
        if (line != line[0]).any():
            return self.add(total, line, weight, self.through(line, gradients))
        summed = torch.tensordot(torch.as_tensor(weight).to(gradients.device, total.dtype), gradients.to(total.dtype), 1)
        total[self.owner[line[0]]] += self.through(line[:1], summed[None])[0]


def wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def straight_lines(score: Score, baseline: Any, seed: int) -> tuple[Lines, str]:
    """From each baseline to its item, and what the baselines are."""
    n = len(score)
    found = [starts(baseline, score.items, i, seed) for i in range(n)]
    rows = np.concatenate([rows for rows, _ in found])
    batch = score.items.batch
    placed = torch.as_tensor(np.ascontiguousarray(rows)).to(batch.device, batch.dtype)
    return Lines(placed, np.arange(len(rows)), np.repeat(np.arange(n), len(rows) // n), batch), ", ".join(dict.fromkeys(name for _, name in found))


def starts(baseline: Any, items: Items, i: int, seed: int) -> tuple[np.ndarray, str]:
    """The baselines [k, *item] of item i, and their names."""
    by_input = items.kind == "several"  # where a tuple has a baseline for each
    several = list if by_input else (list, tuple)
    if isinstance(baseline, several) and baseline and (isinstance(baseline[0], (str, dict, tuple)) or np.ndim(baseline[0])):
        found = [starts(one, items, i, seed) for one in baseline]
        return np.concatenate([rows for rows, _ in found]), ", ".join(name for _, name in found)
    if isinstance(baseline, str) and baseline != "zero" and items.kind not in ("image", "text", "several"):
        raise InputError(
            f"baseline={baseline!r} means nothing for an input of shape {list(items.batch.shape[1:])}; say what absent is: 'zero', a number, an item's values, or several rows."
        )
    return absent(baseline, items, i, undivided(items), seed)


# ---- the integral -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def rule(quadrature: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in 0..1 and weights that sum to 1."""
    if quadrature == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def fixed(at: Slopes, lines: Lines, nodes: np.ndarray, weights: np.ndarray, tick: Progress | None) -> torch.Tensor:
    """The values by one rule on every line, added up chunk by chunk."""
    total, line, node = lines.nothing(), *np.divmod(np.arange(len(lines) * len(nodes)), len(nodes))

    def use(chunk: slice, gradients: torch.Tensor) -> None:
        lines.add_slopes(total, line[chunk], lines.share * weights[node[chunk]], gradients)

    at(lines.owner[line], lambda start, stop: lines.at(line[start:stop], nodes[node[start:stop]]), use, tick)
    return total


def adaptive(at: Slopes, lines: Lines, allowed: np.ndarray, tick: Progress | None) -> tuple[torch.Tensor, dict[str, Any]]:
    """The values by the trapezoid rule on intervals that are halved until the gap of every item is `allowed` [n]; the steps that took."""
    total, spent, full = lines.nothing(), np.zeros(len(lines), int), np.zeros(len(lines), bool)
    each = lines.batch[:1].nbytes * MOST // 4
    together = max(TOGETHER // each, 1)
    with resident():
        for first in range(0, len(lines), together):
            group = np.arange(first, min(first + together, len(lines)))
            later = FIRST * (len(lines) - 1 - int(group[-1]))
            nodes = Nodes()
            line, where = np.repeat(group, FIRST), np.tile(np.linspace(0, 1, FIRST), len(group))
            while len(line):
                before = int(spent.sum()) + len(nodes.line)
                nodes.ask(at, lines, line, where, tick and (lambda done, whole: tick(before + done, before + whole + later)))  # noqa: B023
                line, where, limit = nodes.rough(allowed[lines.owner])
            full |= limit
            spent += np.bincount(nodes.line, minlength=len(lines))
            nodes.give(lines, total)
    steps = np.bincount(lines.owner, spent).astype(int)
    note = {"note": f"stopped at {MOST} gradients on a line, before the completeness gap was below the tolerance"} if full.any() else {}
    return total, {"steps": tuple(steps.tolist()), **note}


def allowed_gap(score: Score, base: np.ndarray, tolerance: float) -> np.ndarray:
    """[n]: in score units, and no less than what rounding makes of the scores themselves."""
    precision = float(torch.finfo(score.items.batch.dtype).eps)
    return np.maximum(tolerance * size_of_change(score.prediction, base), 8 * precision * largest(score.prediction, base))


def residual(values: torch.Tensor, prediction: np.ndarray, base: np.ndarray) -> np.ndarray:
    """[n]: (sum of the values - change) / |change|."""
    gap = values.flatten(1).cpu().double().sum(1).numpy() - (prediction - base)
    size = size_of_change(prediction, base)
    return np.divide(gap, size, out=np.zeros(len(gap)), where=size > 0)


def size_of_change(prediction: np.ndarray, base: np.ndarray) -> np.ndarray:
    """|change| [n]; where it all but vanishes, a thousandth of the scores, so that a gap of rounding is not read as a large one."""
    return np.maximum(np.abs(prediction - base), largest(prediction, base) / 1000)


def largest(prediction: np.ndarray, base: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(prediction), np.abs(base))


@dataclass
class Nodes:
    """What is known at points of the lines, in the order in which it was asked."""

    line: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    where: np.ndarray = field(default_factory=lambda: np.zeros(0))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0))
    slope: np.ndarray = field(default_factory=lambda: np.zeros(0))
    parts: list[torch.Tensor] = field(default_factory=list)  # the slope, divided among the input's numbers

    def ask(self, at: Slopes, lines: Lines, line: np.ndarray, where: np.ndarray, tick: Progress | None) -> None:
        """Add points."""
        slope = np.zeros(len(line))

        def use(chunk: slice, gradients: torch.Tensor) -> None:
            part = lines.through(line[chunk], gradients)
            slope[chunk] = part.flatten(1).sum(1).cpu().double()
            self.parts.append(part)

        score = at(lines.owner[line], lambda start, stop: lines.at(line[start:stop], where[start:stop]), use, tick)
        for name, new in (("line", line), ("where", where), ("score", score), ("slope", slope)):
            setattr(self, name, np.concatenate([getattr(self, name), new]))

    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """The two ends of each, as indices."""
        order = np.lexsort((self.where, self.line))
        left, right = order[:-1], order[1:]
        same = self.line[left] == self.line[right]
        return left[same], right[same]

    def give(self, lines: Lines, total: torch.Tensor) -> None:
        """Add what was found to the values, by the trapezoid rule."""
        left, right = self.intervals()
        half, n = (self.where[right] - self.where[left]) / 2, len(self.line)
        weight, first = np.bincount(left, half, n) + np.bincount(right, half, n), 0
        for part in self.parts:
            chunk = slice(first, first + len(part))
            lines.add(total, self.line[chunk], lines.share * weight[chunk], part)
            first = chunk.stop

    def rough(self, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The middles of intervals to halve, as lines and places; and which lines [p] are left too rough, at their limit.

        A line is good when its whole gap is below `allowed` and not by luck: the gaps of its intervals, added up as
        independent errors are, stay below four times that. The largest gaps are halved first, down to a quarter.
        """
        left, right = self.intervals()
        line, width = self.line[left], self.where[right] - self.where[left]
        gap = self.score[right] - self.score[left] - width * (self.slope[left] + self.slope[right]) / 2
        p, worst = len(allowed), np.zeros(len(allowed))
        np.maximum.at(worst, line, np.abs(gap))
        bad = (np.abs(np.bincount(line, gap, p)) > allowed) | (np.sqrt(np.bincount(line, gap**2, p)) > 4 * allowed)
        count = np.bincount(self.line, minlength=p)
        share = np.minimum(np.maximum(allowed / np.sqrt(np.maximum(count, 1)), worst / 4), worst / 2)
        split = bad[line] & (np.abs(gap) >= share[line])
        full = bad & (count + np.bincount(line[split], minlength=p) > MOST)
        split &= ~full[line]
        return line[split], (self.where[left] + self.where[right])[split] / 2, full
