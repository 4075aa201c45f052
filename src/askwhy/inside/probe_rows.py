"""What is probed: rows of numbers, one for each item or word, of a model's layers, of its input, and of an untrained copy."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError, LayerError, UnsupportedError
from askwhy.game import Progress
from askwhy.inside.rows import Pile, real_parts, stacked
from askwhy.layers import Read as Part
from askwhy.layers import count, loads, read_layers, read_loads
from askwhy.models.arguments import whole_inputs
from askwhy.models.base import Items, show_shape, to_numpy
from askwhy.models.torch_module import TorchModel

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LARGEST_INPUT = 1024  # numbers of an item's own that are probed; a picture of more is made smaller
VOCABULARY = 2000  # word pieces whose counts stand for a text
PIECES = ("mean", "first", "last")
TURNS = 30  # of the power iteration
PARTS = ("_g", "_v", "_orig", "original", "original0", "original1")  # as torch names the parts of a weight that is made in each pass


@dataclass(frozen=True, eq=False)
class Words:
    """Sentences of words, as the model is given them."""

    texts: list[str]
    starts: list[np.ndarray]  # where each word begins in its text
    words: list[list[str]]

    def groups_in(self, given: Any) -> np.ndarray:
        """The group of each word: of its sentence; equal sentences are one group, and so are groups that share one."""
        _, sentence = np.unique(self.texts, return_inverse=True)
        if given is not None:
            sentence = joined(sentence, np.unique(np.asarray(given).astype(str), return_inverse=True)[1])
        return np.repeat(sentence, [len(words) for words in self.words])


def joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Items [n] that are alike in a or in b, or by way of others, are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = a.max() + b.max() + 2
    links = coo_array((np.ones(len(a)), (a, a.max() + 1 + b)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])[a]


def words_of(X: Any, y: Any) -> Words | None:
    """The sentences where y holds an answer for each word; None where it holds one for each item. Raises InputError."""
    if not isinstance(y, (list, tuple)) or not len(y) or not isinstance(y[0], (list, tuple, np.ndarray)) or np.shape(y[0]) == ():
        return None
    if not isinstance(X, (list, tuple)) or len(X) != len(y):
        told = f"{len(X)} sentences" if isinstance(X, (list, tuple)) else f"a {type(X).__name__}"
        raise InputError(f"y holds tags for {len(y)} sentences, and X is {told}; give a list of sentences, each a list of words.")
    words = [one.split() if isinstance(one, str) else [str(word) for word in one] for one in X]
    for k, (own, tags) in enumerate(zip(words, y, strict=True)):
        if len(own) != len(tags) or not own:
            raise InputError(f"sentence {k} has {len(own)} words and {len(tags)} tags ({' '.join(own)[:60]!r}); give one tag for each word.")
        empty = next((j for j, word in enumerate(own) if not word.strip()), None)
        if empty is not None:
            raise InputError(f"word {empty} of sentence {k} is empty ({own[empty]!r}); leave it out, with its tag.")
    starts = [np.cumsum([0, *(len(word) + 1 for word in own[:-1])]) for own in words]
    return Words([" ".join(own) for own in words], starts, words)


def owners_of(words: Words, k: int, items: Items, item: int) -> np.ndarray:
    """The word of each token of sentence k [tokens of the model], -1 for none. Raises InputError, UnsupportedError."""
    reading = items.arguments.parts[0].readings[item]
    if reading.spans is None:
        raise UnsupportedError("this tokenizer does not say where its tokens stand in the text; give the model one of transformers' fast tokenizers.")
    out = np.full(items.arguments.parts[0].places[0], -1)
    for place, (start, end) in zip(reading.places, reading.spans, strict=True):
        if end > start:  # by its last sign: some tokens begin with the space before them
            out[place] = np.searchsorted(words.starts[k], end - 1, "right") - 1
    missing = np.setdiff1d(np.arange(len(words.words[k])), out)
    if len(missing):
        raise InputError(
            f"the tokenizer makes no token of word {missing[0]} of sentence {k}, {words.words[k][missing[0]]!r}; leave it out, with its tag."
        )
    return out


def by_token(name: str, out: torch.Tensor, items: Items, own: range) -> torch.Tensor:
    places = items.arguments.parts[0].places
    if out.ndim != 3 or out.shape[1:2] != places:
        raise LayerError(f"layer {name!r} gives {show_shape(out)} for texts of {places[0]} tokens, and so no row for each word; name another.")
    return real_parts(out.detach()).clone()


def of_words(out: torch.Tensor, owners: np.ndarray, pieces: str) -> np.ndarray:
    """A layer's output for one sentence [places, d] -> a row for each of its words [words, d]."""
    at = np.flatnonzero(owners >= 0)
    order = at[np.argsort(owners[at], kind="stable")]
    first = np.flatnonzero(np.r_[True, np.diff(owners[order]) > 0])
    rows = to_numpy(out)[order].astype(np.float32)
    if pieces == "mean":
        return np.add.reduceat(rows, first, axis=0) / np.diff(np.r_[first, len(rows)])[:, None]
    return rows[first] if pieces == "first" else rows[np.r_[first[1:], len(rows)] - 1]


