"""Where a transformer looks: its attention matrices, rollout, gradient-weighted relevance, and the test that shows what they are worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import pad, versions
from askwhy.checks import whole
from askwhy.errors import InputError
from askwhy.game import Progress, over_items, progress_of
from askwhy.inside import attention_words
from askwhy.inside.asked import place
from askwhy.inside.attended import Looked, look, relevance, rollout, rows_read
from askwhy.inside.deleting import Tokens, deleted, tokens_of, with_shuffled_weights
from askwhy.kept import Kept
from askwhy.layers import torch_model
from askwhy.score import Score, ask

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANKINGS = ("gradient", "rollout", "last layer")  # of the tokens, in the order of the curves; behind them leave-one-out
TESTS = ("curves", "random", "drops", "shuffled")


@dataclass(frozen=True, eq=False)
class Attention(Kept):
    """Where a transformer looks. `values`, `rollout`, `last_layer` and `rows` are [n, tokens]; padding is left out.

    weights: one array [n, heads, queries, keys] for each attention, in the order in which they ran in `layers`; `rolled`
    are those whose product the rollout is. rows: how strongly the score reads each row of the last of them, summing to 1.
    curves [n, 4, 21], random [n, samples, 21]: the score as tokens are deleted in the order of RANKINGS and leave-one-out
    (`drops`), and in random orders. shuffled [n, samples]: the score with shuffled weights.
    """

    several = frozenset({"weights"})
    values: np.ndarray
    rollout: np.ndarray
    last_layer: np.ndarray
    rows: np.ndarray
    weights: tuple[np.ndarray, ...]
    layers: tuple[str, ...]
    rolled: tuple[int, ...]
    tokens: tuple[tuple[str, ...], ...]
    special: np.ndarray  # bool [n, tokens]
    target: tuple[str, ...]
    prediction: np.ndarray
    versus: tuple[str, ...] | None = None
    curves: np.ndarray | None = None
    random: np.ndarray | None = None
    drops: np.ndarray | None = None
    shuffled: np.ndarray | None = None
    texts: tuple[str | None, ...] = ()
    spans: tuple[tuple[tuple[int, int], ...], ...] = ()
    pictures: np.ndarray | None = None  # uint8 [n, h, w, 3]
    grid: tuple[int, ...] = ()  # tokens before the patches, rows, columns
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def matrices(self) -> np.ndarray:
        """All weights in one array [n, layers, heads, queries, keys]. Raises InputError where their shapes differ."""
        if len({one.shape for one in self.weights}) > 1:
            shapes = ", ".join(f"{list(one.shape[1:])} in {name!r}" for name, one in zip(self.layers, self.weights, strict=True))
            raise InputError(f"the attentions have different shapes, {shapes}; take weights[k].")
        return np.stack(self.weights, 1)

    def heads(self, layer: int, head: int | None = None, i: int = 0) -> np.ndarray:
        """[queries, keys] of item i: one head's weights, rows summing to 1, or (None) the mean over the heads."""
        found = self.weights[place("layer", layer, len(self.layers))][self.item(i)]
        if head is not None:
            found = found[[place("head", head, len(found))]]
        d = len(self.tokens[i]) if layer in self.rolled else None
        return found.mean(0)[:d, :d]  # type: ignore[no-any-return]

    def ranking(self, how: str, i: int = 0) -> np.ndarray:
        """[tokens] of item i by "gradient", "rollout", "last layer" or "leave-one-out"."""
        i, known = self.item(i), dict(zip((*RANKINGS, "leave-one-out"), (self.values, self.rollout, self.last_layer, self.drops), strict=True))
        if not self.rolled:
            raise InputError(f"there is no value for each token: {self.details['note']}. The matrices are weights[k]; plot(how='heads') shows them.")
        if known.get(how) is None:
            raise InputError(f"values={how!r}: choose {', '.join(repr(name) for name, one in known.items() if one is not None)}.")
        return known[how][i, : len(self.tokens[i])]  # type: ignore[index,no-any-return]

    def top(self, k: int = 5, i: int = 0) -> list[tuple[str, float]]:
        """The k tokens of item i with the highest gradient-weighted relevance, as (token, value)."""
        values = self.ranking("gradient", i)
        return [(self.tokens[i][j], float(values[j])) for j in np.argsort(-values, kind="stable")[: whole("k", k, 1)]]

    def item(self, i: int) -> int:
        return place("i", i, len(self))

    def question(self, i: int = 0) -> str:
        i = self.item(i)
        return f"{self.target[i]}{f' rather than {self.versus[i]}' if self.versus else ''}"

    def summary(self, i: int = 0) -> str:
        """Where item i's tokens look, what the deletion test says of it, the cost."""
        return attention_words.summary(self, self.item(i))

    def plot(
        self,
        ax: Axes | None = None,
        how: str | None = None,
        *,
        values: str = "gradient",
        layer: int | None = None,
        head: int | None = None,
        i: int = 0,
    ) -> Axes:
        """A picture of item i. Returns the axes and never shows them.

        how: "words" (or patches; the default where tokens have values) coloured by `values` ("gradient", "rollout", "last layer", "leave-one-out"), "heads" (layers by heads),
        "matrix" (one head, or the mean over heads, of one layer), "layers" (who is looked at in each), "deletion" (the test).
        """
        from askwhy.inside import attention_drawn

        return attention_drawn.draw(self, ax, how or ("words" if self.rolled else "heads"), values, layer, head, i)

    def __repr__(self) -> str:
        return f"<Attention of {len(self.layers)} layers, {len(self)} item{'s' * (len(self) > 1)}, {self.question()}>"


