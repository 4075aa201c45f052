"""The steps of a network that look at a small part of the picture, and which part that is."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from askwhy._lazy import lazy
from askwhy.models.fast import cast_any, pair, rectify_, value

if TYPE_CHECKING:
    import torch
    from torch import fx
else:
    torch = lazy("torch", "torch")
    fx = lazy("torch.fx", "torch")

FUNCTIONS = """relu relu_ relu6 leaky_relu elu selu celu gelu silu mish sigmoid sigmoid_ tanh tanh_ hardtanh hardswish hardsigmoid softplus
    logsigmoid dropout add iadd add_ sub isub sub_ mul imul mul_ div truediv div_ neg abs exp sqrt square pow clamp clamp_ maximum minimum""".split()  # noqa: SIM905
MODULES = """ReLU ReLU6 LeakyReLU PReLU ELU SELU CELU GELU SiLU Mish Sigmoid Tanh Hardtanh Hardswish Hardsigmoid Softplus LogSigmoid
    Identity Dropout Dropout2d BatchNorm2d""".split()  # noqa: SIM905
ZERO, LOWEST = 0, 1  # what lies around a map: the two rows after its places


@dataclass(frozen=True, eq=False)
class Span:
    """Where the rows of a batch changed along one axis of `length` places: from low [m] up to high [m]."""

    low: np.ndarray
    high: np.ndarray
    length: int

    @cached_property
    def size(self) -> int:
        """Of a stretch that is long enough for every row."""
        return int((self.high - self.low).max())

    @cached_property
    def starts(self) -> np.ndarray:
        """[m]: where stretches of that size hold the changes and stay on the axis."""
        return np.minimum(self.low, self.length - self.size)


Box = tuple[Span, Span]  # rows and columns


def share(box: Box) -> float:
    """How much of the map is in the box."""
    rows, columns = box
    return rows.size * columns.size / (rows.length * columns.length)


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds several."""
    rows, columns = zip(*boxes, strict=True)
    return joined(rows), joined(columns)


def joined(spans: Sequence[Span]) -> Span:
    if all(s is spans[0] for s in spans):
        return spans[0]
    return Span(np.min([s.low for s in spans], 0), np.max([s.high for s in spans], 0), spans[0].length)


