"""Shapley values: what each component adds to the score, averaged over all orders in which they could come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.answer import answer, pad
from askwhy.checks import is_whole
from askwhy.components import Recipe, absent
from askwhy.conditional import CONDITIONAL, conditional
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.game import Game, Progress, over_items, progress_of, roughness, weights_of
from askwhy.local.coalitions import design, everything, exact, interactions, odd, regress, widened
from askwhy.local.proxy import regress_on_trees
from askwhy.recipes import recipe
from askwhy.registry import method
from askwhy.score import Score, ask

PLAYERS = 20  # all 2^d coalitions of more are never asked
MOST = 2**17  # coalitions that tolerance= may ask without samples=
LEARNED = 100  # components up to which trees learn a game in seconds
SMALL = 0.01  # of the largest value: an error bar that needs no better estimator
Estimate = tuple[np.ndarray, np.ndarray]  # values [d], standard errors [d]


@method(
    title="Shapley values",
    needs="predictions",
    inputs=("image", "table", "text"),
    asks="If the parts of the input came one by one, in every order, how much would each add to the score on average?",
    reads="positive: the part raises the score; the values sum to the score less what it is without any part",
    paper="Lundberg & Lee 2017, https://arxiv.org/abs/1705.07874; sampling: Musco & Witter 2025, https://arxiv.org/abs/2410.01917",
    preference={"table": 30, "image": 5, "text": 5},
)
def shapley(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, background: Any = None, baseline: Any = "auto", value_function: str = "auto",
    components: Any = None, estimator: str = "auto", samples: int | None = None, tolerance: float | None = None, bandwidth: float = 0.1,
    precision: str = "float32", seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """phi_i = sum over S of |S|! (d - |S| - 1)! / d! (v(S + i) - v(S)); values [n, d] with standard errors.

    value_function: v(S) is the score with the rest "marginal" (from background rows), "gaussian" or "empirical" (drawn to fit
    S), or "baseline" (one reference; pictures, texts). samples: coalitions an item, default 2 d + 2048 (at least 4 d); model calls are that
    times the rows. estimator: "exact" (2^d coalitions), "permutation" (antithetic), "kernel" (regression on leverage-sampled
    pairs), "trees" (the same, on what boosted trees leave), or "auto": exact where samples reach all, else the smaller error
    bars. tolerance: ask until all standard errors are below (score units). bandwidth: of "empirical".
    Lundberg & Lee 2017. Example: `askwhy.shapley(model, X[:3], background=askwhy.background(X)).plot()`.
    """
    check_settings(estimator, samples, tolerance)
    asked = Asked(ask(model, x, target, versus), background, baseline, value_function, components, bandwidth, precision, seed, batch_size)
    with progress_of(progress, "shapley") as tick:
        found = [estimate(v, estimator, samples, tolerance, (seed, i)) for i, v in enumerate(asked.games(tick))]
    sampled = any(one.name != "exact" for one in found)
    gap = [one.values.sum() - (at - one.base) for one, at in zip(found, asked.score.prediction, strict=True)]
    base = np.array([one.base for one in found])
    details: dict[str, Any] = {"estimator": tuple(one.name for one in found), "coalitions": tuple(one.samples for one in found)}
    details |= roughness(v.deviation for v in asked.made)
    missed = [one for one in found if tolerance is not None and one.error.max() > tolerance]
    if missed:
        details["note"] = f"tolerance={tolerance} was not reached for {len(missed)} of {len(found)} items; take more samples"
    return answer(
        asked.score,
        pad([one.values for one in found]),
        std_error=pad([one.error for one in found], np.nan) if sampled else None,
        base_value=base,
        residual=np.array(gap) / np.maximum(np.abs(asked.score.prediction - base), 1e-12),
        components=[v.components for v in asked.made],
        params=asked.params(),
        details=details,
    )


@method(
    title="Shapley interactions",
    needs="predictions",
    inputs=("image", "table", "text"),
    asks="How much do two parts of the input add together, beyond what each adds alone?",
    reads="off the diagonal: positive: the two help each other; on it: what a part adds by itself; each row sums to its Shapley value",
    paper="Grabisch & Roubens 1999, https://doi.org/10.1007/s001820050125; halves as in Lundberg et al. 2020",
)
def shapley_interactions(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, background: Any = None, baseline: Any = "auto", value_function: str = "auto",
    components: Any = None, bandwidth: float = 0.1, precision: str = "float32", seed: int = 0, batch_size: int | str = "auto",
    progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """Values [n, d, d]: off the diagonal half of a pair's Shapley interaction index, on it what is left of each Shapley value.

    I_ij = sum over S of |S|! (d - |S| - 2)! / (d - 1)! (v(S + i + j) - v(S + i) - v(S + j) + v(S)), exact, from all 2^d
    coalitions: at most 20 components; group columns, or choose coarser ones. The arguments are those of `shapley`.
    Grabisch & Roubens 1999. Example: `askwhy.shapley_interactions(model, X[:1], background=X[:50]).plot()`.
    """
    asked = Asked(ask(model, x, target, versus), background, baseline, value_function, components, bandwidth, precision, seed, batch_size)
    with progress_of(progress, "shapley_interactions") as tick:
        found = [interactions(all_of(v)) for v in asked.games(tick)]
    values = np.zeros((len(found), *np.max([one.shape for one in found], axis=0)))
    for row, one in zip(values, found, strict=True):
        row[: len(one), : len(one)] = one
    base = asked.score.prediction - values.sum((1, 2))
    return answer(
        asked.score,
        values,
        base_value=base,
        components=[v.components for v in asked.made],
        params=asked.params(),
        details=roughness(v.deviation for v in asked.made),
    )


@dataclass
class Asked:
    """One game for each item, with what stands for the absent."""

    score: Score
    background: Any
    baseline: Any
    value_function: str
    components: Any
    bandwidth: float
    precision: str
    seed: int
    batch_size: int | str

    def __post_init__(self) -> None:
        self.recipe: Recipe = recipe(self.components, self.score.items)
        self.name = self._named()
        self.made: list[Game] = []
        self.texts: set[str] = set()

    def _named(self) -> str:
        """The value function that is meant. Raises InputError."""
        usual = "baseline" if self.background is None else "marginal"
        name = usual if self.value_function == "auto" else self.value_function
        if name not in ("baseline", "marginal", *CONDITIONAL):
            raise InputError(f"value_function={name!r}: choose 'auto', 'marginal', 'baseline', {', '.join(map(repr, CONDITIONAL))}.")
        if (name == "baseline") != (self.background is None):
            remedy = "give baseline=, one reference" if name == "baseline" else "give background=X, rows of the data"
            raise InputError(f"value_function={name!r} and this background do not go together; {remedy}.")
        return name

    def games(self, tick: Progress | None) -> Iterator[Game]:
        self.score.predict()
        for i, count in enumerate(over_items(tick, len(self.score))):
            self.made.append(self._game(i, count))
            yield self.made[-1]

    def _game(self, i: int, tick: Progress | None) -> Game:
        items, weights = self.score.items, weights_of(self.background)
        found = self.recipe.make(items, i)
        rows, text = absent(self.baseline if self.background is None else self.background, items, i, found, self.seed, weighted=True)
        self.texts.add(text)
        given = conditional(self.name, items, i, rows, weights, found, self.bandwidth, self.seed) if self.name in CONDITIONAL else None
        return Game(self.score, i, found, rows, weights=weights, given=given, batch_size=self.batch_size, tick=tick, precision=self.precision)

    def params(self) -> dict[str, Any]:
        return {"components": self.recipe.text, "baseline": ", ".join(sorted(self.texts)), "value_function": self.name}


# ---- estimators -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Found:
    """The values of one item, how they were found, and from how many coalitions."""

    values: np.ndarray
    error: np.ndarray
    name: str
    base: float
    samples: int


def check_settings(estimator: str, samples: int | None, tolerance: float | None) -> None:
    if estimator not in ("auto", "exact", *ESTIMATORS):
        raise InputError(f"estimator={estimator!r}: choose 'auto', 'exact', {', '.join(map(repr, ESTIMATORS))}.")
    if samples is not None and not is_whole(samples, 2):
        raise InputError(f"samples={samples!r}: give the number of coalitions to ask about, or None.")
    if tolerance is not None and not tolerance > 0:
        raise InputError(f"tolerance={tolerance!r}: the standard error to reach has to be positive, in units of the score.")


def estimate(v: Game, estimator: str, samples: int | None, tolerance: float | None, seed: tuple[int, ...]) -> Found:
    """One item's values. With a tolerance, more coalitions until the error bars are small enough; those asked before are known."""
    d = len(v)
    limit = samples or max(4 * d, 2 * d + 2048 if tolerance is None else MOST)
    count = limit if tolerance is None else min(limit, max(8 * d, 256))
    while True:
        if d == 1 or estimator == "exact" or (estimator != "permutation" and 2**d <= count):
            return exactly(v)
        if limit < 4 * d:
            raise InputError(f"samples={samples}: {d} components need at least {4 * d} coalitions; take more samples, or coarser components.")
        v.total = count + 2
        ends = v(np.array([[False] * d, [True] * d]))
        (values, error), name = (better if estimator == "auto" else named(estimator))(v, ends, count, seed)
        if tolerance is None or error.max() <= tolerance or count >= limit:
            return Found(values, error, name, float(ends[0]), count)
        forecast = 1.1 * count * (error.max() / tolerance) ** 2
        count = int(min(limit, np.clip(forecast, 1.5 * count, 4 * count)))


