"""What a report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from askwhy.errors import InputError
from askwhy.explanation import Explanation

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = ("photo", "text", "row")


@dataclass(frozen=True)
class Case:
    """One photo, text or row of a table, one question, and what each method answered to it."""

    name: str  # file name of the photo, or which text or row it is
    photo: Image | None  # the original photo, RGB
    top: Sequence[tuple[str, float]]  # label, probability 0..1; best first
    explanations: Sequence[Explanation]  # each of one item, same question
    refused: Sequence[tuple[str, str]] = ()  # name of a method that refused, its error message
    text: str | None = None
    row: Sequence[tuple[str, Any]] | None = None  # column, value
    background: str = ""  # what the other rows are that a row was compared with

    @property
    def kind(self) -> str:
        """ "photo", "text" or "row"."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def check(self) -> None:
        """Raises InputError for explanations of several items, or of different questions."""
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise InputError(f"{self.name}: a Case shows either a photo, a text or a row; give one of photo=, text= and row=.")
        for why in self.explanations:
            if len(why) != 1:
                raise InputError(f"{self.name}: the explanation by {why.method} holds {len(why)} items; give why[i], one item for each {self.kind}.")
        asked = sorted({why.question() for why in self.explanations})
        if len(asked) > 1:
            raise InputError(f"{self.name}: the methods were asked different questions ({'; '.join(asked)}); make a Case for each question.")
