"""DeepLIFT: the difference from a reference, handed down from the score by the slopes between the two."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import answer
from askwhy.components import absent, undivided
from askwhy.errors import InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, batch_size_for, in_chunks, progress_of
from askwhy.local.gradient import differentiate, grad_mode, need_torch
from askwhy.local.propagate import CONVOLUTIONS, ELEMENTWISE, MAXIMA, MOVES, PRODUCTS, SUMS, tensors
from askwhy.local.reveal_cancel import PLACES, add, batch_norm, fed_by, linear, move, reveal
from askwhy.models.base import to_numpy
from askwhy.operations import key_of, writes
from askwhy.registry import method
from askwhy.rules import Kept, Record, Rule, check_graph, relay, rules
from askwhy.score import Score, as_floats, ask
from askwhy.written import WRITTEN_IN_FULL

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="DeepLIFT",
    needs="gradients",
    inputs=("image", "table", "text", "several", "other"),
    asks="Compared with a reference input, which differences made the score what it is, when each neuron's change is handed back to what changed it?",
    reads="positive: this difference from the reference raised the score; negative: it lowered it; all together they are the difference of the two scores",
    paper="Shrikumar et al. 2017, https://arxiv.org/abs/1704.02685; background: Lundberg & Lee 2017, https://arxiv.org/abs/1705.07874",
)
def deep_lift(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, baseline: Any = "auto", background: Any = None, rule: str = "rescale",
    seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """(x - x0) m, shaped like the input, in score units; m multiplies (f(z) - f(z0)) / (z - z0) from the score down.

    baseline: the reference, an array or a name as in occlusion. background: rows [k, ...] instead, over which the mean
    is taken (DeepSHAP). rule: "rescale", or "reveal-cancel", where what raises a neuron and what lowers it count apart
    (behind a linear layer; `details["rescaled"]` counts the others). Products share their change equally; softmax,
    attention, norms and recurrent layers are written out in such steps. `residual`: sum - (score - base_value),
    relative; operations without a rule are in `details`. Shrikumar et al. 2017. Raises UnsupportedError.
    Example: `askwhy.deep_lift(net, x, baseline=0.0).values`.
    """
    if rule not in ("rescale", "reveal-cancel"):
        raise InputError(f"rule={rule!r}: choose 'rescale' or 'reveal-cancel'.")
    score = ask(model, x, target, versus)
    wrapped = need_torch(score)
    rows, names = references(score, baseline if background is None else background, seed)
    owners = np.repeat(np.arange(len(score)), [len(r) for r in rows])
    stacked = torch.as_tensor(np.concatenate(rows)).to(score.items.batch)
    values = np.zeros(tuple(score.items.batch.shape))
    without: Counter[str] = Counter()
    rescaled: list[int] = []
    if len(owners) > len(score):  # else the pass that is compared says as much
        score.predict()

    def work(start: int, stop: int) -> np.ndarray:
        own, before = owners[start:stop], stacked[start:stop]
        leaf = score.items.batch[own].clone().requires_grad_()
        with compared(wrapped.net, lambda batch: score.forward(batch, own.tolist()), before, rule) as state:
            outputs = score.forward(leaf.clone(), own.tolist())
            scores = score.read(outputs, own.tolist()) if len(owners) > len(score) else score.settle(outputs, range(start, stop))
            check_graph(scores, state.record, rectifiers=False)
            (found,) = differentiate(scores, [leaf])
        if found is None:
            raise UnsupportedError("the score does not depend on the input at all; check the target.")
        score.calls += 2 * len(own)
        rescaled.append(state.rescaled)
        without.update(name for name in (*state.record.plain, *state.record.compared) if name not in KNOWN)
        np.add.at(values, own, to_numpy(((leaf.detach() - before) * found).double()))
        return as_floats(score.read(state.outputs, own.tolist()))

    with wrapped.untouched(), grad_mode(), progress_of(progress, "deep_lift") as tick:
        at_rows = in_chunks(len(owners), work, batch_size_for(score, batch_size, "deep lift"), tick)
    count = np.bincount(owners)
    base = np.bincount(owners, at_rows) / count
    values /= count.reshape(-1, *(1,) * (values.ndim - 1))
    residual = (values.reshape(len(values), -1).sum(1) - (score.prediction - base)) / np.maximum(np.abs(score.prediction - base), 1e-12)
    params = {"baseline": ", ".join(sorted(names))}
    details = {"without_rule": ", ".join(without), "rescaled": max(rescaled)}
    return answer(score, values, base_value=base, residual=residual, params=params, details=details)


def references(score: Score, baseline: Any, seed: int) -> tuple[list[np.ndarray], set[str]]:
    """The reference rows [k, *item] of each item, and their names."""
    found = [absent(baseline, score.items, i, undivided(score.items), seed) for i in range(len(score))]
    return [rows for rows, _ in found], {name for _, name in found}


def slope_of(y: torch.Tensor, y0: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """(exp(x) - exp(x0)) / (x - x0) from the two exponentials; what is masked with -inf in both takes no part."""
    near = change.abs() < NEAR
    found = torch.where(near, y, (y - y0) / torch.where(near, 1.0, change))
    return torch.where(torch.isfinite(found), found, 0.0)


def rise_over_growth(rise: torch.Tensor) -> torch.Tensor:
    """|r| / (1 - exp(-|r|))"""
    r = rise.abs()
    return torch.where(r < NEAR, 1.0, r / -torch.expm1(-torch.where(r < NEAR, 1.0, r)))


@contextmanager
def compared(net: torch.nn.Module, run: Callable[[torch.Tensor], Any], baseline: torch.Tensor, rule: str) -> Iterator[Compared]:
    """Ask about the reference; then, inside the block, gradients are multipliers."""
    state = Compared(rule)
    with rules(net, table(state), WRITTEN_IN_FULL, record=state.record, strict=False):
        state.outputs = run(baseline.clone().requires_grad_().clone())  # the rules look at what depends on the input
        state.noting = False
        yield state


NEAR = 1e-7  # a difference below which the slope is the derivative
CUTS = ("relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max")  # whose slopes are exact, however small the difference


@dataclass
class Compared:
    """Two passes through one network: what the operations gave for the reference, in their order, then for the input."""

    rule: str = "rescale"
    record: Record = field(default_factory=Record)
    noted: deque[tuple[str, tuple[Kept, ...]]] = field(default_factory=deque)
    noting: bool = True
    rescaled: int = 0  # activations that no linear layer feeds, or that another rule was not asked for
    outputs: Any = None  # what the model gave for the reference

    def reference(self, key: str, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The values of the same operation in the reference's pass."""
        if not self.noted:
            raise unequal(key)
        name, found = self.noted.popleft()
        if name != key or [box.tensor.shape for box in found] != [t.shape for t in values]:
            raise unequal(key)
        return tuple(box.get() for box in found)

    def note(self, key: str, *values: torch.Tensor) -> None:
        self.noted.append((key, tuple(self.record.keep(t) for t in values)))


