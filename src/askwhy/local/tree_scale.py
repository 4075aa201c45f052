"""On which scale the values of trees are: their raw score, a probability or a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from askwhy.errors import InputError, UnsupportedError
from askwhy.models.forest import Forest
from askwhy.score import Score, one_per_item

Link = Callable[..., np.ndarray]  # raw scores (and the number of the row) -> the scale


@dataclass(frozen=True)
class Scale:
    """What the values sum to: the raw score itself, or a function of it."""

    name: str
    unit: str
    link: Link = lambda raw, i=None: raw
    note: str = ""
    chosen: tuple[int, ...] | None = None  # the classes that log_loss is about


def scale_of(score: Score, forest: Forest, output: str, y: Any, background: Any) -> Scale:
    if y is not None and output != "log_loss":
        raise InputError("y= holds the classes that happened, for output='log_loss'; leave it out.")
    if output == "raw":
        return Scale("raw", forest.unit)
    if forest.unit != "probability" and forest.link != "logistic":
        raise UnsupportedError(
            f"output={output!r}: the raw scores of this model are in {forest.unit}, which is not one class's own log odds; "
            "explain those with output='raw', or aw.shapley the probability."
        )
    if background is None and not (output == "probability" and forest.unit == "probability"):
        raise InputError(f"output={output!r} needs rows as background=, since the shares in the trees are shares of the raw score.")
    alone = forest.whole is None and forest.unit != "probability"  # classes with log odds of their own, which exclude nothing
    if score.versus is not None and (output == "log_loss" or alone):
        raise InputError(f"versus= and output={output!r} do not go together here; explain one class, or the raw scores.")
    if output == "probability":
        return of_probability(forest)
    if alone:
        raise UnsupportedError("output='log_loss' needs classes that exclude each other, and each class of this model has log odds of its own.")
    return of_log_loss(score, forest, y)


def of_probability(forest: Forest) -> Scale:
    if forest.unit == "probability":
        return Scale("raw", "probability")
    return Scale("probability", "probability", lambda raw, i=None: expit(raw), NOT_ITS_OWN.format("probability"))


NOT_ITS_OWN = (
    "the raw score's values, scaled for each background row so that they sum to the {0}; the Shapley values of the {0} itself are aw.shapley's"
)


def of_log_loss(score: Score, forest: Forest, y: Any) -> Scale:
    """-log of the probability of the class that happened."""
    if y is None or np.shape(y) != (len(score),):
        raise InputError(f"output='log_loss' needs y=, the class of each of the {len(score)} rows; given: {'nothing' if y is None else np.shape(y)}.")
    known = score.model.labels or ()
    chosen = one_per_item([str(one) if str(one) in known else one for one in np.asarray(y).tolist()], len(score), known or None, "y")
    odds, classes = forest.unit != "probability", np.array(chosen)

    def loss(raw: np.ndarray, i: int | None = None) -> np.ndarray:
        truth = classes if i is None else classes[i]
        sign = np.where(truth == 1, 1.0, -1.0) if forest.whole is not None else 1.0
        if odds:
            return np.logaddexp(0.0, -sign * raw)
        chance = np.where(sign > 0, raw, 1.0 - raw)
        if (chance <= 0).any():
            raise InputError("output='log_loss': the model gives a class that happened the probability 0, and its loss is infinite.")
        return -np.log(chance)

    return Scale("log_loss", "log loss", loss, NOT_ITS_OWN.format("log loss"), tuple(chosen))
