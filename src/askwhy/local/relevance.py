"""Backward passes with other rules than the chain rule's, as tables `operation -> rule`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.answer import answer
from askwhy.errors import UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress
from askwhy.local.gradient import gradients, need_torch, refuse_tokens
from askwhy.operations import key_of
from askwhy.registry import SLOPE, method
from askwhy.rules import Record, Rule, check_graph, on_gradient, relay, rules
from askwhy.score import Score, ask

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="Guided backpropagation",
    needs="gradients",
    inputs=("image", "table", "other"),
    asks="Which parts of the input push the score up, following only the paths that push up all the way through the network?",
    reads="positive: more of it excites the class; negative: against it. The map shows fine structure and depends little on the class",
    unit=SLOPE,
    paper="Springenberg et al. 2015, https://arxiv.org/abs/1412.6806",
)
def guided_backprop(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, batch_size: int | str = "auto", progress: bool | Progress | None = None
) -> Explanation:
    """The gradient, where every rectifier also drops negative gradients: g_in = g_out [g_out > 0] [z > 0]; shaped like the input.

    Springenberg et al. 2015. Works for every spelling of ReLU and ReLU6, in-place and reused ones too; other
    activations keep their derivative and are listed in `details["untouched"]`. Raises UnsupportedError where a
    rectifier cannot be reached, or there is none. Example: `askwhy.guided_backprop(net, photo).plot()`.
    """
    return at_rectifiers(ask(model, x, target, versus), lambda record: keep_positive, batch_size, progress)


@method(
    title="Deconvnet",
    needs="gradients",
    inputs=("image", "table", "other"),
    asks="Which pattern in the input would push the score up, following every path back whose signal is positive, whether its neuron was active or not?",
    reads="positive: more of it excites the class; negative: against it. The map shows fine structure and depends little on the class",
    unit=SLOPE,
    paper="Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901",
)
def deconvnet(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, batch_size: int | str = "auto", progress: bool | Progress | None = None
) -> Explanation:
    """The gradient, where a rectifier passes on the positive part: g_in = g_out [g_out > 0]; shaped like the input.

    Max pooling sends it back to where the maximum was (its switches). Zeiler & Fergus 2014. Works for every spelling of
    ReLU and ReLU6. Raises UnsupportedError where a rectifier cannot be reached, or there is none.
    Example: `askwhy.deconvnet(net, photo).plot()`.
    """
    return at_rectifiers(ask(model, x, target, versus), only_positive, batch_size, progress)


def at_rectifiers(score: Score, make: Callable[[Record], Rule], batch_size: int | str, progress: bool | Progress | None) -> Explanation:
    """The gradient with another rule at every rectifier."""
    net, seen = need_torch(score).net, []
    refuse_tokens(score)

    def around() -> Any:
        record = Record()
        return rules(net, dict.fromkeys(RECTIFIERS, rectifier(make(record))), record=record)

    def check(scores: torch.Tensor, record: Record) -> None:
        check_graph(scores, record)
        check_rectifiers(record)
        seen.append(record)

    values = gradients(score, batch_size=batch_size, progress=progress, around=around, check=check)
    return answer(score, values, details={"rectifiers": sum(seen[0].ruled.values()), "untouched": ", ".join(untouched(seen[0]))})


LARGER_OF_TWO = ("maximum", "max", "fmax")  # with a tensor of zeros, on either side, they are a rectifier
ACTIVATIONS = frozenset(
    ["gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "prelu", "rrelu", "softplus", "hardswish", "tanh", "logsigmoid"]
)


RECTIFIERS = ("relu", "relu6", "hardtanh", "threshold", "clamp", "clip", "clamp_min", *LARGER_OF_TWO)
keep_positive = on_gradient(lambda out: lambda g: g.clamp(min=0))


def only_positive(record: Record) -> Rule:
    """A rule: the operation as it is, and backward the positive part of the gradient, whatever the operation cut off."""

    def rule(op: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(a, torch.Tensor) and a.requires_grad for a in args[:1]):  # zero first, as in maximum(0, x)
            args = (*args[1:2], args[0], *args[2:])
        return relay(record, op, args, kwargs, lambda held, result: lambda g: g.clamp(min=0))

    return rule


def rectifier(rule: Rule) -> Rule:
    """A rule for those calls that cut at 0 from below, and not between other bounds."""

    def chosen(op: Any, *args: Any, **kwargs: Any) -> Any:
        return rule(op, *args, **kwargs) if cuts_at_zero(key_of(op), args, kwargs) else NotImplemented

    return chosen


def cuts_at_zero(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call of clamp, hardtanh, ... cuts at 0 from below."""
    if name in ("relu", "relu6"):
        return True
    if name in LARGER_OF_TWO:
        return any(isinstance(a, torch.Tensor) and not a.requires_grad and bool((a == 0).all()) for a in (*args, *kwargs.values()))
    word = {"hardtanh": "min_val", "threshold": "threshold"}.get(name, "min")
    bound = kwargs.get(word, args[1] if len(args) > 1 else (-1.0 if name == "hardtanh" else None))
    if name == "threshold":
        value = kwargs.get("value", args[2] if len(args) > 2 else None)
        return bound == 0 and value == 0
    if isinstance(bound, torch.Tensor):
        return not bound.requires_grad and bool((bound == 0).all())
    return bound == 0


def check_rectifiers(record: Record) -> None:
    """Refuse a model in which the rule found nothing to do, or in which a rectifier may hide in a comparison."""
    if record.compared:
        raise UnsupportedError(
            f"the model compares activations by hand ({', '.join(record.compared)}), which may be a rectifier that no rule can reach; write it as relu, or use gradient, occlusion or lime."
        )
    if not record.ruled:
        others = untouched(record)
        what = f"has {', '.join(others)} but no ReLU" if others else "has no ReLU"
        raise UnsupportedError(
            f"this method changes rectifiers, and this model {what}; it would silently be the plain gradient. Use gradient, smooth_grad, occlusion or lime."
        )


def untouched(record: Record) -> list[str]:
    """Activations that kept their own derivative, as "3 x gelu"."""
    return [f"{count} x {name}" for name, count in record.operations.items() if name in ACTIVATIONS]