def unequal(key: str) -> UnsupportedError:
    return UnsupportedError(
        f"the model takes another way for the baseline than for the input (at {key}), so the two cannot be compared step by step; "
        "use integrated_gradients, occlusion or lime."
    )


def table(state: Compared) -> dict[str, Rule]:
    """Operation -> multiplier: change of the output over change of the input. What is not named is linear, or keeps its derivative."""
    named: dict[str, Callable[..., Any]] = dict.fromkeys(ELEMENTWISE, elementwise)
    named |= dict.fromkeys(MAXIMA, maximum)
    named |= dict.fromkeys(PRODUCTS, product)
    named |= dict.fromkeys(("softmax", "log_softmax", "logsumexp"), exponentials)
    if state.rule == "reveal-cancel":
        named |= dict.fromkeys((*CONVOLUTIONS, "linear"), linear) | dict.fromkeys(("batch_norm", "torch_batch_norm"), batch_norm)
        named |= dict.fromkeys(PLACES, move) | dict.fromkeys(("add", "sub"), add)
    return {key: partial(rule, state) for key, rule in named.items()}


KNOWN = MOVES | SUMS | CONVOLUTIONS | PRODUCTS | {"linear", "batch_norm", "torch_batch_norm", "copy", "setitem", "grad", "div", "where"}


def elementwise(state: Compared, op: Any, *args: Any, **kwargs: Any) -> Any:
    """Rescale: (f(x) - f(x0)) / (x - x0), the derivative where the two are equal."""
    if not isinstance(args[0], torch.Tensor) or not args[0].requires_grad or len(tensors((*args, *kwargs.values()))) > 1:
        return NotImplemented
    key, fed = key_of(op), fed_by(args[0])
    if state.noting:
        before = args[0].clone() if writes(op, args, kwargs) else args[0]
        out = op(*args, **kwargs)
        state.note(key, before, out)
        return out

    if fed is not None:
        z0, _ = state.reference(key, args[0], args[0])
        return reveal(state.record, fed, op, args, kwargs, z0, lambda z: derivative(op, z, args, kwargs))
    state.rescaled += 1

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        x0, y0 = state.reference(key, held.get(), result.get())

        def back(g: torch.Tensor) -> torch.Tensor:
            x, y = held.get(), result.get()
            change = x - x0
            slope = (y - y0).div_(change)
            if key in CUTS and not slope.sum().isnan():  # one quick pass, where no difference is 0 / 0
                return slope.mul_(g)
            near = (slope.isnan() if key in CUTS else change.abs_() < NEAR).flatten().nonzero().squeeze(1)
            if len(near):
                slope = slope.contiguous()
                slope.view(-1)[near] = derivative(op, x, args, kwargs, near)
            return slope.mul_(g)

        return back

    return relay(state.record, op, args, kwargs, pull)