@dataclass(frozen=True, eq=False)
class Read:
    """Rows [n, d] by layer; of the input where it can be probed; the type of each word, [n]."""

    layers: dict[str, np.ndarray]
    raw: np.ndarray | None
    types: np.ndarray | None
    calls: int

    @property
    def rows(self) -> int:
        return len(next(iter(self.layers.values())))

    @property
    def sources(self) -> dict[str, np.ndarray | None]:
        """What is probed; for the input of words there are no rows, but their types."""
        return {"input": self.raw, **self.layers} if self.raw is not None or self.types is not None else dict(self.layers)


def read_words(model: TorchModel, words: Words, layer: Any, pieces: str, batch_size: Any, tick: Progress) -> Read:
    """Rows of words. Words that the model reads as the same pieces are of one type. Sentences of like length are read together."""
    if pieces not in PIECES:
        raise InputError(f"pieces={pieces!r}: choose {', '.join(map(repr, PIECES))}.")
    if model.tokenizer is None:
        raise InputError("y holds a tag for each word, and this model reads no words; give askwhy.wrap(net, tokenizer=...), or one y for each item.")
    order = np.argsort([len(text) for text in words.texts], kind="stable")
    kept: dict[str, dict[int, np.ndarray]] = {}
    types: dict[int, list[tuple[int, ...]]] = {}
    calls = 0
    for part in read_layers(model, [words.texts[k] for k in order], layer, by_token, batch_size=batch_size, tick=tick):
        ids = next(iter(whole_inputs(part.items.arguments).values())).cpu().numpy()
        for row, item in enumerate(part.own):
            k = int(order[part.which.start + row])
            owners = owners_of(words, k, part.items, item)
            types[k] = [tuple(ids[item][owners == j].tolist()) for j in range(len(words.words[k]))]
            for name, out in part.outs.items():
                kept.setdefault(name, {})[k] = of_words(out[row], owners, pieces)
        calls += len(part.own) + (0 if part.own.start else part.items.calls)
    whole = {name: stacked(name, [rows[k] for k in range(len(words.texts))]) for name, rows in kept.items()}
    numbers: dict[tuple[int, ...], int] = {}
    codes = [numbers.setdefault(one, len(numbers)) for one in chain.from_iterable(types[k] for k in range(len(words.texts)))]
    return Read(whole, None, np.array(codes), calls)


def read_items(models: Sequence[TorchModel], X: Any, layer: Any, pool: str, batch_size: Any, ticks: Sequence[Progress]) -> list[Read]:
    """Rows of items: of each model's layers, pooled over places, and the input itself. X is gone through once."""
    piles = [Pile(model, pool, np.float32) for model in models]
    raw: list[Any] = []
    feeds, n = shared(loads(X), len(models)), count(X)
    streams = [
        read_loads(model, feed, n, layer, pile.keep, batch_size=batch_size, tick=tick)
        for model, feed, pile, tick in zip(models, feeds, piles, ticks, strict=True)
    ]
    for k, part in in_turn(streams):
        piles[k].add(part)
        if k == 0:
            raw += raw_of(part.items, part.own)
    return [Read(pile.rows(), rows_of(raw) if pile is piles[0] else None, None, pile.calls) for pile in piles]


