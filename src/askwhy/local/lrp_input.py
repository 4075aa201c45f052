"""Layer-wise relevance propagation where a layer sees the input itself, at most moved, shifted, scaled and padded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.local.lrp_rules import Share, same
from askwhy.local.propagate import after, alone, each
from askwhy.rules import note, noted

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@dataclass(frozen=True)
class Origin:
    """Noted on a tensor: how it is made of the input, by an affine function in which each number comes from one place."""

    leaf: torch.Tensor
    made: Callable[[torch.Tensor], torch.Tensor]
    version: int

    def slope(self) -> torch.Tensor:
        """How much each number changes with its place of the input: 0 where there is none, as in padding."""
        with torch.enable_grad():
            leaf = torch.zeros_like(self.leaf, requires_grad=True)
            out = self.made(leaf)
            back = torch.zeros_like(out, requires_grad=True)
            (found,) = torch.autograd.grad(torch.autograd.grad(out, leaf, back, create_graph=True), back, torch.ones_like(leaf))
        return found

    def relevance_of_input(self, relevance: torch.Tensor) -> torch.Tensor:
        """The relevance of this tensor, carried to the places of the input."""
        slope = self.slope()
        with torch.enable_grad():
            leaf = torch.zeros_like(self.leaf, requires_grad=True)
            (found,) = torch.autograd.grad(self.made(leaf), leaf, relevance.to(slope.dtype) * torch.where(slope == 0, 0.0, 1 / slope))
        return found

    def on_the_input(self, share: Share) -> Share:
        """The rule, where what is no part of the input, as padding, has no part."""
        seen = self.slope() != 0
        terms = tuple((lambda x, part=part: part(x) * seen, weight) for part, weight in share.terms)
        return replace(share, terms=terms)

    def bounds(self, box: tuple[Any, Any] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The lowest and the highest value that each number could have."""
        ends = [self.made(limit.expand_as(self.leaf)) for limit in limits(box, self.leaf.detach())]
        return torch.minimum(*ends), torch.maximum(*ends)


def limits(box: tuple[Any, Any] | None, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest and highest valid input: as given, else those of these items, by channel."""
    if box is None:
        axes = tuple(range(2, x.ndim)) or (1,)
        return x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    found = [torch.as_tensor(limit, device=x.device, dtype=x.dtype) for limit in box]
    channels = x.shape[1] if x.ndim > 1 else 1
    if len(found) != 2 or any(t.numel() not in (1, channels) for t in found) or bool((found[0] > found[1]).any()):
        raise InputError(f"box={box}: give (low, high), each a number or one for each of the {channels} channels, with low <= high.")
    low, high = (t.reshape(-1, *(1,) * (x.ndim - 2)) for t in found)
    return low, high


def origin_of(x: torch.Tensor) -> Origin | None:
    """How x is made of the input; None where it is more than the input."""
    if x.is_leaf:
        return Origin(x, same, x._version)
    found: Origin | None = noted(x, "origin")
    return found if found is not None and found.version == x._version else None


def note_origin(origin: Origin, op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], x: torch.Tensor, out: Any) -> None:
    """Note on what op made of x how it is made of the input."""
    for t, again in each(out, alone(op, args, kwargs, x)):
        note(t, "origin", replace(origin, made=partial(after, origin.made, again), version=t._version))
