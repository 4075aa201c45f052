"""SP-LIME: a few explanations that together show what a model goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.checks import whole
from askwhy.errors import InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.local.lime import lime
from askwhy.models import wrap
from askwhy.tables import names_of
from askwhy.wording import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Pick:
    """Which items to look at, and how much of what matters they show."""

    chosen: tuple[int, ...]  # places in X, the most telling first
    coverage: tuple[float, ...]  # the share of all importance that the first 1, 2, ... of them show
    importance: Mapping[str, float]  # of each component, sqrt(sum |W|), largest first
    explanations: tuple[Explanation, ...]  # of the chosen items
    explained: tuple[int, ...]  # places in X of all that were explained
    matrix: np.ndarray  # W [explained, components]: values that are surely not zero, else 0
    names: tuple[str, ...]  # of the components

    def __len__(self) -> int:
        return len(self.chosen)

    def summary(self) -> str:
        """The chosen items with their strongest parts, and what counts over all."""
        lines = [f"lime_pick: {len(self)} of {len(self.explained)} explained items show {self.coverage[-1]:.0%} of what matters"]
        for at, share, one in zip(self.chosen, self.coverage, self.explanations, strict=True):
            parts = ", ".join(f"{name}: {value:+.3g}" for name, value in one.top(3))
            lines.append(f"  item {at}: {one.question()} (score {one.prediction[0]:.4g}): {parts}; {share:.0%} so far")
        lines.append("matters most: " + ", ".join(f"{name} ({value:.3g})" for name, value in list(self.importance.items())[:5]))
        return "\n".join([*lines, f"{self.explanations[0].model_calls} model calls, {self.explanations[0].seconds:.2f} s"])

    def plot(self, ax: Axes | None = None, most: int = 15) -> Axes:
        """A row for each chosen item, a column for each component that they show, those that matter most. Returns the axes and never shows them."""
        from askwhy.show.lime import picked

        rows = self.matrix[[self.explained.index(at) for at in self.chosen]]
        shown = [j for name in self.importance if rows[:, j := self.names.index(name)].any()][:most]
        values, columns = rows[:, shown], [self.names[j] for j in shown]
        titles = [f"item {at}: {one.question()}" for at, one in zip(self.chosen, self.explanations, strict=True)]
        return picked(values, titles, columns, ax, title=f"lime_pick: {self.coverage[-1]:.0%} of what matters, in {len(self)} items")


def lime_pick(
    model: Any, X: Any, k: int = 5, target: Any = None, *, items: int = 100, by: str = "rule", num_features: int = 10, seed: int = 0, **options: Any
) -> Pick:
    """Up to k items whose LIME explanations together show most of what matters: submodular pick.

    `items` of X are drawn and explained. W holds the values whose 95 % interval leaves zero out, of the `num_features`
    best of each item; a component's importance is sqrt(sum |W|); the item that adds most of it is taken next, until
    nothing is added. Components have to be the same things in all items: for tables by="rule" ("28 < age <= 37") or
    "column", for texts the words in any case, for pictures one array of regions. `options` are those of `askwhy.lime`.
    Ribeiro et al. 2016, section 4. Returns a Pick with plot() and summary(); raises InputError.
    Example: `askwhy.lime_pick(model, X, 5, background=X).summary()`.
    """
    model = wrap(model)
    check(k, items, by)
    whole = model.prepare(X)
    if whole.kind == "image" and not hasattr(options.get("components"), "shape"):
        raise UnsupportedError(
            "the superpixels of one picture are not those of another; give components= as one array that numbers the regions of all."
        )
    if whole.kind == "text":
        options.setdefault("components", words(together=True))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(whole))[:items])
    targets = [target[at] for at in drawn] if isinstance(target, (list, tuple)) and len(target) == len(whole) else target
    why = lime(model, part_of(X, drawn), targets, num_features=num_features, seed=seed, **options)
    matrix, names = together(why, names_of(whole) if by == "column" and whole.kind == "table" else None)
    importance = np.sqrt(np.abs(matrix).sum(0))
    if not importance.any():
        raise InputError(
            f"no value of the {len(drawn)} explained items is surely different from zero; take more samples=, or see whether the model's score varies."
        )
    chosen, coverage = greedy(matrix != 0, importance, k)
    ranked = {names[j]: float(importance[j]) for j in np.argsort(-importance, kind="stable")}
    return Pick(tuple(int(drawn[c]) for c in chosen), coverage, ranked, tuple(why[c] for c in chosen), tuple(drawn.tolist()), matrix, names)


def check(k: int, items: int, by: str) -> None:
    for name, value in (("k", k), ("items", items)):
        whole(name, value, 1)
    if by not in ("rule", "column"):
        raise InputError(f"by={by!r}: choose 'rule' or 'column'.")


def part_of(X: Any, which: np.ndarray) -> Any:
    """These items, as X holds them."""
    if isinstance(X, (list, tuple)):
        return [X[at] for at in which]
    return X.iloc[which] if hasattr(X, "iloc") else [X] if isinstance(X, str) else X[which]


def together(why: Explanation, columns: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """W [n, components] with 0 for what is not surely different from zero, and the components' names."""
    assert why.components is not None
    named = why.components if columns is None else (columns,) * len(why)
    names = tuple(dict.fromkeys(name for row in named for name in row))
    place = {name: j for j, name in enumerate(names)}
    matrix = np.zeros((len(why), len(names)))
    for i, (row, one) in enumerate(zip(named, why, strict=True)):
        sure = np.abs(one.values[0]) > (0 if one.std_error is None else 1.96 * np.nan_to_num(one.std_error[0], nan=np.inf))
        np.add.at(matrix[i], [place[name] for name in row], np.where(sure, one.values[0], 0))
    return matrix, names


def greedy(shows: np.ndarray, importance: np.ndarray, k: int) -> tuple[list[int], tuple[float, ...]]:
    """Items that show [n, components] most of the importance, each chosen for what it adds; and the share that is shown after each."""
    chosen: list[int] = []
    left, coverage = importance.copy(), []
    while len(chosen) < min(k, len(shows)) and (shows @ left).max() > 0:
        chosen.append(int(np.argmax(shows @ left)))
        left[shows[chosen[-1]]] = 0
        coverage.append(float(1 - left.sum() / importance.sum()))
    return chosen, tuple(coverage)
