"""One card for each method: its map, and everything needed to read it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.plots import names_of, usual
from askwhy.registry import Method, find
from askwhy.report import images, words
from askwhy.report.coloured import Word, coloured
from askwhy.report.disagreement import is_map
from askwhy.show import as_data_uri, overlay
from askwhy.show.pictures import COARSE, COLOURS, clipped, limit

SPAN = re.compile(r"rows (\d+)-(\d+), columns (\d+)-(\d+)$")
UNDER = 38  # letters below an axis
BARS = 2.8  # inches for the bars; the names beside them take what they need, so that a card need not shrink them
FEW = 6  # rows of a matrix that are readable in a usual card
POOR_FIT = 0.5  # R2 below which more of the scores is left unexplained than explained


@dataclass(frozen=True)
class Part:
    """One of the strongest parts."""

    name: str
    detail: str  # its pixels, where the name is a place in words
    value: str
    tone: str  # CSS class: for, against, or none for methods without a sign
    std_error: str
    doubtful: bool  # zero lies within twice the standard error
    at: tuple[float, float] | None  # left, top in percent


@dataclass(frozen=True)
class Scale:
    """The numbers on a colour scale."""

    low: str
    middle: str
    high: str
    colours: str


@dataclass(frozen=True)
class Card:
    name: str
    why: Explanation
    signed: bool
    asks: str
    reads: str
    paper: str
    unit: str
    seen: str | None  # data URI of the picture under the map
    layer: str | None  # data URI of the map
    coarse: bool
    ratio: str  # width / height of the map, for CSS
    words: Sequence[Word]  # the text, coloured
    broad: bool  # a picture with many small words
    bars: str | None  # data URI of the picture of values that are neither a map nor a text
    scale: Scale
    range: str
    clipped: bool  # the strongest single pixels lie beyond the colour scale
    parts: Sequence[Part]
    rule: bool  # the method looks for conditions
    nothing: str  # what it means that no part counts
    bound: bool  # the standard errors of the parts are upper bounds
    alt: str
    trust: Sequence[str]
    facts: Sequence[tuple[str, str]]
    params: Sequence[tuple[str, str]]


def named(whys: Sequence[Explanation]) -> list[str]:
    """A title for each; the same method with other settings gets a number."""
    titles = [title(why.method) for why in whys]
    return [f"{t} ({titles[: i + 1].count(t)})" if titles.count(t) > 1 else t for i, t in enumerate(titles)]


def registered(name: str) -> Method | None:
    try:
        return find(name)
    except InputError:
        return None


def title(name: str) -> str:
    """The name under which the literature knows a method."""
    method = registered(name)
    return method.title if method else name


def card(why: Explanation, name: str) -> Card:
    """Everything that the template shows of one explanation."""
    method, mapped = registered(why.method), is_map(why)
    values = why.map() if mapped else why.values[0]
    written = not mapped and usual(why, 0) == "text"
    signed = method.signed if method else bool((values < 0).any())
    shown, parts = (clipped(values) if mapped and why.components is None else values), strongest(why, signed)
    return Card(
        name=name,
        why=why,
        signed=signed,
        asks=method.asks if method else "",
        reads=method.reads if method else "",
        paper=method.paper if method else "",
        unit=why.unit,
        seen=under(why) if mapped else None,
        layer=as_data_uri(overlay(shown)) if mapped else None,
        coarse=mapped and min(values.shape) < COARSE,
        ratio=f"{values.shape[1]} / {values.shape[0]}" if mapped else "auto",
        words=coloured(why) if written else (),
        broad=not mapped and usual(why, 0) == "matrix" and why.values.shape[1] > FEW,
        bars=None if mapped or written else drawn(why),
        scale=scale(shown, signed),
        range=f"{words.number(values.min())} to {words.number(values.max())}",
        clipped=bool(limit(shown) < limit(values)),
        parts=parts,
        rule="rule" in why.details,
        nothing=why.details["rule"][0] if "rule" in why.details else "All values are zero: by this method, nothing in the input moves the score.",
        bound=mapped and why.components is None and why.std_error is not None,
        alt=described(name, parts, "Map" if mapped else "Picture"),
        trust=[*why.trust(), *warnings(why)],
        facts=facts(why),
        params=[(key, words.plain(value)) for key, value in why.params.items()],
    )


def under(why: Explanation) -> str | None:
    picture = why.pictures[0] if why.pictures else None
    return None if picture is None else images.pale(picture)


def drawn(why: Explanation) -> str:
    """The usual picture of values that have no place in a photo; the card has its title already."""
    sums = why.residual is not None and why.base_value is not None and why.held() is not None
    how = "waterfall" if sums and usual(why, 0) == "bars" else "auto"
    axes = why.plot(how=how)
    axes.set_title("")
    axes.set_xlabel(textwrap.fill(axes.get_xlabel(), UNDER))
    if usual(why, 0) == "bars":
        figure: Any = axes.figure
        names = max(label.get_window_extent().width for label in axes.get_yticklabels()) / figure.dpi
        figure.set_size_inches(names + BARS, figure.get_figheight())
    return as_data_uri(axes)


def scale(values: np.ndarray, signed: bool) -> Scale:
    """Symmetric about zero, as the map is coloured; from zero up where nothing is negative."""
    top, plus = limit(values), words.signed if signed else words.number
    if not values.any():
        return Scale("", "0", "", images.hexed(COLOURS, 0.5))
    if (values < 0).any():
        return Scale(words.number(-top), "0", plus(top), images.gradient())
    return Scale("0", "", plus(top), images.gradient(low=0.5))


def strongest(why: Explanation, signed: bool, k: int = 5) -> list[Part]:
    """The strongest parts that are not zero."""
    if is_map(why) and why.components is None:
        return [part(name, value, signed, error_of_cell(why, name), centre(why, name), why) for name, value in why.top(k) if value != 0]
    names, values = why[0]._parts()
    shown, errors = shown_names(why, names), errors_of(why, len(values))
    order, rounding = np.argsort(-np.abs(values), kind="stable")[:k], 1e-12 * limit(values)
    return [part(shown[j], float(values[j]), signed, errors[j], inside(why, j), why) for j in order if abs(values[j]) > rounding]


def shown_names(why: Explanation, names: Sequence[str]) -> Sequence[str]:
    """With what a table holds there, and with its place where a text has a word several times."""
    if not why.readings:
        held = names if "rule" in why.details else names_of(why, 0)  # a condition names the value that it is about
        return held if len(held) == len(names) else names
    return [
        f"{name} ({words.ordinal(names[: j + 1].count(name))} of {names.count(name)})" if names.count(name) > 1 else name
        for j, name in enumerate(names)
    ]


def errors_of(why: Explanation, count: int) -> np.ndarray:
    """One standard error for each part, NaN where it is not known."""
    return why.std_error[0] if why.std_error is not None and why.std_error.shape == (1, count) else np.full(count, np.nan)


def part(name: str, value: float, signed: bool, error: float, at: tuple[float, float] | None, why: Explanation) -> Part:
    doubtful = bool(np.isfinite(error) and abs(value) < 2 * error)
    text = "" if why.std_error is None else f"± {words.number(error)}" if np.isfinite(error) else "–"
    where, detail = (words.place(at[1] / 100, at[0] / 100), name) if at and SPAN.match(name) else (name, "")
    tone = ("for" if value > 0 else "against") if signed else ""
    return Part(where, detail, (words.signed if signed else words.number)(value), tone, text, doubtful, at)


def error_of_cell(why: Explanation, name: str) -> float:
    """The mean of the errors of a cell's pixels, which the cell's own cannot exceed."""
    span = span_of(name)
    if why.std_error is None or span is None:
        return float("nan")
    top, bottom, left, right = span
    return float(replace(why, values=why.std_error).map()[top:bottom, left:right].mean())


def span_of(name: str) -> tuple[int, int, int, int] | None:
    """top, bottom, left, right of a part whose name says where it lies."""
    found = SPAN.match(name)
    if found is None:
        return None
    r0, r1, c0, c1 = map(int, found.groups())
    return r0, r1 + 1, c0, c1 + 1


def centre(why: Explanation, name: str) -> tuple[float, float] | None:
    """Where to put the number of a cell of a map: left and top in percent."""
    span = span_of(name)
    if span is None:
        return None
    (height, width), (top, bottom, left, right) = why.map().shape, span
    return 50 * (left + right) / width, 50 * (top + bottom) / height


def inside(why: Explanation, component: int) -> tuple[float, float] | None:
    """The pixel of a region that is nearest to its centre of mass, which may itself lie outside; None where there are no regions."""
    if why.regions is None or not is_map(why):
        return None
    mask = why.regions[0] == component
    y, x = np.nonzero(mask)
    if len(y) == 0:
        return None
    k = int(((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin())
    return 100 * (x[k] + 0.5) / mask.shape[1], 100 * (y[k] + 0.5) / mask.shape[0]


def described(name: str, parts: Sequence[Part], drawn: str) -> str:
    """The picture for those who cannot see it."""
    if not parts:
        return f"{drawn} by {name}: zero everywhere."
    return f"{drawn} by {name}. Strongest: " + "; ".join(f"{p.name}, {p.value}" for p in parts[:3]) + "."


def warnings(why: Explanation) -> list[str]:
    """What a reader has to know before believing the map."""
    fits = why.details.get("fidelity")
    if fits and min(fits) < POOR_FIT:
        return ["the surrogate leaves most of the variance unexplained: read its numbers with caution"]
    return []


def facts(why: Explanation) -> list[tuple[str, str]]:
    """Cost and findings, without those that `trust` already says in a sentence."""
    base = [] if why.base_value is None else [("base value (nothing present)", words.number(float(why.base_value[0])))]
    seed = [] if why.seed is None else [("seed", str(why.seed))]
    told = ("fidelity", "bfloat16_deviation", "note", "rule")
    found = [(key.replace("_", " "), words.plain(value)) for key, value in why.details.items() if key not in told and value not in ((), [], "")]
    return [("model calls", f"{why.model_calls:,}"), ("time", f"{words.number(why.seconds)} s"), *seed, *base, *found]
