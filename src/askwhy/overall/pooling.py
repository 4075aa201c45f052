"""The way back through max pooling, as if it took the root mean square of a window instead of its largest number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.models.fast import pair
from askwhy.rules import Kept, Record, Rule, relay

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int], bool]

OFF = 1e-6  # what a number that is off counts, so that a window of such numbers has a slope too


def mean_square_pooling(record: Record) -> Mapping[str, Rule]:
    """The backward rule: every number of a window gets a gradient in proportion to itself; negative ones count as 0."""

    def rule(op: Any, *args: Any, **kwargs: Any) -> Any:
        window = window_of(*args[1:], **kwargs)
        if window is None:
            return NotImplemented

        def pull(x: Kept, out: Kept) -> Any:
            return lambda gradient: spread(x.get(), gradient, window)

        return relay(record, op, args, kwargs, pull)

    return {"max_pool2d": rule}


def window_of(kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, **rest: Any) -> Window | None:
    """Size, steps, padding, and whether windows may stand out; None for windows with gaps."""
    if pair(dilation) != (1, 1):
        return None
    return pair(kernel_size), pair(stride or kernel_size), pair(padding), ceil_mode


def spread(x: torch.Tensor, gradient: torch.Tensor, window: Window) -> torch.Tensor:
    """The gradient of the windows [n, c, h', w'] dealt out to x [n, c, h, w]."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=0) + OFF
    size = torch.nn.functional.avg_pool2d(wide.square(), *window).sqrt()
    dealt = torch.ops.aten.avg_pool2d_backward(gradient.to(wide.dtype) / size, wide, *window, True, None)
    return (dealt * wide).to(x.dtype)