class Axis(NamedTuple):
    """Result o of a step reads the places o * stride - before to o * stride - before + extent, along one axis."""

    extent: int = 0
    stride: int = 1
    before: int = 0

    def reached(self, span: Span, length: int) -> Span:
        """Which of `length` results read what changed; where none does, one that does not mind."""
        if self == SAME:
            return span
        low = -((self.extent - self.before - span.low) // self.stride)
        high = (span.high - 1 + self.before) // self.stride + 1
        low = low.clip(0, length - 1)
        return Span(low, np.maximum(high.clip(0, length), low + 1), length)

    def window(self, span: Span) -> tuple[np.ndarray, int]:
        """What the results of a span read: the first places [m], and how many."""
        if self == SAME:
            return span.starts, span.size
        return span.starts * self.stride - self.before, (span.size - 1) * self.stride + self.extent + 1


SAME = Axis()


@dataclass(frozen=True)
class Step:
    """A step of the graph as it is called on what it reads, its padding included."""

    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    axes: tuple[Axis, Axis] = (SAME, SAME)
    around: int = ZERO
    inputs: tuple[fx.Node, ...] = ()  # the maps that it reads
    size: tuple[int, ...] = ()  # rows and columns of its result


def fits(step: Step, x: torch.Tensor, out: torch.Tensor) -> bool:
    """Whether a step keeps the size of its map, or reads zeros no further than its padding goes: a mean over less is another step."""
    if step.axes == (SAME, SAME):
        return x.shape[2:] == out.shape[2:]
    ends = [(length - 1) * a.stride - a.before + a.extent for a, length in zip(step.axes, out.shape[2:], strict=True)]
    return step.around == LOWEST or all(end < length + a.before for end, length, a in zip(ends, x.shape[2:], step.axes, strict=True))


def same_everywhere(v: Any) -> bool:
    """A tensor with one number for each channel."""
    return isinstance(v, torch.Tensor) and (v.ndim == 0 or (v.ndim >= 3 and v.shape[-2:] == (1, 1)))


def same_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether each place of a step's result reads the same place of one map, so that it never asks for what is around a box."""
    step = step_of(graph, node)
    return step is not None and step.axes == (SAME, SAME) and (weights(node) is not None or len(node.all_input_nodes) == 1)


def step_of(graph: fx.GraphModule, node: fx.Node) -> Step | None:
    """How a step is called on what it reads; None where it may look at the whole picture."""
    return convolved(graph, node) or pooled(graph, node) or pointwise(graph, node)


def asks_shape(node: fx.Node) -> bool:
    """Whether a step does not look at the numbers."""
    return (node.op == "call_method" and node.target in ("size", "dim")) or (
        node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")
    )


def weights(node: fx.Node) -> Any:
    """The weights of one of the twin's own convolutions; None of any other step."""
    merged = node.target is torch.ops.mkldnn._convolution_pointwise.default
    return node.args[1] if merged or (node.target is torch.conv2d and "written" in node.meta) else None


def convolved(graph: fx.GraphModule, node: fx.Node) -> Step | None:
    if weights(node) is None:
        return None
    x, weight, bias, one, other, *rest = cast_any(node.args)
    stride, padding, args = (one, other, (one, (0, 0))) if node.target is torch.conv2d else (other, one, ([0, 0], other))
    axes = axes_of(value(graph, weight).shape[2:], stride, padding, rest[0])
    return Step("call_function", node.target, (x, weight, bias, *args, *rest), {}, axes)


def axes_of(kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[Axis, Axis]:
    rows, columns = (Axis(d * (k - 1), s, p) for k, s, p, d in zip(*map(pair, (kernel, stride, padding, dilation)), strict=True))
    return rows, columns


def pooled(graph: fx.GraphModule, node: fx.Node) -> Step | None:
    """Largest and mean values; a mean that does not count the padding divides by another number at the border."""
    kind = "" if not node.args else pools().get(type(graph.get_submodule(str(node.target))) if node.op == "call_module" else node.target, "")
    if not kind:
        return None
    names = MAX_POOL if kind == "max" else MEAN_POOL
    read = {name: getattr(graph.get_submodule(str(node.target)), name) for name in names} if node.op == "call_module" else {}
    given = names | read | dict(zip(names, node.args[1:], strict=False)) | node.kwargs
    kernel, padding, divisor = given["kernel_size"], given["padding"], given.get("divisor_override")
    stride = given["stride"] or kernel
    if given.get("return_indices") or (any(pair(padding)) and not given.get("count_include_pad", True) and divisor is None):
        return None
    axes = axes_of(kernel, stride, padding, given.get("dilation", 1))
    if kind == "max":
        return Step("call_function", torch.nn.functional.max_pool2d, (node.args[0], kernel, stride, 0, given["dilation"]), {}, axes, LOWEST)
    return Step("call_function", torch.nn.functional.avg_pool2d, (node.args[0], kernel, stride, 0, False, True, divisor), {}, axes)


MAX_POOL = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
MEAN_POOL = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True, "divisor_override": None}


@cache
def pools() -> dict[Any, str]:
    nn, functional = torch.nn, torch.nn.functional
    return {nn.MaxPool2d: "max", functional.max_pool2d: "max", nn.AvgPool2d: "mean", functional.avg_pool2d: "mean"}


def pointwise(graph: fx.GraphModule, node: fx.Node) -> Step | None:
    """One place after the other; in place only where nobody else reads what is changed."""
    module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    known = type(module) in modules() or node.target in functions() or (node.op == "call_method" and node.target in FUNCTIONS) or of_channels(node)
    if not known or not node.args:
        return None
    name = str(getattr(node.target, "__name__", node.target))
    changes = name.endswith("_") or name in ("iadd", "isub", "imul") or getattr(module, "inplace", False) or node.kwargs.get("inplace", False)
    if changes and len(cast_any(node.args[0]).users) > 1:
        return None
    return Step(node.op, node.target, node.args, dict(node.kwargs))


def of_channels(node: fx.Node) -> bool:
    """Maps laid one behind the other."""
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return node.target in (torch.cat, torch.concat) and dim in (1, -3)


@cache
def modules() -> frozenset[type]:
    return frozenset(getattr(torch.nn, name) for name in MODULES)


@cache
def functions() -> frozenset[Any]:
    places = (operator, torch, torch.nn.functional)
    return frozenset(getattr(place, name) for place in places for name in FUNCTIONS if hasattr(place, name)) | {rectify_}
