"""DeepLIFT's reveal-cancel rule: what raises a neuron and what lowers it have multipliers of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.local.propagate import MOVES, Linear, after, alone, each, folded, linear_of, tensors
from askwhy.operations import key_of, writes
from askwhy.rules import Kept, Record, note, noted, relay

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@dataclass(frozen=True)
class Fed:
    """Noted on the output of a linear layer: the layer, its input x in both passes, how its numbers were moved since, and the versions."""

    layer: Linear
    x: torch.Tensor
    x0: torch.Tensor
    versions: tuple[int, int]
    moved: Callable[[torch.Tensor], torch.Tensor] | None = None

    def still(self, out: torch.Tensor) -> bool:
        return self.versions == (self.x._version, out._version)

    def note(self, out: torch.Tensor, **changed: Any) -> None:
        note(out, "fed", replace(self, versions=(self.x._version, out._version), **changed))

    def of(self, one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """What these two parts (input, weight) give together, without the bias."""
        whole = self.layer(*one) + self.layer(*other)
        return whole if self.moved is None else self.moved(whole)

    def back(self, weight: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """The gradient at the input of the layer."""
        if self.moved is not None:
            with torch.enable_grad():
                leaf = torch.zeros_like(self.layer(self.x.detach(), weight), requires_grad=True)
                (g,) = torch.autograd.grad(self.moved(leaf), leaf, g)
        return self.layer.transposed(self.x.detach(), weight, g)


def fed_by(out: torch.Tensor) -> Fed | None:
    """How this tensor came out of a linear layer, if it was not written to since."""
    fed: Fed | None = noted(out, "fed")
    return fed if fed is not None and fed.still(out) else None


def linear(state: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A linear layer keeps its derivative, and notes what feeds the neurons behind it."""
    layer, active = linear_of(key_of(op), op, args, kwargs), tensors((*args, *kwargs.values()))
    out = op(*args, **kwargs)
    if layer is None or len(active) != 1 or active[0] is layer.weight:
        return out
    if state.noting:
        state.note("linear", active[0])
        return out
    (x0,) = state.reference("linear", active[0])
    Fed(layer, active[0], x0, (0, 0)).note(out)
    return out


# what may lie between a linear layer and a neuron: each number is one of the layer's, in another place
PLACES = MOVES - {"pad", "masked_fill", "interpolate", "upsample", "unfold", "fold", "requires_grad"}


def move(state: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A neuron in another place is fed by the same layer."""
    active = tensors((*args, *kwargs.values()))
    fed = fed_by(active[0]) if len(active) == 1 else None
    out = op(*args, **kwargs)
    if fed is not None:
        for t, again in each(out, alone(op, args, kwargs, active[0])):
            fed.note(t, moved=again if fed.moved is None else partial(after, fed.moved, again))
    return out


def add(state: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    """A bias that is added in a step of its own."""
    active = tensors((*args, *kwargs.values()))
    fed = fed_by(active[0]) if len(active) == 1 and (key_of(op) == "add" or active[0] is args[0]) else None
    out = op(*args, **kwargs)
    if fed is not None and out.shape == active[0].shape:
        fed.note(out)
    return out


def batch_norm(state: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    """It belongs to the layer before it."""
    out, fed = op(*args, **kwargs), fed_by(args[0])
    layer = folded(fed.layer, op, args, kwargs) if fed is not None and fed.moved is None else None
    if fed is not None and layer is not None:
        fed.note(out, layer=layer)
    return out


def reveal(
    record: Record,
    fed: Fed,
    op: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    z0: torch.Tensor,
    derivative: Callable[[torch.Tensor], torch.Tensor],
) -> Any:
    """f(z) of a neuron that a linear layer feeds: the means over both orders in which the parts can come (Shrikumar et al. 2017, 3.5.3)."""
    z = args[0].detach().clone()

    def f(at: torch.Tensor) -> torch.Tensor:
        return op(at.clone(), *args[1:], **kwargs)

    def pull(held: Kept, result: Kept) -> Callable[[torch.Tensor], torch.Tensor]:
        def back(g: torch.Tensor) -> torch.Tensor:
            x, w = held.get(), fed.layer.weight
            change, (up, down) = x - fed.x0, (w.clamp(min=0), w.clamp(max=0))
            raised, lowered = change.clamp(min=0), change.clamp(max=0)
            plus, minus = fed.of((raised, up), (lowered, down)), fed.of((raised, down), (lowered, up))
            start, with_plus, with_minus, end = f(z0), f(z0 + plus), f(z0 + minus), f(z)
            of_plus = slope((with_plus - start + end - with_minus) / 2, plus, derivative, z)
            of_minus = slope((with_minus - start + end - with_plus) / 2, minus, derivative, z)

            def handed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
                return fed.back(up, g * a) + fed.back(down, g * b)

            rising, falling = handed(of_plus, of_minus), handed(of_minus, of_plus)
            return torch.where(change > 0, rising, torch.where(change < 0, falling, (rising + falling) / 2))

        return back

    out = relay(record, lambda _: f(z), (fed.x,), {}, pull)
    return args[0].copy_(out) if writes(op, args, kwargs) else out


def slope(rise: torch.Tensor, change: torch.Tensor, derivative: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    near = change.abs() < 1e-7
    found = rise / torch.where(near, 1.0, change)
    return torch.where(near, derivative(z), found) if near.any() else found
