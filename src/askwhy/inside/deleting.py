"""The test of a ranking of tokens: delete them in its order and see the score fall; and of attention: shuffle its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.components import Components, absent, grid_of, tokens
from askwhy.game import Game, Progress, batch_size_for, in_chunks
from askwhy.inside.attended import Looked, seen_pass, with_gradients
from askwhy.inside.attending import shuffled
from askwhy.places import real_places
from askwhy.reading import Reading, whole
from askwhy.score import Score, as_floats

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

STEPS = 20  # of the curve of deletion, from nothing to everything
MOST_PREFIX = 8  # class and register tokens before the patches; with more, another grid would fit as well


@dataclass(frozen=True)
class Tokens:
    """What the tokens of one item are, in the places of the model that are real."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    special: tuple[bool, ...]
    parts: Components | None  # of the input, of which the test takes tokens away
    players: tuple[int, ...]  # the component of each token, -1 for one that always stays
    reading: Reading | None = None
    grid: tuple[int, int, int] | None = None  # tokens before the patches, rows, columns


def tokens_of(score: Score, looked: Looked, count: int, i: int) -> Tokens:
    """The tokens of item i: of a text, patches of a picture, steps of a sequence, or without a known place in the input."""
    items = score.items
    if items.kind == "text":
        found = of_text(score, looked, count, i)
    elif items.kind == "image":
        found = of_picture(score, looked, count)
    elif items.kind == "other" and items.batch.ndim == 3 and items.batch.shape[1] == count:
        labels = np.repeat(np.arange(count)[:, None], items.batch.shape[2], 1)
        found = plain(count, Components(tuple(f"token {k}" for k in range(count)), labels))
    else:
        found = None
    return found or plain(count, None)


def plain(count: int, parts: Components | None) -> Tokens:
    players = tuple(range(count)) if parts else (-1,) * count
    return Tokens(tuple(f"token {k}" for k in range(count)), tuple(range(count)), (False,) * count, parts, players)


def of_text(score: Score, looked: Looked, count: int, i: int) -> Tokens | None:
    """Without the padding, unless the model looks at it."""
    (part,) = score.items.arguments.parts
    if not part.readings or int(np.prod(part.places)) != count:
        return None
    held = (real_places(score.items, range(i, i + 1), count) or [list(range(count))])[0]
    reading = part.readings[i]
    if looks_elsewhere(looked, held, i):
        reading, held = whole(reading, count) if len(reading.places) < count else reading, list(range(count))
    chosen = [k for k, place in enumerate(reading.places) if place in set(held)]
    special = tuple(bool(reading.special[k]) if reading.special else False for k in chosen)
    players = tuple(-1 if mark else reading.places[k] for k, mark in zip(chosen, special, strict=True))
    parts = tokens().make(score.items, i) if max(players, default=-1) >= 0 else None
    return Tokens(
        tuple(reading.tokens[k].strip() or reading.tokens[k] for k in chosen), tuple(reading.places[k] for k in chosen), special,
        parts, players, reading if len(chosen) == len(reading.places) else None,
    )  # fmt: skip


def looks_elsewhere(looked: Looked, held: Sequence[int], i: int) -> bool:
    """Whether real tokens look at padding."""
    rows = (looked.weights[k][i][:, held] for k in looked.rolled)  # [heads, held, tokens]
    return any((one.sum(-1) - one[..., held].sum(-1)).max() > 1e-3 for one in rows)