def derivative(op: Any, x: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], at: torch.Tensor | None = None) -> torch.Tensor:
    """f'(x) of an elementwise operation, everywhere or at some places of x laid out in one row."""
    by_channel = any(isinstance(a, torch.Tensor) for a in (*args[1:], *kwargs.values()))  # which the places alone would not tell
    with torch.enable_grad():
        leaf = (x.flatten()[at] if at is not None and not by_channel else x).detach().requires_grad_()
        (found,) = torch.autograd.grad(op(leaf.clone(), *args[1:], **kwargs).sum(), leaf)
    return found.flatten()[at] if at is not None and by_channel else found


def maximum(state: Compared, op: Any, *args: Any, **kwargs: Any) -> Any:
    """max: the rise to the larger of the two maxima belongs to where the input's is, the rest to where the reference's is."""
    out = op(*args, **kwargs)
    best = out[0] if isinstance(out, tuple) else out
    key, x = key_of(op), args[0]
    if state.noting:
        state.note(key, x, best)
        return out
    x0, y0 = state.reference(key, x, best)

    def only_best(t: torch.Tensor) -> torch.Tensor:
        found = op(t, *args[1:], **kwargs)
        return found[0] if isinstance(found, tuple) else found

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        def back(g: torch.Tensor) -> torch.Tensor:
            x, y = held.get(), result.get()
            top = torch.minimum(y, y0) if key in ("amin", "min") else torch.maximum(y, y0)
            change = x - x0
            near = change.abs() < NEAR
            handed = scattered(only_best, x, g * (top - y0)) + scattered(only_best, x0, g * (y - top))
            return torch.where(near, scattered(only_best, x, g), handed / torch.where(near, 1.0, change))

        return back

    value = relay(state.record, lambda t: best.detach().clone(), (x,), {}, pull)
    return type(out)((value, *out[1:])) if isinstance(out, tuple) else value


def scattered(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """g, carried to where f takes its values from."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(f(leaf), leaf, g)
    return found


def product(state: Compared, op: Any, *args: Any, **kwargs: Any) -> Any:
    """a b - a0 b0 = (a - a0) (b + b0) / 2 + (b - b0) (a + a0) / 2."""
    active = tensors((*args, *kwargs.values()))
    key = key_of(op)
    if len(active) < 2:
        return linear(state, op, *args, **kwargs) if state.rule == "reveal-cancel" and key in ("matmul", "einsum") else NotImplemented
    if len(active) > 2:
        raise UnsupportedError(f"{key} multiplies {len(active)} activations at once; write it in steps of two.")
    values = tuple(t.detach().clone() if writes(op, args, kwargs) else t.detach() for t in active)
    if state.noting:
        state.note(key, *values)
        return op(*args, **kwargs)
    means = [(a + b) / 2 for a, b in zip(values, state.reference(key, *values), strict=True)]

    def of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        given = deque([first, second])
        return op(*swap(args, given), **{k: swap([v], given)[0] for k, v in kwargs.items()})

    halves = of(active[0].clone(), means[1]) + of(means[0].clone(), active[1])
    exact = of(values[0].clone(), values[1])
    out = halves + (exact - halves).detach()
    return args[0].copy_(out) if writes(op, args, kwargs) else out


def swap(args: Any, given: deque[torch.Tensor]) -> list[Any]:
    """The arguments with others in place of those that depend on the input."""
    return [
        given.popleft() if isinstance(a, torch.Tensor) and a.requires_grad else swap(a, given) if isinstance(a, (list, tuple)) else a for a in args
    ]


def exponentials(state: Compared, op: Any, *args: Any, **kwargs: Any) -> Any:
    """logsumexp by exp, sum and logarithm; log_softmax is x - logsumexp(x), softmax its exp; nothing overflows."""
    key, x = key_of(op), args[0]
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    keep = key != "logsumexp" or (args[2] if len(args) > 2 else kwargs.get("keepdim", False))
    if state.noting:
        state.note(key, x)
        return op(*args, **kwargs)

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        (x0,) = state.reference(key, held.get())

        def back(g: torch.Tensor) -> torch.Tensor:
            x = held.get()
            change = x - x0
            total, total0 = (torch.logsumexp(t, dim, keepdim=True) for t in (x, x0))
            s, s0, rise = (x - total).exp(), (x0 - total0).exp(), total - total0
            of_total = slope_of(s * rise.clamp(max=0).exp(), s0 * (-rise.clamp(min=0)).exp(), change) * rise_over_growth(rise)
            if key == "logsumexp":
                return of_total * (g if keep else g.unsqueeze(dim))
            g = g * slope_of(s, s0, change - rise) if key == "softmax" else g
            return g - of_total * g.sum(dim, keepdim=True)

        return back

    return relay(state.record, op, args, kwargs, pull)
