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


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one table, explained by one method: values [n, d], interactions [n, d, d], or of all outputs [n, d, k]."""

    name: str  # of the file
    why: Explanation
    numbers: Sequence[int]  # of the rows in the file
    background: str = ""  # what the rows were compared with, where they were

    @property
    def questions(self) -> list[Explanation]:
        """One for each output."""
        return [self.why[name] for name in self.why.outputs] or [self.why]

    def summary(self) -> str:
        """Which columns count on average over all rows, and how far to trust it."""
        lines = [
            f"{why.method}: {len(why):,} rows of {self.name}, why {asked(why)}? strongest on average: {on_average(why)}" for why in self.questions
        ]
        return "\n".join([*lines, "; ".join(self.why.trust()) if not self.why.outputs else ""]).strip()


def asked(why: Explanation) -> str:
    """The question of all rows, as far as they have one."""
    found = list(dict.fromkeys(why.question(i) for i in range(len(why)))) if why.target else [why.question()]
    return found[0] if len(found) == 1 else f"each row's own class ({len(found)} of them)"


def on_average(why: Explanation, k: int = 3) -> str:
    """The strongest columns by mean |value|; nothing where the parts differ from row to row."""
    if why.components is None or len(set(why.components)) > 1:
        return "the parts differ from row to row"
    values = abs(why.values.sum(2) if why.values.ndim == 3 else why.values).mean(0)
    return ", ".join(f"{why.components[0][j]} {values[j]:.3g}" for j in (-values).argsort(kind="stable")[:k])