def shared(source: Iterator[Any], readers: int) -> list[Iterator[Any]]:
    """The same pieces for several readers, each let go when all have it (itertools.tee lets dozens go together)."""
    waiting: list[deque[Any]] = [deque() for _ in range(readers)]

    def feed(own: deque[Any]) -> Iterator[Any]:
        while True:
            if not own:
                try:
                    one = next(source)
                except StopIteration:
                    return
                for queue in waiting:
                    queue.append(one)
                del one
            yield own.popleft()

    return list(map(feed, waiting))


def in_turn(streams: Sequence[Iterator[Part]]) -> Iterator[tuple[int, Part]]:
    """The parts of several readings of the same items, each time of the one that is behind, so that few items are held."""
    done = dict.fromkeys(range(len(streams)), 0)
    while done:
        k = min(done, key=lambda k: done[k])
        part = next(streams[k], None)
        if part is None:
            del done[k]
        else:
            done[k] = part.which.stop
            yield k, part


def raw_of(items: Items, own: range) -> list[Any]:
    """What each item is for a model without layers: its numbers [d], or its word pieces."""
    if items.arguments is not None:
        parts = items.arguments.parts
        if len(parts) != 1 or not parts[0].readings:
            return []
        ids = next(iter(whole_inputs(items.arguments).values())).cpu().numpy()
        return [Counter(ids[k][list(parts[0].readings[k].places)].tolist()) for k in own]
    batch = real_parts(items.batch[own.start : own.stop], 1).float()
    if batch.ndim == 4 and batch[0].numel() > LARGEST_INPUT:
        side = max(1, int((LARGEST_INPUT / batch.shape[1]) ** 0.5))
        batch = torch.nn.functional.adaptive_avg_pool2d(batch, side)
    rows = to_numpy(batch.flatten(1))
    return list(rows) if rows.shape[1] <= 4 * LARGEST_INPUT else []


def rows_of(raw: Sequence[Any]) -> np.ndarray | None:
    """Rows [n, d] of numbers, or of the logarithms of counts; None where the input has no such rows."""
    if not raw or not isinstance(raw[0], Counter):
        return np.stack(raw) if raw and len({len(one) for one in raw}) == 1 else None
    total: Counter[int] = sum(raw, Counter())
    column = {piece: k for k, (piece, _) in enumerate(total.most_common(VOCABULARY))}
    out = np.zeros((len(raw), len(column)), np.float32)
    for k, counts in enumerate(raw):
        for piece, times in counts.items():
            if piece in column:
                out[k, column[piece]] = np.log1p(times)
    return out


def untrained(model: TorchModel, seed: int) -> TorchModel:
    """A copy with random weights: each module's own way to begin, and where it has none, its trained weights shuffled."""
    made = [t for part in model.net.modules() for t in vars(part).values() if isinstance(t, torch.Tensor) and not t.is_leaf]  # torch copies none
    try:
        net = deepcopy(model.net, {id(t): t.detach().clone() for t in made})
    except Exception as error:  # whatever the user's attributes raise
        raise UnsupportedError(f"the model cannot be copied ({error}), so there is no untrained one to compare with; take control=False.") from error
    state = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(seed)
        with torch.no_grad():
            for module in net.cpu().modules():
                begin(module)
            for module in net.modules():
                settle(module)
    finally:
        torch.default_generator.set_state(state)
    return replace(model, net=net.to(model.like.device), memory={})


def begin(module: torch.nn.Module) -> None:
    """What its own way leaves as it was is shuffled; parts that a weight is made of (weight_norm, prune, ...) are drawn with the same mean and spread."""
    before = {name: weight.clone() for name, weight in module._parameters.items() if weight is not None}
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        with suppress(TypeError):  # it wants to be told something
            reset()
    for name, weight in module._parameters.items():
        if weight is not None and torch.equal(weight, before[name]):
            if name.endswith(PARTS):  # zeros, shuffled, could make a row that has no length to be divided by
                weight.copy_(weight.mean() + weight.std(correction=0) * torch.randn_like(weight))
            else:
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))


def settle(module: torch.nn.Module) -> None:
    """A spectral norm keeps the vectors that it was measured with, which have to turn to the new weights."""
    from torch.nn.utils.spectral_norm import SpectralNorm

    hooks: list[Any] = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]
    for hook in hooks:
        for _ in range(TURNS):
            hook.compute_weight(module, do_power_iteration=True)
    made: Any = getattr(module, "parametrizations", {})
    for name, steps in made.items():
        steps.train()
        for _ in range(TURNS):
            getattr(module, name)
        steps.eval()
