"""A text whose words are coloured, as text: it wraps, it can be searched, and every script has its letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from askwhy.explanation import Explanation
from askwhy.reading import segments
from askwhy.report import images, words
from askwhy.show.pictures import COLOURS, limit
from askwhy.show.text import luminance


@dataclass(frozen=True)
class Word:
    """A piece of the text, with its colours and its value; no colours between the words."""

    text: str
    paper: str = ""
    ink: str = ""
    value: str = ""


def coloured(why: Explanation) -> Sequence[Word]:
    """The text in pieces, red for and blue against."""
    found = segments(why.readings[0], why.values[0])
    top = limit(np.array([piece.value for piece in found if piece.value is not None]))
    return [word(piece.text, piece.value, top) for piece in found]


def word(text: str, value: float | None, top: float) -> Word:
    if value is None:
        return Word(text)
    paper = images.hexed(COLOURS, 0.5 + 0.5 * value / top)
    bright = luminance([int(paper[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return Word(text, paper, "#fff" if bright < 0.5 else "#14171a", words.signed(value))
