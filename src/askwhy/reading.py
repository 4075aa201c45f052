"""Tokens as a person reads them: what they are called, and where they stand in their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Reading:
    """What the tokens of one item are called, and where they stand in its text."""

    tokens: tuple[str, ...]
    places: tuple[int, ...]  # of these tokens among those of the model, without the padding
    text: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None  # in the text; (0, 0) for a token that is none of it
    special: tuple[bool, ...] = ()  # whether a token marks a beginning or an end
    owners: tuple[int, ...] = ()  # the value that each token has, where they are not one by one


@dataclass(frozen=True, eq=False)
class Shown:
    """One of several inputs: which of the values are its own, and how they are shown."""

    name: str
    shape: tuple[int, ...]  # of one item's values
    readings: tuple[Reading, ...] = ()
    pictures: tuple[np.ndarray | None, ...] = ()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Segment:
    """A piece of a text, with the value of its tokens; None between the tokens."""

    text: str
    value: float | None


def without_padding(values: np.ndarray, readings: Sequence[Reading]) -> np.ndarray:
    """[n, places] -> [n, d]: the tokens of each item at the front, then zeros."""
    out = np.zeros((len(values), max(len(r.places) for r in readings)), values.dtype)
    for row, own, r in zip(out, values, readings, strict=True):
        row[: len(r.places)] = own[list(r.places)]
    return out


def only_padding_left(values: np.ndarray, readings: Sequence[Reading]) -> bool:
    """Whether nothing but rounding is lost without the padding."""
    rest = values.copy()
    for row, r in zip(rest, readings, strict=True):
        row[list(r.places)] = 0
    return bool(np.abs(rest).max() <= 1e-5 * np.abs(values).max())


def whole(reading: Reading, length: int) -> Reading:
    """With the padding, where a model reads that, too."""
    names, spans = dict(zip(reading.places, reading.tokens, strict=True)), dict(zip(reading.places, reading.spans or (), strict=False))
    marks = dict(zip(reading.places, reading.special, strict=False))
    places = range(length)
    return Reading(
        tuple(names.get(k, "(padding)") for k in places), tuple(places), reading.text,
        tuple(spans.get(k, (0, 0)) for k in places) if reading.spans else None, tuple(marks.get(k, True) for k in places),
    )  # fmt: skip


def segments(reading: Reading, values: np.ndarray) -> list[Segment]:
    """The text in pieces, each with its value; tokens without a place in the text stand where they come, unless they are 0."""
    values = values[list(reading.owners)] if reading.owners else values
    if reading.text is None or reading.spans is None:
        return [piece for token, value in zip(reading.tokens, values, strict=True) for piece in (Segment(token, float(value)), Segment(" ", None))]
    found: list[Segment] = []
    at, nothing = 0, 1e-5 * np.abs(values).max(initial=0)
    for token, (start, end), value in zip(reading.tokens, reading.spans, values.tolist(), strict=True):
        if start == end:
            found += [Segment(token, value), Segment(" ", None)] if abs(value) > nothing else []
        elif start < at and found and found[-1].value is not None:  # several tokens make one sign
            found[-1] = Segment(found[-1].text + reading.text[at:end], found[-1].value + value)
        else:
            found += [Segment(reading.text[at:start], None)] if start > at else []
            found.append(Segment(reading.text[start:end], value))
        at = max(at, end)
    return [*found, Segment(reading.text[at:], None)] if at < len(reading.text) else found


def in_words(why: Any, readings: tuple[Reading, ...]) -> Any:
    """Values [n, places] of tokens, named by them, and without the padding that has none."""
    if not only_padding_left(why.values, readings):
        readings = tuple(whole(r, why.values.shape[1]) for r in readings)
    error = None if why.std_error is None else without_padding(why.std_error, readings)
    names = tuple(r.tokens for r in readings)
    return replace(why, values=without_padding(why.values, readings), std_error=error, components=names, readings=readings)
