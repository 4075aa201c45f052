"""What a report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from askwhy.errors import InputError
from askwhy.explanation import Explanation

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Case:
    """One photo, one question, and what each method answered to it."""

    name: str  # file name of the photo
    photo: Image  # the original photo, RGB
    top: Sequence[tuple[str, float]]  # label, probability 0..1; best first
    explanations: Sequence[Explanation]  # each of one item, same question
    refused: Sequence[tuple[str, str]] = ()  # name of a method that refused, its error message

    def check(self) -> None:
        """Raises InputError for explanations of several items, or of different questions."""
        for why in self.explanations:
            if len(why) != 1:
                raise InputError(f"{self.name}: the explanation by {why.method} holds {len(why)} items; give why[i], one item for each photo.")
        asked = sorted({why.question() for why in self.explanations})
        if len(asked) > 1:
            raise InputError(f"{self.name}: the methods were asked different questions ({'; '.join(asked)}); make a Case for each question.")
