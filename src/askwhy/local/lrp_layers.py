"""Layer-wise relevance propagation through sums, products and linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError
from askwhy.local.lrp_input import note_origin, origin_of
from askwhy.local.lrp_rules import Choice, Part, Plan, Share, minus, plus, same
from askwhy.local.propagate import Linear, folded, linear_of, put, tensors
from askwhy.operations import key_of, writes
from askwhy.rules import Kept, Record, note, noted, relay

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@dataclass
class Flow:
    """What one pass of relevance keeps: the plan, and what did not reach the input."""

    plan: Plan
    box: tuple[Any, Any] | None
    record: Record = field(default_factory=Record)
    bias: Any = 0.0  # [n]: relevance that the biases took
    stabilizer: Any = 0.0  # [n]: relevance that the stabilizers took
    emitted: Any = 0.0  # relevance that a rule of the first layer gave to the input itself
    mixed: bool = False
    n: int = 0
    layers: list[str] = field(default_factory=list)  # the names of the modules that are running

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """[n]: by_item(a b)"""
        if a.shape == b.shape and a.ndim > 1 and a.shape[0] == self.n:
            return torch.linalg.vecdot(a.flatten(1), b.flatten(1).to(a.dtype))
        return self.by_item(a * b)

    def by_item(self, t: torch.Tensor) -> torch.Tensor:
        """[n]: the sum over everything but the items."""
        if t.shape and t.shape[0] == self.n:
            return t.flatten(1).sum(1) if t.ndim > 1 else t
        self.mixed = True
        return t.sum().expand(self.n) / self.n


def mark(out: Any) -> Any:
    """Note on a result that it scales what it is multiplied with."""
    for t in out if isinstance(out, (tuple, list)) else [out]:
        if isinstance(t, torch.Tensor):
            note(t, "gate", t._version)
    return out


def is_gate(t: torch.Tensor) -> bool:
    return bool(noted(t, "gate") == t._version)


def carry(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """What only moves numbers keeps the mark, and what is known of where it comes from."""
    active = tensors((*args, *kwargs.values()))
    if len(active) != 1:
        return op(*args, **kwargs)
    (x,) = active
    gate, origin = is_gate(x), origin_of(x)  # asked before op may write into x
    out = op(*args, **kwargs)
    if origin is not None and key_of(op) not in ("sum", "mean"):
        note_origin(origin, op, args, kwargs, x, out)
    return mark(out) if gate else out


def product(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A gate counts as constant; two signals share the relevance equally."""
    key, active = key_of(op), tensors((*args, *kwargs.values()))
    if len(active) == 1:
        if key in ("matmul", "einsum"):
            return linear(state, op, *args, **kwargs)
        return carry(state, op, *args, **kwargs)
    gates = [id(t) for t in active if is_gate(t)]
    target = args[0] if writes(op, args, kwargs) else None
    if gates and len(gates) < len(active):
        args = tuple(a.detach() if id(a) in gates else a for a in args)
    args = args if target is None else (args[0].clone(), *args[1:])
    out = op(*args, **kwargs)
    if len(gates) in (0, len(active)):
        out.register_hook(lambda g: g / len(active))
    out = out if target is None else target.copy_(out)
    return mark(out) if len(gates) == len(active) else out


