"""What a model decides: a question with the answers yes and no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import TargetError
from askwhy.score import Score, as_floats, pick

Stays = Callable[[np.ndarray], np.ndarray]  # what the model answers [m] -> whether that is the item's own answer, bool [m]


@dataclass(frozen=True)
class Decision:
    """A question with the answers yes and no, asked about item `item` and others."""

    score: Score
    item: int
    threshold: float | None
    named: bool  # whether the user named the target

    @property
    def question(self) -> Any:
        """What two items are asked alike."""
        return "class" if self.by_class else (self.target, self.versus)

    @property
    def target(self) -> Any:
        return self.score.targets[self.item]

    @property
    def versus(self) -> Any:
        return None if self.score.versus is None else self.score.versus[self.item]

    @property
    def by_class(self) -> bool:
        return self.threshold is None and self.versus is None and not callable(self.target)

    def reads(self, outputs: Any) -> np.ndarray:
        """The class, or 1 above the threshold and 0 not; NaN where the model says NaN: [m]."""
        if self.by_class:
            return class_of(outputs)
        value = as_floats(pick(outputs, self.target)) - (0.0 if self.versus is None else as_floats(pick(outputs, self.versus)))
        return np.where(np.isnan(value), np.nan, value > (self.threshold or 0))

    def is_yes(self, answer: Any) -> Any:
        return answer == (self.target if self.by_class else 1)

    def stays(self, own: float) -> Stays:
        """Whether an answer is that of the item."""
        held = self.is_yes(own)
        return lambda answers: self.is_yes(answers) == held

    def says(self, held: bool) -> str:
        """The answer in words."""
        name = self.score.name(self.target)
        if self.versus is not None and not self.threshold:
            both = [name, self.score.name(self.versus)]
            return " rather than ".join(both if held else both[::-1])
        if self.by_class:
            return name if held else f"not {name}"
        title = f"{name} - {self.score.name(self.versus)}" if self.versus is not None else name if self.named else "the score"
        return f"{title} {'>' if held else '<='} {self.threshold or 0:g}"


def class_of(outputs: Any) -> np.ndarray:
    """The class with the highest score."""
    scores = as_floats(outputs)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise TargetError(
            "the model gives one number for each input and no scores of classes, so it is not known what it decides; give threshold=: "
            "the rule is then about a score above it, or not. If the number is a class label: target=lambda out: out[:, 0] == 3."
        )
    return np.where(np.isnan(scores).any(1), np.nan, scores.argmax(1))
