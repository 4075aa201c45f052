"""Layer-wise relevance propagation: the score is handed down layer by layer, each rule a value in a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import answer
from askwhy.explanation import Explanation
from askwhy.game import Progress
from askwhy.local.gradient import gradients, need_torch
from askwhy.local.lrp_layers import Flow, affine, batch_norm, carry, linear, mark, product
from askwhy.local.lrp_rules import Plan, read_plan
from askwhy.local.propagate import CONVOLUTIONS, ELEMENTWISE, MAXIMA, MOVES, PRODUCTS, SUMS, tensors
from askwhy.models.base import to_numpy
from askwhy.operations import key_of
from askwhy.registry import method
from askwhy.rules import Kept, Rule, check_graph, relay, rules
from askwhy.score import ask
from askwhy.tap import find_layer
from askwhy.written import WRITTEN

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="LRP",
    needs="gradients",
    inputs=("image", "table", "text", "several", "other"),
    asks="If the score is handed back layer by layer, each neuron passing on what it received in proportion to what fed it, how much arrives at each input?",
    reads="positive: this part of the input brought the score up; negative: it brought it down; together with the share of the biases they sum to the score",
    paper="Bach et al. 2015, https://doi.org/10.1371/journal.pone.0130140; attention: Ali et al. 2022, https://arxiv.org/abs/2202.07304",
    preference=15,
)
def lrp(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, rule: str | Mapping[str, str] = "epsilon-plus", box: tuple[Any, Any] | None = None,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """Relevance, shaped like the input, in score units: R_j = sum_k (x_j w_jk / sum_j x_j w_jk) R_k from the score down.

    rule: a composite ("epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "alpha2-beta1-flat"), one
    rule for all layers ("gamma(0.25)", "z-plus", ...), or {layer name: rule}, "" for the rest. box: (low, high) of
    valid inputs for the rule "box". Batch norm belongs to the layer before it; gates, attention weights and the spread
    in a layer norm count as constants. `residual`: what is lost beside the biases and stabilizers named in `details`.
    Bach et al. 2015; Ali et al. 2022. Raises UnsupportedError. Example: `askwhy.lrp(net, photo, rule="epsilon").plot()`.
    """
    score = ask(model, x, target, versus)
    net, plan = need_torch(score).net, read_plan(rule)
    found: list[Flow] = []
    shares: list[np.ndarray] = []

    def check(scores: torch.Tensor, state: Flow) -> None:
        state.n = len(scores)
        check_graph(scores, state.record, rectifiers=False)

    def finish(leaf: torch.Tensor, gradient: torch.Tensor, state: Flow) -> np.ndarray:
        shares.append(np.stack([np.broadcast_to(np.float64(to_numpy(part)), state.n) for part in (state.bias, state.stabilizer)]))
        found.append(state)
        return to_numpy((leaf * gradient).detach() + state.emitted)

    def run(size: int | str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        found.clear()
        shares.clear()
        around = partial(flow, net, plan, box)
        values = gradients(score, batch_size=size, progress=progress, around=around, check=check, finish=finish)
        bias, stabilizer = np.concatenate(shares, 1)
        gap = score.prediction - values.reshape(len(values), -1).sum(1) - bias - stabilizer
        return values, bias, stabilizer, gap / np.maximum(np.abs(score.prediction), 1e-12)

    values, bias, stabilizer, residual = run(batch_size)
    if len(score) > 1 and (any(state.mixed for state in found) or np.abs(residual).max() > GAP):
        # where the first axis of an activation does not count the items, the biases' share is known for one at a time
        values, bias, stabilizer, residual = run(1)
    unruled = Counter(name for state in found for name in state.record.plain if name not in KNOWN)
    details = {"bias_share": tuple(bias.tolist()), "stabilizer_share": tuple(stabilizer.tolist()), "without_rule": ", ".join(unruled)}
    return answer(score, values, residual=residual, details=details)


@contextmanager
def flow(net: torch.nn.Module, plan: Plan, box: tuple[Any, Any] | None) -> Iterator[Flow]:
    """Inside the block, the gradient times the input is the relevance."""
    state = Flow(plan, box)
    with ExitStack() as stack:
        for wanted in plan.layers:
            name, module = find_layer(net, wanted)
            stack.callback(module.register_forward_pre_hook(lambda *_, name=name: state.layers.append(name)).remove)  # type: ignore[misc]
            stack.callback(module.register_forward_hook(lambda *_: state.layers.pop() and None).remove)
        stack.enter_context(rules(net, table(state), WRITTEN, record=state.record, strict=False))
        yield state


def table(state: Flow) -> dict[str, Rule]:
    """Operation -> what becomes of the relevance. What is not named keeps its derivative, as a rectifier does."""
    named: dict[str, Callable[..., Any]] = dict.fromkeys((*CONVOLUTIONS, "linear"), linear)
    named |= dict.fromkeys(ELEMENTWISE - AS_GRADIENT - set(NORMALIZERS), elementwise)
    named |= dict.fromkeys(MOVES | {"sum", "mean", "neg"}, carry)
    named |= dict.fromkeys(("add", "sub", "rsub", "cat", "concat", "concatenate", "stack", "where", "masked_fill", "pad"), affine)
    named |= dict.fromkeys(GATES, gate)
    named |= dict.fromkeys(PRODUCTS, product)
    named |= {"div": quotient, "batch_norm": batch_norm, "torch_batch_norm": batch_norm, "pow": power}
    return {key: partial(rule, state) for key, rule in named.items()}


GAP = 1e-4  # of the score: from here on it is worth a second look, item by item
AS_GRADIENT = frozenset(["relu", "leaky_relu", "prelu", "rrelu", "log", "log2", "log10", "logit"])  # piecewise linear through 0, or infinite there
NORMALIZERS = ("rsqrt", "sqrt", "reciprocal", "rdiv", "norm", "vector_norm", "std", "var")
GATES = ("sigmoid", "hardsigmoid", "expit", "erf", "softmax", *NORMALIZERS)
KNOWN = MOVES | SUMS | MAXIMA | {"relu", "leaky_relu", "prelu", "maximum", "minimum", "fmax", "copy", "setitem", "grad", "div", "mul"}


def gate(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A factor; where it is not multiplied with anything it is an ordinary activation."""
    key = key_of(op)
    if key not in (*NORMALIZERS, "softmax"):
        return mark(elementwise(state, op, *args, **kwargs))
    out = op(*args, **kwargs)
    if isinstance(out, torch.Tensor) and out.requires_grad:
        out.register_hook(lambda g: state.record.plain.update([key]))  # only called where it is not a factor
    return mark(out)


def elementwise(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """f(x) = f(0) + slope x: the relevance goes to x, and that of f(0) to the bias."""
    if not args[0].requires_grad or len(tensors((*args, *kwargs.values()))) > 1:
        return NotImplemented

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        def back(g: torch.Tensor) -> torch.Tensor:
            x, y = held.get(), result.get()
            at_zero = op(x.new_zeros((1,) * x.ndim), *args[1:], **kwargs)
            if at_zero.any():
                state.bias = state.bias + state.by_item(g * at_zero)
                y = y - at_zero
            return (y / x).masked_fill_(x == 0, 0.0).mul_(g)

        return back

    return relay(state.record, op, args, kwargs, pull)


def power(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """x^p: a normalizer for a negative p."""
    p = args[1] if len(args) > 1 else kwargs.get("exponent")
    if isinstance(p, (int, float)) and p < 0:
        return mark(op(*args, **kwargs))
    return elementwise(state, op, *args, **kwargs)


def quotient(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A denominator counts as constant."""
    if isinstance(args[1], torch.Tensor) and args[1].requires_grad:
        if not (isinstance(args[0], torch.Tensor) and args[0].requires_grad):
            return mark(op(*args, **kwargs))
        return op(args[0], args[1].detach(), *args[2:], **kwargs)
    return carry(state, op, *args, **kwargs)