def attention(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, deletion: bool = True, baseline: Any = "auto", samples: int = 40, seed: int = 0,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Attention:  # fmt: skip
    """Where a text or image transformer looks: every softmax that weighs values, in whatever spelling, of the unmodified model.

    values: relevance R <- R + mean_heads relu(dS/dA * A) R for the target's score S (Chefer, Gur & Wolf 2021), read at the rows that S
    depends on ([CLS] alone, or all tokens of a mean). rollout: product of (mean_heads A + I) / 2 (Abnar & Zuidema 2020).
    Attention is no explanation (Jain & Wallace 2019; Wiegreffe & Pinter 2019): `deletion` replaces tokens by `baseline` in the order of
    each ranking, of leave-one-out and of `samples` random orders, and shuffles the weights as often; the summary says what came out.
    Cross-attention gives its weights only. Raises UnsupportedError for what is not seen (jit, compile, windows) or has no attention.
    Example: `askwhy.attention(model, "A fine film").plot(how="heads")`.
    """
    samples, seed = whole("samples", samples, 2, why=" of random orders, 20 or more for a test at the 5 % level"), whole("seed", seed)
    score = ask(torch_model(model), x, target, versus)
    with progress_of(progress, "attention") as tick:
        looked = look(score, batch_size, None if deletion else tick)
        rolled = looked.rolled
        if not rolled:
            return answer(score, looked, [], {}, {"note": why_not_rolled(looked)}, {}, None)
        count = looked.weights[rolled[0]].shape[-1]
        held = [tokens_of(score, looked, count, i) for i in range(len(score))]
        found = [of_item(looked, one, i) for i, one in enumerate(held)]
        tests = [
            tested(score, i, looked, held[i], found[i], samples, baseline, seed, batch_size, each)
            for i, each in enumerate(over_items(tick, len(score)))
            if deletion and held[i].parts is not None
        ]
    params: dict[str, Any] = {"deletion": deletion}
    details: dict[str, Any] = {"rows": "weighted by the length of the score's gradient at each"}
    if tests:
        params |= {"baseline": tests[0]["baseline"], "samples": samples}
    elif deletion:
        details["untested"] = "the tokens of this model have no known place in its input, so none could be deleted"
    values = {name: pad([one[k] for one in found]) for k, name in enumerate(("values", "rollout", "last_layer", "rows"))}
    if tests:
        values |= {name: pad([one[name] for one in tests]) if name == "drops" else np.stack([one[name] for one in tests]) for name in TESTS}
    return answer(score, looked, held, params, details, values, seed if tests else None)


def why_not_rolled(looked: Looked) -> str:
    crossing = next((k for k, yes in enumerate(looked.crosses) if yes), None)
    if crossing is not None:
        return f"{looked.layers[crossing]!r} attends from one set of tokens to another, and rollout is defined for self-attention"
    return f"the attentions have {', '.join(sorted({str(list(one.shape[2:])) for one in looked.weights}))} tokens, so they cannot be multiplied"


def of_item(looked: Looked, held: Tokens, i: int) -> tuple[np.ndarray, ...]:
    """Relevance, rollout, last layer and rows [tokens] of one item, without its padding."""
    weights, slopes = ([real(of[k][i], held) for k in looked.rolled] for of in (looked.weights, looked.slopes))
    rows = rows_read(slopes[-1])
    return rows @ relevance(weights, slopes), rows @ rollout(weights), rows @ weights[-1].astype(np.float64).mean(0), rows


def real(matrices: np.ndarray, held: Tokens) -> np.ndarray:
    """[heads, tokens, tokens] without the padding."""
    return matrices[:, held.places][:, :, held.places]


def tested(
    score: Score, i: int, looked: Looked, held: Tokens, found: Sequence[np.ndarray], samples: int, baseline: Any, seed: int, batch_size: Any,
    tick: Progress | None,
) -> dict[str, Any]:  # fmt: skip
    gone = deleted(score, i, held, found[:3], samples, baseline, seed, batch_size, tick)
    return {**gone, "shuffled": with_shuffled_weights(score, i, looked, samples, seed, batch_size)}


def answer(
    score: Score, looked: Looked, held: Sequence[Tokens], params: dict[str, Any], details: dict[str, Any], values: dict[str, np.ndarray], seed: int | None
) -> Attention:  # fmt: skip
    empty = np.zeros((len(score), 0))
    items, first = score.items, held[0] if held else None
    pictures = [one for one in items.pictures if one is not None] if first and first.grid else []
    return Attention(
        **{**dict.fromkeys(("values", "rollout", "last_layer", "rows"), empty), **values},
        weights=tuple(without_padding(one, held) if k in looked.rolled else one for k, one in enumerate(looked.weights)),
        layers=looked.layers, rolled=looked.rolled, tokens=tuple(one.names for one in held),
        special=pad([np.array(one.special) for one in held]).astype(bool) if held else empty.astype(bool),
        target=tuple(map(score.name, score.targets)), versus=None if score.versus is None else tuple(map(score.name, score.versus)),
        prediction=score.prediction.copy(), texts=tuple(one.reading.text if one.reading else None for one in held),
        spans=tuple(one.reading.spans or () if one.reading else () for one in held), pictures=np.stack(pictures) if len(pictures) == len(score) else None, grid=first.grid or () if first else (),
        params=params, details=details, model_calls=score.calls, seconds=time.perf_counter() - score.started, seed=seed, versions=versions(),
    )  # fmt: skip


def without_padding(weights: np.ndarray, held: Sequence[Tokens]) -> np.ndarray:
    """[n, heads, tokens, tokens]: the real tokens of each item in front, then zeros."""
    size = max(len(one.places) for one in held)
    out = np.zeros((*weights.shape[:2], size, size), weights.dtype)
    for row, own, one in zip(out, weights, held, strict=True):
        d = len(one.places)
        row[:, :d, :d] = real(own, one)
    return out
