"""The twin that can be differentiated with respect to its input, for methods that ask for many gradients.

Its weights are fixed, so that a backward pass needs only the results of the rectifiers, which lie in memory anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.models.fast import as_dtype, as_input, cast_any, fold_batch_norm, fold_padding, merge_activations, straight, value

if TYPE_CHECKING:
    import torch
    from torch import fx
else:
    torch = lazy("torch", "torch")

ALIKE = 1e-4  # how far the twin may be off: the scores relative above 1, the gradients relative to their largest number
FLIPPED = 0.1  # how far a gradient may be off where rounding has flipped a rectifier or two


def slope_twin(net: torch.nn.Module, dtype: torch.dtype) -> Callable[[torch.Tensor], Any] | None:
    """A faster function with the scores of `net` and their gradients; None where the graph cannot be proved to be straight."""
    graph = straight(net)
    if graph is None:
        return None
    fold_padding(graph)
    fold_batch_norm(graph)
    merge_activations(graph, dtype, convolve)
    ready = cast_any(graph).to(dtype=dtype, memory_format=torch.channels_last)
    prepare_convolutions(ready)
    ready.recompile()
    ready.requires_grad_(False)
    return lambda x: as_dtype(ready(as_input(x, dtype)), x)


def prepare_convolutions(graph: fx.GraphModule) -> None:
    """Lay the weights out for the forward pass, and see which gradients nobody else reads."""
    for count, node in enumerate(n for n in graph.graph.nodes if n.target is convolve):
        _, weight, _, padding, stride, dilation, groups, *_ = cast_any(node.args)
        packed = value(graph, weight)
        if packed.dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight"):
            packed = torch.ops.mkldnn._reorder_convolution_weight(packed.contiguous(), padding, stride, dilation, groups, None)
        graph.register_buffer(f"_packed_{count}", packed)
        with graph.graph.inserting_before(node):
            laid_out = graph.graph.get_attr(f"_packed_{count}")
        alone = len(node.users) == 1 and next(iter(node.users)).target is convolve
        node.args = (*node.args, laid_out, alone)


def convolve(x: torch.Tensor, *rest: Any) -> torch.Tensor:
    """oneDNN's convolution with a rectifier, and its gradient with respect to x."""
    return convolution().apply(x, *rest)  # type: ignore[no-any-return]


@cache
def convolution() -> Any:
    """The autograd function, made when torch is there."""

    class Convolution(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, x: Any, weight: Any, bias: Any, padding: Any, stride: Any, dilation: Any, groups: int, kind: str, bounds: Any, algorithm: str,
            packed: Any, alone: bool,
        ) -> Any:  # fmt: skip
            out = torch.ops.mkldnn._convolution_pointwise.default(x, packed, bias, padding, stride, dilation, groups, kind, bounds, algorithm)
            ctx.save_for_backward(*([] if kind == "none" else [out]))
            ctx.known = x.shape, weight, padding, stride, dilation, groups, bounds, alone
            return out

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            shape, weight, padding, stride, dilation, groups, bounds, alone = ctx.known
            for out in ctx.saved_tensors:
                gradient = through_rectifier(gradient, out, bounds, alone)
            like = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)  # only its layout is read
            found = torch.ops.aten.convolution_backward(
                gradient, like, weight, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
            )
            return found[0], *[None] * 11

    return Convolution


def through_rectifier(gradient: torch.Tensor, out: torch.Tensor, bounds: list[float], alone: bool) -> torch.Tensor:
    """The gradient where the rectifier let the number pass; in place where nobody else reads it."""
    into = gradient if alone else torch.empty_like(gradient)
    if bounds:
        return torch.ops.aten.hardtanh_backward.grad_input(gradient, out, *bounds, grad_input=into)  # type: ignore[no-any-return]
    return torch.ops.aten.threshold_backward.grad_input(gradient, out, 0, grad_input=into)  # type: ignore[no-any-return]


def same_slopes(own: Callable[[torch.Tensor], Any], run: Callable[[torch.Tensor], Any], samples: torch.Tensor, read: Callable[[Any], Any]) -> bool:
    """Whether a twin gives the model's scores, and their gradients, on samples of the question that `read` asks.

    Every score has to agree, and the gradients of two samples. Not of all: where a number is all but 0 before a
    rectifier, its sign is decided by rounding, so that a network's gradient differs between float32 and float64, too.
    """
    agreed = 0
    for k in range(len(samples)):
        try:
            (score, slope), (twins, twin_slope) = (score_and_slope(f, samples[k : k + 1], read) for f in (own, run))
        except Exception:  # noqa: BLE001  what neither can do, the ordinary way will say
            return False
        off = float((twin_slope - slope).abs().max() / slope.abs().max().clamp(min=1e-30))
        if not bool(((twins - score).abs() <= ALIKE * score.abs().clamp(min=1)).all()) or not off < FLIPPED:
            return False
        agreed += off <= ALIKE
        if agreed == 2:
            return True
    return False


def score_and_slope(run: Callable[[torch.Tensor], Any], sample: torch.Tensor, read: Callable[[Any], Any]) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = sample.detach().clone().requires_grad_()
    score = read(run(leaf.clone()))
    (found,) = torch.autograd.grad(score.sum(), [leaf])
    return score.detach(), found
