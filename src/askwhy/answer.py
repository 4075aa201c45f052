"""From the numbers that a method found to the Explanation that it returns."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from askwhy.components import Components
from askwhy.explanation import Explanation
from askwhy.models.arguments import Part
from askwhy.models.base import CATEGORICAL, Items, is_missing, to_numpy
from askwhy.reading import Shown, in_words
from askwhy.score import Score
from askwhy.tables import as_numbers, kinds_of

MANY = 1000  # rows whose cells are worth so many words


def answer(
    score: Score,
    values: np.ndarray,
    *,
    components: list[Components] | None = None,
    params: Mapping[str, Any] | None = None,
    **found: Any,
) -> Explanation:
    """An Explanation of the question `score` with these values; the registry adds the method's name and parameters."""
    items, inputs = score.items, score.items.arguments
    if inputs is not None and values.shape[1:] == tuple(items.batch.shape[1:]):
        values = items.shown(values)
    named = None if components is None else tuple(tuple(c.names) for c in components)
    if named is None and items.names and values.ndim == 2:
        named = (items.names,) * len(values)
    painted = components is not None and components[0].labels is not None and components[0].labels.ndim == 2 and items.kind != "text"
    if inputs is not None and inputs.held_fixed:
        found = {**found, "details": {**found.get("details", {}), "held_fixed": ", ".join(inputs.held_fixed)}}
    why = Explanation(
        values=values,
        params=params or {},
        target=tuple(map(score.name, score.targets)),
        versus=None if score.versus is None else tuple(map(score.name, score.versus)),
        prediction=score.prediction.copy(),
        components=named,
        data=data_of(items, components, values) if items.kind == "table" else None,
        numbers=numbers_of(items) if items.kind == "table" and len(items.batch[0]) == values.shape[1] else None,
        regions=np.stack([c.labels for c in components]) if painted and components else None,  # type: ignore[misc]
        pictures=items.pictures,
        frames=tuple(None if f is None else (*f.box, *map(float, f.size)) for f in items.frames),
        model_calls=score.calls,
        seconds=time.perf_counter() - score.started,
        versions=versions(),
        **found,
    )
    if components is not None and components[0].reading is not None:
        return replace(why, readings=tuple(c.reading for c in components if c.reading is not None))
    return why if inputs is None else of_inputs(why, inputs.parts)


def data_of(items: Items, components: list[Components] | None, values: np.ndarray) -> tuple[tuple[str, ...], ...] | None:
    """What each item of a table holds in each component, in words."""
    rows = items.batch if isinstance(items.batch, np.ndarray) else to_numpy(items.batch)
    if components is None:
        return words_of(rows) if items.names and values.shape == rows.shape else None
    return tuple(tuple(", ".join(map(in_words_of, row[c.labels == k][:3])) for k in range(len(c))) for row, c in zip(rows, components, strict=True))


def words_of(rows: np.ndarray) -> tuple[tuple[str, ...], ...] | None:
    """Every cell of a table; nothing for many rows of numbers alone, which `why.held` reads from `why.numbers`."""
    if len(rows) > MANY and rows.dtype.kind in "fiu":
        return None
    return tuple(tuple(map(in_words_of, row)) for row in rows)


def numbers_of(items: Items) -> np.ndarray:
    """float64 [n, d] of a table, for pictures."""
    rows = items.batch if isinstance(items.batch, np.ndarray) else to_numpy(items.batch)
    kinds = items.kinds or kinds_of(rows)
    return np.stack([as_numbers(column, kind) if kind != CATEGORICAL else as_codes(column) for column, kind in zip(rows.T, kinds, strict=True)], 1)


def as_codes(column: np.ndarray) -> np.ndarray:
    """The place of each value among the column's levels, NaN for a missing one."""
    words = [None if is_missing(value) else str(value) for value in column.tolist()]
    places = {level: k for k, level in enumerate(sorted({word for word in words if word is not None}))}
    return np.array([np.nan if word is None else places[word] for word in words], np.float64)


def in_words_of(value: Any) -> str:
    if is_missing(value):
        return "missing"
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


def of_inputs(why: Explanation, parts: Sequence[Part]) -> Explanation:
    """The same with the names, words and pictures of what the model was given."""
    if len(parts) == 1:
        return in_words(why, parts[0].readings) if parts[0].readings else why
    if why.values.shape[1:] != (sum(int(np.prod(part.places)) for part in parts),):  # a map of the one input that is a picture
        return replace(why, pictures=next(part.pictures for part in parts if part.pictures))
    return replace(why, inputs=tuple(Shown(part.name, part.places, tuple(part.readings or ()), part.pictures) for part in parts))


def versions() -> dict[str, str]:
    """askwhy, Python, and those of the libraries in use that can change a number."""
    from askwhy._version import __version__

    used: dict[str, str] = {name: str(sys.modules[name].__version__) for name in ("numpy", "torch", "sklearn", "skimage") if name in sys.modules}
    return {"askwhy": __version__, "python": platform.python_version(), **used}


def pad(rows: list[np.ndarray], value: float = 0.0) -> np.ndarray:
    """[n, d] from rows of different length; a picture with fewer components than another is filled up, which why[i] cuts off."""
    out = np.full((len(rows), max(map(len, rows))), value)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
