"""Which picture shows an Explanation: its numbers handed to the plain functions of `show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from askwhy import show
from askwhy.errors import InputError
from askwhy.reading import segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(why: Any, ax: Axes | None, i: int, how: str) -> Axes:
    """Item i of an Explanation as `how` says. Raises InputError for what this one has not."""
    if how not in ("auto", *WAYS):
        raise InputError(f"how={how!r}: choose 'auto', {', '.join(map(repr, WAYS))}.")
    variant = why.params.get("value_function")
    title = f"{why.method}{f' ({variant})' if variant else ''}: {why.question(i)}"
    return WAYS[usual(why, i) if how == "auto" else how](why, i, {"ax": ax, "title": title, "unit": why.unit})


def usual(why: Any, i: int) -> str:
    """What suits these values."""
    if why.components is not None and why.values.ndim == 3:
        return "matrix"
    if "rule" in why.details and not why.readings and why.regions is None:
        return "rule"
    if why.readings and why.readings[i].text is not None:
        return "text"
    return "bars" if why.regions is None and why.values.ndim == 2 else "map"


def as_map(why: Any, i: int, words: dict[str, Any]) -> Axes:
    return show.heatmap(why.map(i), picture_of(why, i), **words, clip=why.regions is None)


def as_text(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if not why.readings or why.readings[i].text is None:
        raise InputError("how='text' is for texts; this explanation has none.")
    return show.text(segments(why.readings[i], why[i].values[0]), **words)


def as_bars(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if why.values.ndim != 2:
        raise InputError(f"how='bars' needs one value a component, and the values have the shape {list(why.values.shape)}.")
    error = None if why.inputs else error_of(why, i)
    return show.bars(why[i]._parts()[1], names_of(why, i), error, **words)


def as_waterfall(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if why.residual is None or why.base_value is None or why.values.ndim != 2 or why.components is None:
        raise InputError(f"how='waterfall' needs values that sum to the score, as Shapley values do; {why.method} promises no sum for components.")
    return show.waterfall(why[i].values[0], names_of(why, i), float(why.base_value[i]), float(why.prediction[i]), error_of(why, i), **words)


def as_regions(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if why.regions is None:
        raise InputError("how='regions' needs superpixels or other regions of a picture.")
    return show.regions(why[i].values[0], why.regions[i], picture_of(why, i), error_of(why, i), **words)


def as_matrix(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if why.components is None or why.values.ndim != 3:
        raise InputError("how='matrix' is for interactions, values [n, d, d].")
    d = len(why.components[i])
    return show.matrix(why.values[i, :d, :d], names_of(why, i), **words)


def as_rule(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if "rule" not in why.details:
        raise InputError("how='rule' is for anchors, whose answer is a rule.")
    return show.card_of(why, words["ax"], i)


WAYS: dict[str, Callable[[Any, int, dict[str, Any]], Any]] = {
    "map": as_map, "text": as_text, "bars": as_bars, "waterfall": as_waterfall, "regions": as_regions, "matrix": as_matrix,
    "rule": as_rule,
}  # fmt: skip


def names_of(why: Any, i: int) -> tuple[str, ...]:
    """The components, with what a table holds in them; the conditions of a rule say it themselves."""
    if why.inputs or why.components is None:
        return why[i]._parts()[0]  # type: ignore[no-any-return]
    names = why.components[i]
    if "rule" in why.details:
        return names  # type: ignore[no-any-return]
    return tuple(f"{name} = {value}" if value else name for name, value in zip(names, why.data[i], strict=True)) if why.data else names


def error_of(why: Any, i: int) -> Any:
    return None if why.std_error is None else why[i].std_error[0]


def picture_of(why: Any, i: int) -> Any:
    return why.pictures[i] if why.pictures else None
