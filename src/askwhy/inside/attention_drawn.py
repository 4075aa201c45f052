"""Which picture shows an Attention: its numbers handed to the plain functions of `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy import show
from askwhy.errors import InputError, near
from askwhy.inside.attention_words import WARNING, caption, names, special
from askwhy.reading import Reading, segments
from askwhy.show.attention import caption as below

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "gradient": "gradient-weighted attention",
    "rollout": "attention rollout",
    "last layer": "attention of the last layer",
    "leave-one-out": "leave-one-out",
}
UNITS = {
    "gradient": "relevance", "rollout": "share of the rollout", "last layer": "attention weight, mean over heads",
    "leave-one-out": "drop of the score",
}  # fmt: skip


def draw(found: Any, ax: Axes | None, how: str, values: str, layer: int | None, head: int | None, i: int) -> Axes:
    if how not in WAYS:
        raise InputError(f"how={how!r}: {near(how, list(WAYS))}")
    i = found.item(i)
    if how != "matrix" and (layer, head) != (None, None):
        raise InputError(f"layer= and head= choose a matrix, as in plot(how='matrix', layer=0, head=3); how={how!r} has none.")
    if how != "words" and values != "gradient":
        raise InputError(f"values= chooses what colours the words; how={how!r} has none.")
    return WAYS[how](found, ax, i, values=values, layer=layer, head=head)


def as_words(found: Any, ax: Axes | None, i: int, values: str, **_: Any) -> Axes:
    numbers = found.ranking(values, i)
    words: dict[str, Any] = {"ax": ax, "title": f"{NAMES[values]}: {found.question(i)}", "unit": UNITS[values]}
    if found.grid:
        before, rows, columns = found.grid
        drawn = show.heatmap(*over_picture(found, numbers[before:].reshape(rows, columns), i), **words, clip=False)
    elif found.texts[i] is not None:
        reading = Reading(found.tokens[i], (), found.texts[i], found.spans[i])
        drawn = show.text(segments(reading, numbers), **words)
    else:
        drawn = show.bars(numbers, found.tokens[i], **words)
    return below(drawn, caption(found, values, i), 72)


def over_picture(found: Any, cells: np.ndarray, i: int) -> tuple[np.ndarray, Any]:
    """The map in the size of its picture, with the picture."""
    if found.pictures is None:
        return cells, None
    (height, width), picture = found.pictures.shape[1:3], found.pictures[i]
    y, x = (np.arange(length) * count // length for length, count in zip((height, width), cells.shape, strict=True))
    return cells[np.ix_(y, x)], picture


def as_heads(found: Any, ax: Axes | None, i: int, **_: Any) -> Axes:
    most = max(one.shape[1] for one in found.weights)
    places = [(k, h) for k in range(len(found.weights)) for h in range(most)]
    maps = [found.heads(k, h, i) if h < found.weights[k].shape[1] else None for k, h in places]
    titles = ["" if one is None else f"head {h}" for one, (_, h) in zip(maps, places, strict=True)]
    tokens = " x ".join(map(str, found.heads(0, 0, i).shape))
    title = f"where each head looks, {tokens} tokens, of which rows look at columns: {found.question(i)}"
    rows = [f"layer {k}" for k in range(len(found.weights))]
    drawn = show.tiles(maps, titles, ax, columns=most, title=title, unit="attention weight", rows=rows)
    return below(drawn, f"{WARNING}: it says where a layer looks, not what the answer hangs on", max(40, 20 * most))


def as_matrix(found: Any, ax: Axes | None, i: int, layer: int | None, head: int | None, **_: Any) -> Axes:
    layer = len(found.layers) - 1 if layer is None else layer
    weights = found.heads(layer, head, i)
    rows, columns = tokens_at(found, i, layer, weights)
    which = f"head {head}" if head is not None else f"mean over {found.weights[layer].shape[1]} heads"
    title = f"layer {layer}, {which}: {found.question(i)}"
    return below(show.attention_map(weights, rows, columns, ax, title=title, x="token that is looked at", y="token that looks"), sinks(found, i), 60)


def tokens_at(found: Any, i: int, layer: int, weights: np.ndarray) -> list[list[str]]:
    if layer in found.rolled:
        return [list(found.tokens[i])] * 2
    return [[f"{what} {k}" for k in range(count)] for what, count in zip(("query", "key"), weights.shape, strict=True)]


def sinks(found: Any, i: int) -> str:
    return "; ".join(special(found, i)) if found.rolled else ""


def as_layers(found: Any, ax: Axes | None, i: int, **_: Any) -> Axes:
    if not found.rolled:
        raise InputError(f"how='layers' needs self-attention over one set of tokens: {found.details['note']}; use how='heads'.")
    received = np.stack([found.heads(k, None, i).mean(0) for k in found.rolled])  # [layers, tokens]
    title = f"who is looked at, layer by layer: {found.question(i)}"
    unit = "mean attention weight over rows and heads"
    if found.grid:
        before, rows, columns = found.grid
        maps = [one[before:].reshape(rows, columns) for one in received]
        drawn = show.tiles(maps, [f"layer {k}" for k in found.rolled], ax, title=title, unit=unit)
    else:
        drawn = show.attention_map(
            received, [f"layer {k}" for k in found.rolled], found.tokens[i], ax, title=title, unit=unit, x="token that is looked at", y=""
        )
    return below(drawn, sinks(found, i), 60)


def as_deletion(found: Any, ax: Axes | None, i: int, **_: Any) -> Axes:
    if found.curves is None:
        raise InputError(
            "how='deletion' shows the deletion test, which was not made; ask with deletion=True."
            if "untested" not in found.details
            else f"there is no deletion test: {found.details['untested']}."
        )
    title = f"deletion test, {len(found.tokens[i])} tokens: {found.question(i)}"
    what = "patches" if found.grid else "tokens"
    return show.deletion(found.curves[i], names(), found.random[i], ax, title=title, unit=f"score of {found.question(i)}", what=what)


WAYS: dict[str, Any] = {"words": as_words, "heads": as_heads, "matrix": as_matrix, "layers": as_layers, "deletion": as_deletion}
