"""Whether a score is a constant plus a weighted sum of a map's averages: global average pooling and linear steps, as CAM needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError
from askwhy.local.feature_map import layout, look, nodes_between
from askwhy.score import Score

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

# autograd nodes, without "Backward0": linear in all their inputs; and linear in one of them, while the others are constant
LINEAR = frozenset((
    "AdaptiveAvgPool2D", "Add", "Alias", "AsStrided", "AvgPool2D", "Cat", "Clone", "Expand", "Gather", "Index", "Mean", "Neg", "Permute",
    "Repeat", "ReshapeAlias", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "Sub", "Sum", "T", "ToCopy", "Transpose",
    "Unbind", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
))  # fmt: skip
LINEAR_IN_ONE = frozenset((
    "Addbmm", "Addmm", "Addmv", "Baddbmm", "Bmm", "Convolution", "CudnnBatchNorm", "Div", "Dot", "Linear", "Mm", "Mul", "Mv",
    "NativeBatchNorm",
))  # fmt: skip


def constants(
    score: Score, wanted: list[str], items: range, scores: torch.Tensor, out: torch.Tensor, a: torch.Tensor, g: torch.Tensor, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """b [n] in score = sum_k w_k mean(A_k) + b, for these inputs and for others, with A and dS/dA [n, k, h, w].

    Raises UnsupportedError where the score is not that.
    """
    steps = list(steps_between(scores, out))
    bent = next((step for step, inputs in steps if not (step in LINEAR or (step in LINEAR_IN_ONE and inputs == 1))), None)
    if bent is not None:
        raise refusal(f"between layer {name!r} and the score the model computes {bent}, which is not linear")
    halved = min(a.element_size(), scores.element_size()) < 4 or ("ToCopy", 1) in steps  # a cast on the way is autocast's
    close, g = 2e-2 if halved else 1e-4, g.double()
    uneven = (g - g.mean((2, 3), keepdim=True)).abs().amax((1, 2, 3))
    if bool((uneven > close * g.abs().amax((1, 2, 3))).any()):
        raise refusal(f"the score weighs the places of layer {name!r} differently, so the layer is not averaged as a whole")
    rest, size = beside(scores, a, g)
    # what is linear here may still lie beside another path from the input to the score: then b changes with the input
    changed = score.items.batch[items.start : items.stop].flip(-1) * 0.5
    others, outs = look(score, wanted, changed, items, score.read)
    score.calls += len(items)
    again = next(iter(outs.values()))
    also, larger = beside(others, layout(score, name, again, len(items))[0](again), g)
    if bool(((rest - also).abs() > close * torch.maximum(size, larger)).any()):
        gap = float((rest - also).abs().max())
        raise refusal(f"a part of the score does not come from layer {name!r}: beside it lies a constant that changes by {gap:.3g} with the input")
    return rest, also


def beside(scores: torch.Tensor, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What of the scores the averages of A leave over, and how large the numbers are that were added up; [n] each."""
    parts = g.sum((2, 3)) * a.detach().double().mean((2, 3))
    whole = scores.detach().double()
    return whole - parts.sum(1), whole.abs() + parts.abs().sum(1)


def steps_between(scores: torch.Tensor, out: torch.Tensor) -> Iterator[tuple[str, int]]:
    """The operations on the way from `out` to the scores, from the end, and how many of their inputs depend on it."""
    for node in nodes_between(scores, {out.grad_fn}):
        name = re.sub(r"Backward\d*$", "", node.name().split("::")[-1])
        if name != "AccumulateGrad":
            yield name, sum(before is not None for before, _ in node.next_functions)


def refusal(reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"cam needs a network that averages its last feature map and then only weighs the averages, but {reason}; "
        "use grad_cam or hires_cam, which need no such architecture."
    )
