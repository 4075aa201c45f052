"""Which picture shows an Explanation: its numbers handed to the plain functions of `show`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy import show
from askwhy.errors import InputError, near
from askwhy.reading import segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(why: Any, ax: Axes | None, i: int, how: str, options: dict[str, Any]) -> Axes:
    """Item i of an Explanation, or all its rows, as `how` says. Raises InputError for what this one has not."""
    if how not in ("auto", *WAYS, *ROWS):
        raise InputError(f"how={how!r}: {near(how, ['auto', *WAYS, *ROWS])}")
    variant = why.params.get("value_function")
    way = usual(why, i) if how == "auto" else how
    check_options(way, options)
    words = {"ax": ax, "title": f"{why.method}{f' ({variant})' if variant else ''}: ", "unit": why.unit}
    if way in ROWS:
        words["title"] += question_of_all(why)
        return ROWS[way](why, words, **options)
    words["title"] += why.question(i)
    return WAYS[way](why, i, words)


def check_options(way: str, options: dict[str, Any]) -> None:
    known = list(inspect.signature(ROWS[way]).parameters)[2:] if way in ROWS else []
    for option in options:
        if option not in known:
            raise InputError(f"how={way!r} has no option {option!r}" + (f"; it has {', '.join(known)}." if known else "."))


def usual(why: Any, i: int) -> str:
    """What suits these values."""
    if why.outputs:
        return "importance"
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


def as_force(why: Any, i: int, words: dict[str, Any]) -> Axes:
    if why.residual is None or why.base_value is None or why.values.ndim != 2 or why.components is None:
        raise InputError(f"how='force' needs values that sum to the score, as Shapley values do; {why.method} promises no sum for components.")
    values = why[i].values[0]
    return show.force(values, names_of(why, i), float(why.base_value[i]), float(why.base_value[i] + values.sum()), **words)


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
    "map": as_map, "text": as_text, "bars": as_bars, "waterfall": as_waterfall, "force": as_force, "regions": as_regions, "matrix": as_matrix,
    "rule": as_rule,
}  # fmt: skip


# ---- all rows of a table ----------------------------------------------------------------------------------------------


def as_beeswarm(why: Any, words: dict[str, Any], most: int = 10, order: str | None = "mean") -> Axes:
    return show.beeswarm(alone(why, "beeswarm"), columns_of(why), cells_of(why), **words, most=most, order=order)


def as_importance(why: Any, words: dict[str, Any], cohorts: Sequence[Any] | None = None, most: int = 10) -> Axes:
    if why.outputs:
        return show.importance(why.values, columns_of(why), **words, outputs=why.outputs, most=most)
    if why.values.ndim == 3:
        return show.interaction_pairs(why.values, columns_of(why), **words, most=most)
    return show.importance(alone(why, "importance", mixed=True), columns_of(why), **words, cohorts=cohorts, most=most)


def as_dependence(why: Any, words: dict[str, Any], feature: int | str | None = None, partner: int | str | None = None) -> Axes:
    values, names, cells = alone(why, "dependence"), columns_of(why), cells_of(why)
    if cells is None:
        raise InputError("how='dependence' needs what the table holds, and this explanation does not know it.")
    j = int(np.abs(values).mean(0).argmax()) if feature is None else place_of(feature, names)
    chosen = partner == "auto" or partner is None
    other = show.strongest_partner(values[:, j], cells, j)[:1].tolist() if chosen else [place_of(partner, names)]
    second = (names[other[0]], cells[:, other[0]]) if other and len(values) > 1 else None
    return show.dependence(cells[:, j], values[:, j], names[j], **words, interacting=second)


def as_scatter(why: Any, words: dict[str, Any], feature: int | str | None = None) -> Axes:
    values, names, cells = alone(why, "scatter"), columns_of(why), cells_of(why)
    if cells is None:
        raise InputError("how='scatter' needs what the table holds, and this explanation does not know it.")
    j = int(np.abs(values).mean(0).argmax()) if feature is None else place_of(feature, names)
    return show.scatter(cells[:, j], values[:, j], names[j], **words)


def as_interactions(why: Any, words: dict[str, Any], most: int = 12) -> Axes:
    if why.values.ndim != 3 or why.outputs:
        raise InputError("how='interactions' is for interactions, values [n, d, d]: tree_shap(..., interactions=True), or shapley_interactions.")
    return show.interactions(why.values, columns_of(why), **words, most=most)


def as_decision(why: Any, words: dict[str, Any], highlight: Sequence[int] = (), most: int = 15) -> Axes:
    values = alone(why, "decision")
    return show.decision(values, columns_of(why), base_of(why, "decision"), **words, highlight=highlight, most=most)


def forces(why: Any, i: int | None, order: str) -> str:
    """The force picture as SVG: of item i, or of all rows side by side."""
    if i is not None:
        one = why[i]
        values, base = alone(one, "force")[0], base_of(one, "force")
        return show.force_svg(values, names_of(one, 0), base, base + float(values.sum()), title=f"{why.method}: {one.question()}", unit=why.unit)
    values, base = alone(why, "force"), base_of(why, "force")
    title = f"{why.method}: {question_of_all(why)}"
    return show.force_rows_svg(values, columns_of(why), base, features=cells_of(why), order=order, title=title, unit=why.unit)


def base_of(why: Any, how: str) -> float:
    """The base value that all rows share. Raises InputError."""
    if why.residual is None or why.base_value is None or np.ptp(why.base_value) > 1e-9 * max(1.0, float(np.abs(why.base_value).max())):
        raise InputError(f"how={how!r} needs values that sum from one base value to the score; {why.method} has not these.")
    return float(why.base_value[0])


ROWS: dict[str, Callable[..., Any]] = {
    "beeswarm": as_beeswarm, "importance": as_importance, "dependence": as_dependence, "scatter": as_scatter, "interactions": as_interactions,
    "decision": as_decision,
}  # fmt: skip


def alone(why: Any, how: str, mixed: bool = False) -> np.ndarray:
    """The values [n, d] of one question. Raises InputError where rows are explained for different classes, whose signs do not go together."""
    if why.outputs:
        raise InputError(f"how={how!r} shows one output; choose it, as why[{why.outputs[0]!r}].")
    if why.components is None or why.values.ndim != 2 or why.readings or len(set(why.components)) > 1:
        raise InputError(f"how={how!r} is for the columns of a table, values [n, d].")
    targets = sorted(set(zip(why.target, why.versus or why.target, strict=True)))
    if len(targets) > 1 and not mixed:
        raise InputError(
            f"how={how!r}: the rows are explained for different targets ({targets[0][0]}, {targets[1][0]}{', ...' if len(targets) > 2 else ''}), each for "
            "its predicted class, and their signs do not go together; explain them again with target=."
        )
    return why.values  # type: ignore[no-any-return]


def question_of_all(why: Any) -> str:
    if why.outputs:
        return "all outputs"
    asked = list(dict.fromkeys(why.question(i) for i in range(len(why))))
    return asked[0] if len(asked) == 1 else "the predicted class of each row"


def columns_of(why: Any) -> tuple[str, ...]:
    return why.components[0]  # type: ignore[no-any-return]


def cells_of(why: Any) -> np.ndarray | None:
    """What the table holds, [n, d]: numbers, or levels in words with None for a missing one."""
    if why.numbers is None or why.numbers.shape != why.values.shape[:2]:
        return None
    levels = [k for k in range(why.numbers.shape[1]) if why.data is not None and is_worded(why, k)]
    if not levels:
        return why.numbers  # type: ignore[no-any-return]
    found = why.numbers.astype(object)
    for k in levels:
        found[:, k] = [None if row[k] == "missing" else row[k] for row in why.data]
    return found  # type: ignore[no-any-return]


def is_worded(why: Any, k: int) -> bool:
    """Whether column k holds words, for which `numbers` has only codes."""
    for row, number in zip(why.data, why.numbers[:, k], strict=True):
        if row[k] != "missing":
            return row[k] not in (f"{number:.6g}", str(int(number)) if number == np.floor(number) else "")
    return False


def place_of(feature: int | str | None, names: Sequence[str]) -> int:
    if isinstance(feature, str):
        if feature not in names:
            raise InputError(f"feature={feature!r}: {near(feature, list(names))}")
        return list(names).index(feature)
    if feature is None or isinstance(feature, bool) or not 0 <= feature < len(names):
        raise InputError(f"feature={feature!r}: there are {len(names)}, counted from 0.")
    return int(feature)


def names_of(why: Any, i: int) -> tuple[str, ...]:
    """The components, with what a table holds in them; the conditions of a rule say it themselves."""
    if why.inputs or why.components is None:
        return why[i]._parts()[0]  # type: ignore[no-any-return]
    names = why.components[i]
    if "rule" in why.details:
        return names  # type: ignore[no-any-return]
    held = why.held(i)
    return names if held is None else tuple(f"{name} = {value}" if value else name for name, value in zip(names, held, strict=True))


def error_of(why: Any, i: int) -> Any:
    return None if why.std_error is None else why[i].std_error[0]


def picture_of(why: Any, i: int) -> Any:
    return why.pictures[i] if why.pictures else None
