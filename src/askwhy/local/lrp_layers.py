"""Layer-wise relevance propagation through sums, products and linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import InputError, UnsupportedError
from askwhy.local.lrp_rules import Choice, Part, Plan, Share, plus, same
from askwhy.local.propagate import Linear, folded, linear_of, tensors
from askwhy.rules import Kept, Record, key_of, relay, writes

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
    leaf: torch.Tensor | None = None
    layers: list[str] = field(default_factory=list)  # the names of the modules that are running

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
            t._askwhy_gate = t._version  # type: ignore[attr-defined]
    return out


def is_gate(t: torch.Tensor) -> bool:
    return getattr(t, "_askwhy_gate", None) == t._version


def carry(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """What only moves numbers keeps the mark."""
    active, out = tensors(args), op(*args, **kwargs)
    return mark(out) if len(active) == 1 and is_gate(active[0]) else out


def product(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A gate counts as constant; two signals share the relevance equally."""
    key, active = key_of(op), tensors((*args, *kwargs.values()))
    if len(active) == 1:
        if key == "matmul":
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
    out = carry(state, op, *args, **kwargs)
    if len(active) < 2 or key_of(op) not in ("add", "sub", "rsub"):
        note_bias(state, out, fixed)
    return out


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
    if layer is None or len(active) != 1 or layer.weight is active[0]:
        return product(state, op, *args, **kwargs) if layer is None or len(active) > 1 else NotImplemented
    x = active[0]
    chosen = state.plan.choose(state.layers, layer, paddings(x) is not None)

    def run(given: torch.Tensor) -> torch.Tensor:
        return op(*(given if a is x else a for a in args), **kwargs)

    out = relay(state.record, run, (x,), {}, divide(state, layer, chosen, x))
    out._askwhy_made = Made(layer, chosen, x, x._version, out._version)
    return out


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


def divide(state: Flow, layer: Linear, chosen: Choice, given: torch.Tensor) -> Callable[[Kept, Kept], Callable[[torch.Tensor], torch.Tensor]]:
    """Gradient of the output -> gradient of x, so that gradient times value is the relevance."""
    padded = paddings(given)
    if chosen.name in ("flat", "box") and padded is None:
        raise UnsupportedError(
            f"the rule {chosen.name!r} is for a layer that sees the input itself; choose another for this one with rule={{name: ...}}."
        )

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        def back(g: torch.Tensor) -> torch.Tensor:
            x, out = held.get().to(layer.weight.dtype), result.get()  # they differ under autocast
            found = torch.zeros_like(x)
            for share in chosen.divide(layer.weight, layer.bias, bounds(state.box, x) if chosen.name == "box" else None):
                if share.at_input:
                    share = on_the_input(share, padded or [])
                s = per_contribution(state, layer, share, chosen.stabilizer, x, out, g * out)
                for part, weight in share.terms:
                    down = layer.transposed(x, weight, s)
                    if share.at_input:
                        emit(state, part(x) * down, padded or [])
                    else:
                        found += down * sign_mask(part, x)
            return found.to(g.dtype)

        return back

    return pull


def on_the_input(share: Share, padded: list[tuple[int, ...]]) -> Share:
    """The rule, where padding is no part of the input."""
    terms = tuple((lambda x, part=part: part(x) * inside(x, padded), weight) for part, weight in share.terms)
    return replace(share, terms=terms)


def inside(x: torch.Tensor, padded: list[tuple[int, ...]]) -> torch.Tensor:
    """1 where x is input, 0 where it is padding."""
    mask = torch.ones_like(x)
    for padding in padded:
        mask = without_padding(mask, padding)
    for padding in reversed(padded):
        mask = torch.nn.functional.pad(mask, padding)
    return mask


def emit(state: Flow, relevance: torch.Tensor, padded: list[tuple[int, ...]]) -> None:
    """Give relevance to the input itself."""
    for padding in padded:
        relevance = without_padding(relevance, padding)
    state.emitted = state.emitted + relevance


def per_contribution(
    state: Flow, layer: Linear, share: Share, stabilizer: float, x: torch.Tensor, out: torch.Tensor, relevance: torch.Tensor
) -> torch.Tensor:
    """Relevance over the sum of the contributions; notes what the bias and the stabilizer take."""
    r = relevance * share.weight if share.when is None else torch.where(share.when(out), relevance * share.weight, 0.0)
    bias = None if share.bias is None else layer.spread(share.bias)
    z = out if share.whole else sum((layer(part(x), weight) for part, weight in share.terms), torch.zeros_like(out)) + (0.0 if bias is None else bias)
    s = r.to(x.dtype) / (z + torch.where(z >= 0, stabilizer, -stabilizer).to(x.dtype))
    state.stabilizer = state.stabilizer + state.by_item(r - s * z)
    if bias is not None:
        state.bias = state.bias + state.by_item(s * bias)
    return s


def sign_mask(part: Part, x: torch.Tensor) -> Any:
    """Which inputs a part is made of."""
    return 1.0 if part is same else (x > 0) if part is plus else (x < 0)


def bounds(box: tuple[Any, Any] | None, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest and highest valid input: as given, else those of these items, by channel."""
    if box is not None:
        limits = [torch.as_tensor(limit).to(x.device, x.dtype) for limit in box]
        channels = x.shape[1] if x.ndim > 1 else 1
        if len(limits) != 2 or any(t.numel() not in (1, channels) for t in limits) or bool((limits[0] > limits[1]).any()):
            raise InputError(f"box={box}: give (low, high), each a number or one for each of the {channels} channels, with low <= high.")
        return tuple(t.reshape(-1, *(1,) * (x.ndim - 2)) for t in limits)  # type: ignore[return-value]
    axes = tuple(range(2, x.ndim)) or (1,)
    return x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)


RESCALING = ("CloneBackward", "SubBackward", "DivBackward", "MulBackward", "AddBackward", "ToCopyBackward", "ViewBackward")


def paddings(x: torch.Tensor) -> list[tuple[int, ...]] | None:
    """How x is the input itself, at most shifted, scaled and padded: the paddings, the last one first. None for anything else."""
    found, node = [], x.grad_fn
    while node is not None and not node.name().endswith("AccumulateGrad"):
        name = node.name().rstrip("0123456789").split("::")[-1]
        if name == "ConstantPadNdBackward":
            found.append(tuple(node._saved_pad))  # type: ignore[attr-defined]
        elif not name.endswith(RESCALING):
            return None
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return found


def without_padding(x: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
    """Cut off what was padded: (left, right, top, bottom, ...)."""
    for axis, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        x = x.narrow(-1 - axis, before, x.shape[-1 - axis] - before - after)
    return x


def batch_norm(state: Flow, op: Any, *args: Any, **kwargs: Any) -> Any:
    """Batch norm belongs to the linear layer before it: scale (w x + b - mean) + shift is one layer."""
    made: Made | None = getattr(args[0], "_askwhy_made", None)
    layer = folded(made.layer, op, args, kwargs) if made is not None and made.still(args[0]) else None
    if made is None or layer is None:
        return affine(state, op, *args, **kwargs)
    value = args[0].detach()
    return relay(state.record, lambda _: op(value, *args[1:], **kwargs), (made.x,), {}, divide(state, layer, made.chosen, made.x))