def exactly(v: Game) -> Found:
    answers = all_of(v)
    values = exact(answers)
    return Found(values, np.zeros(len(values)), "exact", float(answers[0]), len(answers))


def all_of(v: Game) -> np.ndarray:
    """v of all 2^d coalitions. Raises InputError for more than can be asked."""
    if len(v) > PLAYERS:
        raise InputError(
            f"{len(v)} components have 2^{len(v)} coalitions, too many to ask all; take a sampling estimator, groups or coarser components."
        )
    v.total = 2 ** len(v)
    return v(everything(len(v)))


def permutation(v: Game, ends: np.ndarray, samples: int, seed: tuple[int, ...]) -> Estimate:
    """What each component adds in random orders, each walked from both ends (Mitchell et al. 2022)."""
    from scipy.stats import t

    d = len(v)
    count = max(samples // (2 * (d - 1)), 2)
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(d), (count, 1)), axis=1)
    gains = np.stack([walked(v, ends, orders), walked(v, ends, orders[:, ::-1])]).mean(0)  # [count, d]
    return gains.mean(0), gains.std(0, ddof=1) / np.sqrt(count) * widened(t, count - 1)


def walked(v: Game, ends: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """[count, d]: what each component adds when they come in these orders."""
    count, d = orders.shape
    place = orders.argsort(1)
    z = place[:, None, :] < np.arange(1, d)[:, None]  # [count, d - 1, d]
    between = v(z.reshape(-1, d)).reshape(count, d - 1)
    steps = np.diff(np.concatenate([np.full((count, 1), ends[0]), between, np.full((count, 1), ends[1])], 1), axis=1)
    return np.take_along_axis(steps, place, axis=1)


def kernel(v: Game, ends: np.ndarray, samples: int, seed: tuple[int, ...]) -> Estimate:
    """Weighted least squares on coalitions in pairs."""
    drawn = design(len(v), samples, seed)
    values, error, _ = regress(drawn, odd(v(drawn.pairs())), ends[1] - ends[0])
    return values, error


def trees(v: Game, ends: np.ndarray, samples: int, seed: tuple[int, ...]) -> Estimate:
    """The same, with boosted trees in between."""
    drawn = design(len(v), samples, seed)
    return regress_on_trees(drawn, odd(v(drawn.pairs())), ends[1] - ends[0], seed[0])


Estimator = Callable[[Game, np.ndarray, int, tuple[int, ...]], Estimate]
ESTIMATORS: dict[str, Estimator] = {"permutation": permutation, "kernel": kernel, "trees": trees}


def named(name: str) -> Callable[..., tuple[Estimate, str]]:
    return lambda *given: (ESTIMATORS[name](*given), name)


def better(v: Game, ends: np.ndarray, samples: int, seed: tuple[int, ...]) -> tuple[Estimate, str]:
    """The regression, or the one with trees where that has smaller error bars; both read the same answers."""
    line = kernel(v, ends, samples, seed)
    if line[1].max() <= SMALL * np.abs(line[0]).max() or len(v) > LEARNED:
        return line, "kernel"
    with_trees = trees(v, ends, samples, seed)
    return (with_trees, "trees") if (with_trees[1] ** 2).sum() < (line[1] ** 2).sum() else (line, "kernel")
