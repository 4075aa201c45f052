"""From a model's passes to numbers for each token: rollout, gradient-weighted relevance, and the rows that the score reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError
from askwhy.game import BatchSize, Progress, batch_size_for, in_chunks
from askwhy.inside.attending import Attended, Edit, attending
from askwhy.rules import Record, check_graph
from askwhy.score import Score

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@dataclass(frozen=True)
class Looked:
    """The attentions of all items, in the order in which they ran; weights and their gradients [n, heads, queries, keys]."""

    layers: tuple[str, ...]
    weights: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]
    crosses: tuple[bool, ...]
    grids: tuple[tuple[int, int], ...]  # of the convolutions
    flat: bool

    @property
    def rolled(self) -> tuple[int, ...]:
        """The self-attentions over one set of tokens, which can be multiplied; none where tokens of another set come in between.

        A single query behind them, which pools the tokens, does no harm.
        """
        shapes = [weights.shape[2:] for weights in self.weights]
        over = [k for k, (queries, _) in enumerate(shapes) if queries > 1 or shapes[k] == (1, 1)]
        if any(self.crosses[k] or shapes[k][0] != shapes[k][1] for k in over) or len({shapes[k] for k in over}) != 1:
            return ()
        return tuple(over)


def look(score: Score, batch_size: int | str, tick: Progress | None) -> Looked:
    """One forward and backward pass for each item; the first alone, which shows how heads and items lie. Raises UnsupportedError."""
    if not score.items.batch.dtype.is_floating_point:
        raise UnsupportedError(
            f"x is {score.items.batch.dtype}; the gradient needs floating-point inputs. Scale the picture as the model was trained."
        )
    found: list[Looked] = []

    def work(start: int, stop: int) -> np.ndarray:
        found.append(one_pass(score, range(start, stop)))
        return np.zeros(stop - start)

    with score.model.untouched(), with_gradients():
        in_chunks(1, work, BatchSize(1, 1, fixed=True), tick if len(score) == 1 else None)
        size = batch_size_for(score, batch_size, "attention, backward")
        if found[0].flat or getattr(score.model, "seed", None) is not None:
            size = BatchSize(1, 1, fixed=True)
        if len(score) > 1:
            in_chunks(len(score) - 1, lambda start, stop: work(start + 1, stop + 1), size, tick)
    return joined(found)


def with_gradients() -> ExitStack:
    """Gradients on, whatever mode the caller is in."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    return stack


def seen_pass(score: Score, batch: torch.Tensor, owners: Sequence[int], edit: Edit | None = None) -> tuple[Any, Attended]:
    """The outputs of a pass that can be differentiated, and its attentions."""
    model: Any = score.model
    leaf = batch.clone().requires_grad_()
    with attending(model.net, len(batch), edit) as found:
        outputs = score.forward(leaf.clone(), owners)  # a copy, since the model may write into its input
    score.calls += len(batch)
    if not found.seen:
        raise UnsupportedError(
            "the model has no attention that was seen: no softmax whose result weighs values in a matmul, einsum or scaled_dot_product_attention. "
            "Of other networks ask occlusion, lrp or integrated_gradients, or read their layers with askwhy.activations."
        )
    return outputs, found


def one_pass(score: Score, items: range) -> Looked:
    outputs, found = seen_pass(score, score.items.batch[items.start : items.stop], items)
    scores = score.settle(outputs, items)
    if not scores.requires_grad:
        raise UnsupportedError("the score does not depend on the input through differentiable operations (no_grad, detach); relevance needs them.")
    check_graph(scores, Record(), rectifiers=False)
    grads = torch.autograd.grad(scores.sum(), [seen.at for seen in found.seen], allow_unused=True)
    slopes = [np.zeros_like(seen.weights) if g is None else seen.slope(g).float().cpu().numpy() for seen, g in zip(found.seen, grads, strict=True)]
    return Looked(
        tuple(seen.layer for seen in found.seen), tuple(seen.weights for seen in found.seen), tuple(slopes),
        tuple(seen.crosses for seen in found.seen), tuple(dict.fromkeys(found.grids)), found.flat,
    )  # fmt: skip


def joined(found: list[Looked]) -> Looked:
    """The passes as one. Raises UnsupportedError where the items go different ways."""
    first = found[0]
    ways = {tuple(zip(one.layers, (w.shape[1:] for w in one.weights), strict=True)) for one in found}
    if len(ways) > 1:
        raise UnsupportedError("the items go through different attentions, or different numbers of tokens; ask about one item at a time.")
    weights, slopes = (tuple(map(np.concatenate, zip(*(getattr(one, name) for one in found), strict=True))) for name in ("weights", "slopes"))
    return Looked(first.layers, weights, slopes, first.crosses, first.grids, first.flat)


# ---- one item: weights and slopes [heads, tokens, tokens] of each layer ---------------------------------------------


def rollout(weights: Sequence[np.ndarray]) -> np.ndarray:
    """[tokens, tokens]: the product over layers of (mean over heads + I) / 2, rows summing to 1 (Abnar & Zuidema 2020)."""
    joint = np.eye(weights[0].shape[-1])
    for one in weights:
        mixed = one.astype(np.float64).mean(0) + np.eye(len(joint))
        joint = mixed / mixed.sum(1, keepdims=True) @ joint
    return joint


def relevance(weights: Sequence[np.ndarray], slopes: Sequence[np.ndarray]) -> np.ndarray:
    """[tokens, tokens]: R <- R + mean over heads of relu(slope * weight) @ R from I on, less I (Chefer, Gur & Wolf 2021)."""
    found = start = np.eye(weights[0].shape[-1])
    for one, slope in zip(weights, slopes, strict=True):
        found = found + np.maximum(one.astype(np.float64) * slope, 0).mean(0) @ found
    return found - start


def rows_read(slopes: np.ndarray) -> np.ndarray:
    """[tokens], summing to 1: how strongly the score depends on each row of the last layer, as the length of its gradient.

    So it is [CLS] alone for a model that reads it, every real token for one that averages them, the last for a causal one.
    """
    lengths = np.sqrt((slopes.astype(np.float64) ** 2).sum((0, 2)))
    if not lengths.sum() > 0:
        raise UnsupportedError(
            "the score does not depend on the last attention (its gradient is 0: a saturated probability?); ask about the model's logits, or another target."
        )
    return lengths / lengths.sum()  # type: ignore[no-any-return]