def affine(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A sum with constants: their part of the relevance goes to the bias."""
    active = tensors((*args, *kwargs.values()))
    fixed = op(*zeroed(args), **{k: zeroed([v])[0] for k, v in kwargs.items()})
    found = biased(state, op, args, kwargs, active[0], fixed) if len(active) == 1 else None
    if found is not None:
        return found
    out = carry(state, op, *args, **kwargs)
    if len(active) < 2 or key_of(op) not in ("add", "sub", "rsub"):
        note_bias(state, out, fixed)
    if key_of(op) == "add" and len(active) == len(args) == 2 and args[1] is active[1] and not writes(op, args, kwargs):
        note_sum(out, *active)
    return out


def biased(state: Flow, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], x: torch.Tensor, fixed: torch.Tensor) -> Any:
    """A bias belongs to the layer that is written before it, x W + b or z + x W + b; None where this adds no bias to a layer."""
    made, summed = made_of(x), summed_of(x)
    if made is not None:
        layer = with_bias(made.layer, op, args, fixed)
        return None if layer is None else joined(state, replace(made, layer=layer), op, args, kwargs, x)
    if summed is None or writes(op, args, kwargs):
        return None
    last = biased(state, op, put(summed.last, x, args), kwargs, summed.last, fixed)
    return None if last is None else note_sum(summed.first + last, summed.first, last)


def zeroed(args: Any) -> list[Any]:
    """The arguments with zeros for what depends on the input."""
    return [
        torch.zeros_like(a) if isinstance(a, torch.Tensor) and a.requires_grad else zeroed(a) if isinstance(a, (list, tuple)) and tensors(a) else a
        for a in args
    ]


def note_bias(state: Flow, out: torch.Tensor, fixed: torch.Tensor) -> None:
    """When the gradient passes `out`, count the relevance of its fixed part."""

    def hook(g: torch.Tensor) -> None:
        state.bias = state.bias + state.by_item(torch.where(g == 0, 0.0, g * fixed))

    if bool(fixed.any()):
        out.register_hook(hook)


def linear(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A convolution, a dense layer or a product with a fixed matrix, by the rule that the plan has for it."""
    layer = linear_of(key_of(op), op, args, kwargs)
    active = tensors((*args, *kwargs.values()))
    if len(active) > 1:
        return product(state, op, *args, **kwargs)
    if layer is None or layer.weight is active[0]:
        state.record.plain.update([key_of(op)])
        return op(*args, **kwargs)
    x = active[0]
    chosen = state.plan.choose(state.layers, layer, origin_of(x) is not None)

    def run(given: torch.Tensor) -> torch.Tensor:
        return op(*put(given, x, args), **kwargs)

    out = relay(state.record, run, (x,), {}, divide(state, layer, chosen, x))
    note(out, "made", Made(layer, chosen, x, x._version, out._version))
    return out


def with_bias(layer: Linear, op: Any, args: tuple[Any, ...], fixed: torch.Tensor) -> Linear | None:
    """The layer together with the bias that is added to it in a step of its own; None where that is no bias: one number for each channel."""
    turned = key_of(op) == "sub" and not tensors(args[:1])  # b - x W
    if key_of(op) not in ("add", "sub") or turned or len(args) != 2:
        return None
    (x,) = tensors(args)
    shape = torch.as_tensor(args[1] if args[0] is x else args[0]).shape
    axis = -1 if layer.dense else 1 - layer.weight.ndim
    if fixed.shape != x.shape or any(n != 1 for k, n in enumerate(shape) if k - len(shape) != axis):
        return None
    bias = fixed.movedim(axis, -1).reshape(-1, fixed.shape[axis])[0]
    return replace(layer, bias=bias if layer.bias is None else layer.bias + bias)


@dataclass(frozen=True)
class Summed:
    """Noted on the sum of two activations of which a linear layer made the last."""

    first: torch.Tensor
    last: torch.Tensor
    versions: tuple[int, int]


def note_sum(out: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    if made_of(last) is not None:
        note(out, "summed", Summed(first, last, (first._version, out._version)))
    return out


def summed_of(out: torch.Tensor) -> Summed | None:
    """Which two this tensor is the sum of, if none of the three was written to since."""
    found: Summed | None = noted(out, "summed")
    return found if found is not None and found.versions == (found.first._version, out._version) and made_of(found.last) else None


@dataclass(frozen=True)
class Made:
    """Noted on the output of a linear layer: how it came about."""

    layer: Linear
    chosen: Choice
    x: torch.Tensor
    x_version: int
    version: int

    def still(self, out: torch.Tensor) -> bool:
        """Whether neither side was written to since."""
        return self.version == out._version and self.x_version == self.x._version


def made_of(out: torch.Tensor) -> Made | None:
    """How this tensor came out of a linear layer, if neither side was written to since."""
    made: Made | None = noted(out, "made")
    return made if made is not None and made.still(out) else None


def joined(state: Flow, made: Made, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: torch.Tensor) -> Any:
    """A step that belongs to the linear layer before it: the relevance goes straight to that layer's input."""
    writing = writes(op, args, kwargs)
    value = given.detach().clone() if writing else given.detach()
    out = relay(state.record, lambda _: op(*put(value, given, args), **kwargs), (made.x,), {}, divide(state, made.layer, made.chosen, made.x))
    out = args[0].copy_(out) if writing else out
    note(out, "made", replace(made, version=out._version))
    return out


def divide(state: Flow, layer: Linear, chosen: Choice, given: torch.Tensor) -> Callable[[Kept, Kept], Callable[[torch.Tensor], torch.Tensor]]:
    """Gradient of the output -> gradient of x, so that gradient times value is the relevance."""
    origin = origin_of(given)
    if chosen.name in ("flat", "box") and origin is None:
        raise UnsupportedError(
            f"the rule {chosen.name!r} is for a layer that sees the input itself; choose another for this one with rule={{name: ...}}."
        )

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        def back(g: torch.Tensor) -> torch.Tensor:
            x, out = held.get().to(layer.weight.dtype), result.get()  # they differ under autocast
            found: torch.Tensor | None = None
            for share in chosen.divide(layer.weight, layer.bias, origin.bounds(state.box) if origin and chosen.name == "box" else None):
                here = origin if share.at_input else None
                share = here.on_the_input(share) if here else felt(share, x)
                s = per_contribution(state, layer, share, chosen.stabilizer, x, out, g * out)
                for part, weight in share.terms:
                    down = layer.transposed(x, weight, s)
                    if here:
                        state.emitted = state.emitted + here.relevance_of_input(part(x) * down)
                    else:
                        down = down if part is same else down * sign_mask(part, x)
                        found = down if found is None else found.add_(down)
            return x.new_zeros(x.shape, dtype=g.dtype) if found is None else found.to(g.dtype)

        return back

    return pull


def per_contribution(
    state: Flow, layer: Linear, share: Share, stabilizer: float, x: torch.Tensor, out: torch.Tensor, relevance: torch.Tensor
) -> torch.Tensor:
    """Relevance over the sum of the contributions; notes what the bias and the stabilizer take."""
    r = relevance if share.weight == 1 else relevance * share.weight
    r = r if share.when is None else torch.where(share.when(out), r, 0.0)
    z = out if share.whole else sum_of(layer, share, x)
    more = torch.copysign(torch.tensor(stabilizer, dtype=x.dtype, device=x.device), z)
    s = r.to(x.dtype) / (z + more)
    state.stabilizer = state.stabilizer + state.product(s, more)
    if share.bias is not None:
        at_once = layer.channel == 1 and s.ndim == layer.weight.ndim  # the places of a channel have one bias
        state.bias = state.bias + (state.product(s.flatten(2).sum(2), share.bias) if at_once else state.product(s, layer.spread(share.bias)))
    return s


def felt(share: Share, x: torch.Tensor) -> Share:
    """Without the parts of x that are zero everywhere: after a rectifier nothing is negative."""
    if len(share.terms) < 2:
        return share
    low, high = x.aminmax()
    left = [(part, weight) for part, weight in share.terms if not ((part is minus and low >= 0) or (part is plus and high <= 0))]
    return replace(share, terms=tuple(left or share.terms[:1]))


def sum_of(layer: Linear, share: Share, x: torch.Tensor) -> torch.Tensor:
    """The contributions, and the bias."""
    first, *others = (layer(part(x), weight) for part, weight in share.terms)
    z = sum(others, first)
    return z if share.bias is None else z + layer.spread(share.bias)


def sign_mask(part: Part, x: torch.Tensor) -> Any:
    """Which inputs a part is made of."""
    return 1.0 if part is same else (x > 0) if part is plus else (x < 0)


def batch_norm(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """Batch norm belongs to the linear layer before it: scale (w x + b - mean) + shift is one layer."""
    made = made_of(args[0])
    layer = folded(made.layer, op, args, kwargs) if made is not None else None
    if made is None or layer is None:
        return affine(state, op, *args, **kwargs)
    return joined(state, replace(made, layer=layer), op, args, kwargs, args[0])
