"""Exact Shapley values of tree models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import load
from askwhy.answer import answer, data_of
from askwhy.errors import InputError, ModelError, TargetError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, progress_of, weights_of
from askwhy.local.tree_scale import Scale, scale_of
from askwhy.models import wrap
from askwhy.models.forest import Forest, compare_forest, read_forest, same, state_of
from askwhy.registry import method
from askwhy.score import Score, ask
from askwhy.tables import Background, names_of

if TYPE_CHECKING:
    from askwhy.compiled.program import Program

CHECKED = 256  # rows on which a model's trees are compared with its own answer, leaf by leaf
OUTPUTS = ("raw", "probability", "log_loss")


@method(
    title="TreeSHAP",
    needs="trees",
    inputs=("table",),
    asks="If the trees were told one feature after the other, in every order, how much would each change the score on average?",
    reads="positive: the feature raises the score; the values sum to the score less what is expected without any feature",
    paper="Lundberg et al. 2020, https://arxiv.org/abs/1905.04610; by the integral of Owen 1972",
    preference=60,
)
def tree_shap(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, background: Any = None, interactions: bool = False, output: str = "raw",
    y: Any = None, progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """Exact Shapley values [n, d] of a tree model's raw score (log odds, or what its trees sum to), or interactions [n, d, d].

    background: None: what is absent follows the shares of the training data in the trees ("path-dependent"); rows [m, d]:
    it comes from them ("interventional"). target: "all" gives values [n, d, k]. interactions: halves of pairs off the diagonal.
    output: "probability", or "log_loss" for the classes y [n], need a background: the raw values are scaled for each of
    its rows so that they sum to that scale (not its own Shapley values: those are `askwhy.shapley`'s).
    Raises UnsupportedError for what is no tree model. Lundberg et al. 2020. Example: `askwhy.tree_shap(booster, X).plot(how="beeswarm")`.
    """
    if output not in OUTPUTS:
        raise InputError(f"output={output!r}: choose one of {', '.join(map(repr, OUTPUTS))}.")
    load("numba", "trees")
    everything = isinstance(target, str) and target == "all" and target not in (wrap(model).labels or ())
    score = ask(model, x, None if everything else target, versus)
    asked = Asked.of(score, background, output, y)
    with progress_of(progress, "tree_shap") as tick:
        if everything:
            return of_all(asked, versus, interactions, tick)
        coefficients, constants = asked.coefficients()
        values = asked.values(coefficients, interactions, tick)
    base = constants + (coefficients * asked.expected).sum(1)
    asked.check(values, base, score.prediction, interactions)
    return asked.answered(values, base, score.prediction)


@dataclass
class Asked:
    """The question, the trees, and the rows as the trees see them."""

    score: Score
    forest: Forest
    program: Program
    rows: np.ndarray  # float64 [n, width]
    raw: np.ndarray  # [n, k]: the library's own raw scores
    scale: Scale
    background: np.ndarray | None  # float64 [m, width]
    weights: np.ndarray  # [m]
    other: np.ndarray  # [m, k]: the raw scores of the background rows
    text: str  # what the background is

    @classmethod
    def of(cls, score: Score, background: Any, output: str, y: Any) -> Asked:
        forest, program = forest_of(score.model)
        rows, raw = seen(score, forest, score.items)
        score.calls += len(rows)
        scale = scale_of(score, forest, output, y, background)
        if background is None:
            if not forest.covers:
                raise UnsupportedError("this model's file does not say how much of the training data came to each node; give rows as background=.")
            return cls(
                score, forest, program, rows, raw, scale, None, np.ones(0), np.zeros((0, raw.shape[1])), "the training data in the trees"
            ).settled()
        items = score.model.prepare(background.rows if isinstance(background, Background) else background)
        z, other = seen(score, forest, items)
        score.calls += len(z)
        weights = weights_of(background)
        shares = np.full(len(z), 1 / len(z)) if weights is None else weights
        text = background.text if isinstance(background, Background) else f"{len(z)} rows"
        return cls(score, forest, program, rows, raw, scale, z, shares, other, text).settled()

    def settled(self) -> Asked:
        """With the targets and predictions known, from the raw scores."""
        targets = self.score.targets + (self.score.versus or [])
        if any(callable(target) for target in targets):
            raise TargetError("tree_shap explains the outputs of the trees; a function of them is no sum over trees: aw.shapley explains it.")
        if self.scale.chosen is not None:
            self.score.targets = list(self.scale.chosen)
        self.score.settle(self.sides(self.raw), range(len(self.raw)))
        if self.scale.name != "raw":
            at = [self.term(target)[0] for target in self.score.targets]
            coefficients, constants = self.coefficients()
            linked = self.scale.link(self.raw[np.arange(len(at)), at])
            self.score.prediction = constants + coefficients[np.arange(len(at)), at] * linked
        return self

    def sides(self, raw: np.ndarray) -> np.ndarray:
        """[n, classes]: of two classes that share one raw score each has its own."""
        return np.concatenate([self.forest.whole - raw, raw], 1) if self.forest.whole is not None else raw

    def term(self, target: Any) -> tuple[int, float, float]:
        """Which raw score a target is, its sign, and a constant."""
        if self.scale.name == "log_loss" or self.forest.whole is None:
            return (0 if self.forest.whole is not None else target), 1.0, 0.0
        whole = 1.0 if self.scale.name == "probability" else self.forest.whole
        return (0, 1.0, 0.0) if target == 1 else (0, -1.0, whole)

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """[n, k] and [n]: each item's score is a sum of raw scores."""
        found, constants = np.zeros(self.raw.shape), np.zeros(len(self.raw))
        for sign, targets in ((1.0, self.score.targets), (-1.0, self.score.versus or [])):
            for i, target in enumerate(targets):
                k, own, constant = self.term(target)
                found[i, k] += sign * own
                constants[i] += sign * constant
        return found, constants

    @property
    def expected(self) -> np.ndarray:
        """[k], or [n, k] where the scale is each row's own: the raw scores without any feature."""
        if self.background is None:
            return self.program.expected
        if self.scale.name == "raw":
            return self.weights @ self.other
        at = [self.term(target)[0] for target in self.score.targets]
        found = np.zeros(self.raw.shape)
        for i, k in enumerate(at):
            found[i, k] = self.weights @ self.scale.link(self.other[:, k], i)
        return found

    def values(self, coefficients: np.ndarray, interactions: bool, tick: Progress | None) -> np.ndarray:
        """[n, d] or [n, d, d]: each raw score explained for the rows that ask for it."""
        n, d = self.rows.shape
        total = np.zeros((n, d, d) if interactions else (n, d))
        for k in np.flatnonzero(coefficients.any(0)):
            asking = np.flatnonzero(coefficients[:, k])
            own = self.of_output(int(k), asking, interactions, tick)
            total[asking] += coefficients[asking, k].reshape(-1, *(1,) * (total.ndim - 1)) * own
        return total

    def of_output(self, k: int, asking: np.ndarray, interactions: bool, tick: Progress | None) -> np.ndarray:
        from askwhy.compiled.run import interventional, path_dependent

        rows = self.rows[asking]
        if self.background is None:
            return path_dependent(self.program, k, rows, interactions, tick)
        weights = self.weights if self.scale.name == "raw" else self.scaled(k, asking)
        return interventional(self.program, k, rows, self.background, weights, interactions, tick)

    def scaled(self, k: int, asking: np.ndarray) -> np.ndarray:
        """[n, m]: the weight of each pair, times the slope of the link from the one raw score to the other."""
        slopes = np.empty((len(asking), len(self.other)))
        for row, i in enumerate(asking):
            own, other = self.raw[i, k], self.other[:, k]
            step = own - other
            near = np.abs(step) < 1e-6  # the slope of the tangent there, since the difference is rounded away
            there = self.scale.link(np.where(near, own + 1e-4, own), i) - self.scale.link(np.where(near, own - 1e-4, other), i)
            slopes[row] = there / np.where(near, 2e-4, step)
        return slopes * self.weights

    def check(self, values: np.ndarray, base: np.ndarray, prediction: np.ndarray, interactions: bool) -> None:
        """The values have to sum to the library's own score, to its own precision."""
        gap = np.abs(base + values.sum((1, 2) if interactions else 1) - prediction)
        size = np.finfo(np.float32 if self.forest.single else np.float64).eps * (8 + 4 * np.sqrt(len(self.forest.roots)))
        most = np.abs(self.forest.base).max() + self.program.largest
        wrong = np.flatnonzero(~(gap <= size * max(most, 1e-300) * 2))
        if len(wrong):
            i = wrong[0]
            raise ModelError(
                f"the values of row {i} sum to {base[i] + values[i].sum():.9g}, but {self.forest.library} gives {prediction[i]:.9g}; "
                "please report it. aw.shapley explains the model as a black box."
            )

    def answered(self, values: np.ndarray, base: np.ndarray, prediction: np.ndarray) -> Explanation:
        n, items = len(values), self.score.items
        gap = prediction - base - values.sum(tuple(range(1, values.ndim)))
        variant = "path-dependent" if self.background is None else "interventional"
        details: dict[str, Any] = {"covers": self.forest.covers} if self.background is None else {}
        notes = [self.scale.note] if self.scale.note else []
        if self.background is None and self.program.unseen:
            notes.append(f"{self.program.unseen} splits saw no training data; either side counts half there")
        details |= {"note": "; ".join(notes)} if notes else {}
        why = answer(
            self.score,
            values,
            base_value=np.broadcast_to(base, (n,)).copy(),
            residual=gap / np.maximum(np.abs(prediction - base), 1e-12),
            params={"value_function": variant, "background": self.text},
            details=details,
        )
        names = names_of(items)
        return replace(why, unit=self.scale.unit, components=(names,) * n, data=why.data or words_of(items))


def words_of(items: Any) -> tuple[tuple[str, ...], ...] | None:
    return data_of(replace(items, names=names_of(items)), None, items.batch)


def of_all(asked: Asked, versus: Any, interactions: bool, tick: Progress | None) -> Explanation:
    """Values [n, d, k] of all outputs, in the order of the labels."""
    if versus is not None or interactions or asked.scale.name == "log_loss":
        raise InputError("target='all' gives the values of every output; it goes without versus=, interactions= and output='log_loss'.")
    count = asked.sides(asked.raw).shape[1]
    raw: dict[int, np.ndarray] = {}
    found = []
    for target in range(count):
        asked.score.targets = [target] * len(asked.rows)
        asked.settled()
        k, sign, constant = asked.term(target)
        if k not in raw:
            raw[k] = asked.of_output(k, np.arange(len(asked.rows)), False, tick)
        expected = np.broadcast_to(asked.expected, asked.raw.shape)[:, k]
        found.append((sign * raw[k], constant + sign * expected, asked.score.prediction.copy()))
        asked.check(*found[-1], False)
    values, base, prediction = (np.stack(part, -1) for part in zip(*found, strict=True))
    one = asked.answered(*found[0])
    gap = (prediction - base - values.sum(1)) / np.maximum(np.abs(prediction - base), 1e-12)
    names = tuple(map(asked.score.name, range(count)))
    return replace(one, values=values, base_value=base, prediction=prediction, residual=gap, outputs=names, target=())


# ---- the trees of a model -----------------------------------------------------------------------------------------


def forest_of(model: Any) -> tuple[Forest, Program]:
    """Read once, and kept with the wrapped model."""
    from askwhy.compiled.program import program_of

    if "trees" not in model.offers:
        raise UnsupportedError("tree_shap needs a tree model of XGBoost, LightGBM, CatBoost or scikit-learn; aw.shapley explains any model.")
    if model.transform is not None:
        raise UnsupportedError("tree_shap explains the columns that the trees see; wrap the model without transform= and give it those.")
    fitted = state_of(model.source)
    if "forest" not in model.memory or not same(model.memory["forest"][2], fitted):
        forest = read_forest(model.source)
        model.memory.pop("checked", None)
        model.memory["forest"] = forest, program_of(forest), fitted
    found: tuple[Forest, Program, Any] = model.memory["forest"]
    return found[:2]


def seen(score: Score, forest: Forest, items: Any) -> tuple[np.ndarray, np.ndarray]:
    """[n, width] and [n, k]: rows as the trees see them, and the library's own raw scores; compared leaf by leaf the first time."""
    model: Any = score.model
    given = model.given(items, items.batch)
    rows = np.ascontiguousarray(forest.prepare(given), np.float64)
    raw = np.asarray(forest.raw(given), np.float64).reshape(len(rows), -1)
    if "checked" not in model.memory:
        compare_forest(forest, raw[:CHECKED], rows[:CHECKED])
        model.memory["checked"] = True
    return rows, raw