def of_picture(score: Score, looked: Looked, count: int) -> Tokens | None:
    """Patches on the grid that a convolution gave, or that square patches make; None where that is not clear."""
    (height, width), axis = grid_of(score.items)
    sizes = [s for s in range(1, min(height, width)) if height % s == 0 == width % s]
    fits = fitting(count, looked.grids) or fitting(count, [(height // s, width // s) for s in sizes])
    if len(fits) != 1:
        return None
    before, rows, columns = fits.pop()
    y, x = (np.arange(length) * cells // length for length, cells in ((height, rows), (width, columns)))
    names = tuple(f"row {r}, column {c}" for r in range(rows) for c in range(columns))
    parts = Components(names, y[:, None] * columns + x, tiles=True, channel_axis=axis)
    first = ("class token",) if before == 1 else tuple(f"token {k} before the patches" for k in range(before))
    special, players = (True,) * before + (False,) * len(names), (-1,) * before + tuple(range(len(names)))
    return Tokens((*first, *names), tuple(range(count)), special, parts, players, grid=(before, rows, columns))


def fitting(count: int, grids: Sequence[tuple[int, int]]) -> set[tuple[int, int, int]]:
    """The grids that leave few tokens over, as (tokens before them, rows, columns)."""
    return {(count - h * w, h, w) for h, w in grids if 0 <= count - h * w < min(h * w, MOST_PREFIX + 1)}


# ---- deletion --------------------------------------------------------------------------------------------------------


def deleted(
    score: Score, i: int, held: Tokens, rankings: Sequence[np.ndarray], samples: int, baseline: Any, seed: int, batch_size: int | str, tick: Progress | None
) -> dict[str, Any]:  # fmt: skip
    """The score of item i as tokens are deleted, the highest of each ranking [tokens] first.

    curves [rankings + 1, steps + 1], the last by leave-one-out; random [samples, steps + 1]; drops [tokens]: v(all) - v(all but one).
    """
    assert held.parts is not None, "the caller has tokens that can be taken away"
    rows, name = absent(baseline, score.items, i, held.parts, seed)
    at = np.flatnonzero(np.array(held.players) >= 0)
    players = np.array(held.players)[at]
    v = Game(score, i, held.parts, rows, batch_size=batch_size, tick=tick, total=len(at) + (len(rankings) + 1 + samples) * min(STEPS, len(at)))
    z = np.ones((len(at), len(v)), dtype=bool)
    z[np.arange(len(at)), players] = False
    drops = score.prediction[i] - v(z)
    orders = [np.argsort(-one[at], kind="stable") for one in rankings] + [np.argsort(-drops, kind="stable")]
    orders += [np.random.default_rng([seed, i, k]).permutation(len(at)) for k in range(samples)]
    found = v(np.concatenate([without(players[order], len(v)) for order in orders])).reshape(len(orders), STEPS + 1)
    whole_drops = np.zeros(len(held.names))
    whole_drops[at] = drops
    return {"curves": found[:-samples], "random": found[-samples:], "drops": whole_drops, "baseline": name}


def without(order: np.ndarray, count: int) -> np.ndarray:
    """z bool [steps + 1, count]: the first of `order` deleted, more at each step."""
    z = np.ones((STEPS + 1, count), dtype=bool)
    for step, gone in enumerate(np.rint(np.linspace(0, len(order), STEPS + 1)).astype(int)):
        z[step, order[:gone]] = False
    return z


def area(curves: np.ndarray) -> np.ndarray:
    """[..., steps + 1] -> [...]: the mean score from nothing deleted to everything."""
    return (curves[..., 1:] + curves[..., :-1]).mean(-1) / 2  # type: ignore[no-any-return]


# ---- shuffled weights ------------------------------------------------------------------------------------------------


def with_shuffled_weights(score: Score, i: int, looked: Looked, samples: int, seed: int, batch_size: int | str) -> np.ndarray:
    """The scores [samples] of item i with every row of every head's weights shuffled among the tokens that it looks at (Jain & Wallace 2019)."""
    alone = looked.flat or getattr(score.model, "seed", None) is not None
    size = batch_size_for(score, 1 if alone else batch_size, "attention, backward")

    def work(start: int, stop: int) -> np.ndarray:
        seeds = [np.random.SeedSequence([seed, i, k]).generate_state(1) for k in range(start, stop)]
        generators = [torch.Generator().manual_seed(int(one[0])) for one in seeds]  # one for each draw, whatever the batch size
        owners = [i] * len(seeds)
        batch = score.items.batch[owners]
        outputs, _ = seen_pass(score, batch, owners, lambda weights: shuffled(weights, generators))
        return as_floats(score.read(outputs, owners))

    with score.model.untouched(), with_gradients():
        return in_chunks(samples, work, size, None)
