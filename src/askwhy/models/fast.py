"""A twin of a torch model that gives the same scores sooner: batch norm folded, padding and activations merged, channels last.

The twin is a copy; the model itself is not touched. It is used only where it is proved: the network has to be one
straight graph (torch.fx refuses control flow that depends on data), and the twin has to give the model's own scores on
inputs of the very question that is asked.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import fx
else:
    torch = lazy("torch", "torch")
    fx = lazy("torch.fx", "torch")

CONV_ARGUMENTS = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
LARGEST_COPY = 2**31  # bytes of parameters: a larger model is not copied


@dataclass(frozen=True, eq=False)
class Twin:
    """The graph of a network, ready to be run in `dtype`."""

    graph: fx.GraphModule
    dtype: torch.dtype

    def __call__(self, x: torch.Tensor) -> Any:
        return as_dtype(self.graph(as_input(x, self.dtype)), x)


def twin(net: torch.nn.Module, dtype: torch.dtype) -> Twin | None:
    """A faster function with the scores of `net`, in `dtype`; None where the graph cannot be proved to be straight."""
    graph = straight(net)
    if graph is None:
        return None
    fold_padding(graph)
    fold_batch_norm(graph)
    merge_activations(graph, dtype, torch.ops.mkldnn._convolution_pointwise.default)
    graph.recompile()
    ready = cast_any(graph).to(dtype=dtype, memory_format=torch.channels_last).requires_grad_(False)
    if dtype == torch.float32:  # in bfloat16 the packed layout is not the one that oneDNN wants later
        pack_weights(ready)
    return Twin(ready, dtype)


def cast(net: torch.nn.Module, dtype: torch.dtype) -> Callable[[torch.Tensor], Any]:
    """A plain copy of the network in another dtype, for a network without one straight graph."""
    ready = copy_in(net, dtype)
    return lambda x: as_dtype(ready(x.to(dtype) if x.is_floating_point() else x), x)


def copy_in(net: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    return copy.deepcopy(net).to(dtype=dtype).requires_grad_(False)


def as_input(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The input in the twin's dtype and layout; whole numbers (tokens) stay what they are."""
    x = x.to(dtype) if x.is_floating_point() else x
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def as_dtype(out: Any, x: torch.Tensor) -> Any:
    """The scores in the dtype of the question."""
    return out.to(x.dtype) if isinstance(out, torch.Tensor) and x.is_floating_point() else out


def straight(net: torch.nn.Module) -> fx.GraphModule | None:
    """The network as a graph of its own, with convolutions in one form; None if it has no single graph, or hooks."""
    if sum(p.numel() * p.element_size() for p in net.parameters()) > LARGEST_COPY:
        return None
    hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in net.modules())
    if hooked or any(isinstance(m, torch.jit.ScriptModule) for m in net.modules()):
        return None
    try:
        graph = fx.symbolic_trace(copy.deepcopy(net))  # a copy, since a forward may note things on its own module
    except Exception:  # noqa: BLE001  whatever the user's forward does that fx cannot follow: the model is then run as it is
        return None
    return write_convolutions(graph)


def write_convolutions(graph: fx.GraphModule) -> fx.GraphModule:
    """Every convolution becomes conv2d(x, weight, bias, stride, padding, dilation, groups) with tensors of its own."""
    for count, node in enumerate(list(graph.graph.nodes)):
        parts = convolution(graph, node)
        if parts is None:
            continue
        x, weight, bias, *rest = parts
        graph.register_buffer(f"_weight_{count}", weight.detach().clone())
        graph.register_buffer(f"_bias_{count}", (weight.new_zeros(len(weight)) if bias is None else bias).detach().clone())
        with graph.graph.inserting_before(node):
            tensors = [graph.graph.get_attr(f"_{kind}_{count}") for kind in ("weight", "bias")]
            plain = graph.graph.call_function(torch.conv2d, (x, *tensors, *rest))
        plain.meta["written"] = True
        replace(graph, node, plain)
    return graph


def convolution(graph: fx.GraphModule, node: fx.Node) -> tuple[Any, ...] | None:
    """x, weight, bias, stride, padding, dilation, groups of a 2-d convolution with fixed weights; None for anything else."""
    if node.op == "call_module":
        m = graph.get_submodule(str(node.target))
        if type(m) is not torch.nn.Conv2d or m.padding_mode != "zeros" or isinstance(m.padding, str) or len(node.args) != 1:
            return None
        return node.args[0], m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups
    if node.op != "call_function" or node.target is not torch.conv2d:
        return None
    given = dict(zip(CONV_ARGUMENTS, node.args, strict=False)) | node.kwargs
    x, weight, bias, stride, padding, dilation, groups = cast_any((CONV_ARGUMENTS | given).values())
    if isinstance(padding, str) or not fixed(weight) or not (bias is None or fixed(bias)):
        return None
    return x, value(graph, weight), None if bias is None else value(graph, bias), pair(stride), pair(padding), pair(dilation), groups


def fold_padding(graph: fx.GraphModule) -> None:
    """Zero padding before a convolution becomes the convolution's own.

    Where the sides differ, the padding is the larger one on both, and the kernel gets zeros on the smaller one's side.
    """
    for node in conv_nodes(graph):
        x, weight, bias, stride, own, dilation, groups = cast_any(node.args)
        sides = zero_padding(graph, x) if len(x.users) == 1 else None
        if sides is None or (tuple(dilation) != (1, 1) and (sides[0] != sides[1] or sides[2] != sides[3])):
            continue
        left, right, top, bottom = sides
        across, down = max(left, right), max(top, bottom)
        kernel = torch.nn.functional.pad(value(graph, weight), (across - left, across - right, down - top, down - bottom))
        setattr(graph, weight.target, kernel)
        node.args = (x.args[0], weight, bias, stride, (own[0] + down, own[1] + across), dilation, groups)
        graph.graph.erase_node(x)


def zero_padding(graph: fx.GraphModule, node: fx.Node) -> tuple[int, int, int, int] | None:
    """Left, right, top, bottom of a step that pads pictures with zeros; None for any other step."""
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        sides = module.padding if type(module) is torch.nn.ZeroPad2d else None
    elif node.target is torch.nn.functional.pad and not node.kwargs and (len(node.args) == 2 or node.args[2:] in (("constant",), ("constant", 0))):
        sides = cast_any(node.args[1])
    else:
        return None
    fits = isinstance(sides, (tuple, list)) and len(sides) == 4 and all(isinstance(s, int) and s >= 0 for s in sides)
    return tuple(sides) if fits else None  # type: ignore[arg-type,return-value]


def fold_batch_norm(graph: fx.GraphModule) -> None:
    """scale (w x + b - mean) + shift is a convolution too: scale w, and scale (b - mean) + shift."""
    for node in conv_nodes(graph):
        after = next(iter(node.users), None)
        if after is None or len(node.users) != 1 or after.op != "call_module":
            continue
        norm = graph.get_submodule(str(after.target))
        if type(norm) is not torch.nn.BatchNorm2d or norm.running_mean is None or norm.running_var is None:
            continue
        weight, bias = value(graph, node.args[1]), value(graph, node.args[2])
        scale = torch.rsqrt(norm.running_var.double() + norm.eps) * (1 if norm.weight is None else norm.weight.double())
        shift = 0 if norm.bias is None else norm.bias.double()
        with torch.no_grad():
            weight.copy_(weight.double() * scale[:, None, None, None])
            bias.copy_((bias.double() - norm.running_mean.double()) * scale + shift)
        replace(graph, after, node)


def merge_activations(graph: fx.GraphModule, dtype: torch.dtype, both: Callable[..., Any]) -> None:
    """Rectify while the convolution's result is still in the cache: in one operation, `both`, where oneDNN has it, else in place."""
    for node in conv_nodes(graph):
        after = next(iter(node.users), None)
        bounds = rectifier(graph, after) if after is not None and len(node.users) == 1 else None
        with graph.graph.inserting_after(node):
            if onednn(graph, node, dtype):
                new = graph.graph.call_function(both, pointwise(node, bounds))
                replace(graph, node, new)
            elif bounds is not None:
                new = graph.graph.call_function(rectify_, (node, *bounds))
            else:
                continue
        if bounds is not None and after is not None:
            replace(graph, after, new)


def rectify_(x: torch.Tensor, low: float, high: float | None) -> torch.Tensor:
    """In place, with the operations whose gradient needs the result only."""
    return torch.relu_(x) if high is None else torch.nn.functional.hardtanh(x, low, high, inplace=True)


def pointwise(node: fx.Node, bounds: tuple[float, float | None] | None) -> tuple[Any, ...]:
    """The arguments of oneDNN's convolution with a rectifier."""
    x, weight, bias, stride, padding, dilation, groups = cast_any(node.args)
    name = "none" if bounds is None else "relu" if bounds[1] is None else "hardtanh"
    return x, weight, bias, list(padding), list(stride), list(dilation), groups, name, list(bounds or ()) if name == "hardtanh" else [], ""


def replace(graph: fx.GraphModule, old: fx.Node, new: Any) -> None:
    old.replace_all_uses_with(new)
    graph.graph.erase_node(old)


def cast_any(x: Any) -> Any:
    """fx types its arguments too loosely to be used."""
    return x


def pack_weights(graph: fx.GraphModule) -> None:
    """Lay the weights out as oneDNN wants them, once and not at every call."""
    for node in graph.graph.nodes:
        if node.target is torch.ops.mkldnn._convolution_pointwise.default and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight"):
            _, weight, _, padding, stride, dilation, groups, *_ = cast_any(node.args)
            packed = torch.ops.mkldnn._reorder_convolution_weight(value(graph, weight).contiguous(), padding, stride, dilation, groups, None)
            setattr(graph, weight.target, packed)


def rectifier(graph: fx.GraphModule, node: fx.Node) -> tuple[float, float | None] | None:
    """The bounds of a ReLU (0, None) or ReLU6 (0, 6); None for anything else."""
    if node.op == "call_module":
        kind = type(graph.get_submodule(str(node.target)))
        return {torch.nn.ReLU: (0.0, None), torch.nn.ReLU6: (0.0, 6.0)}.get(kind)
    functional = torch.nn.functional
    if node.op == "call_function" and node.target in (functional.relu, torch.relu, torch.relu_, functional.relu6):
        return (0.0, 6.0) if node.target is functional.relu6 else (0.0, None)
    if node.op == "call_method" and node.target in ("relu", "relu_"):
        return (0.0, None)
    return None


def onednn(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> bool:
    """Whether torch's own CPU operation for convolution with activation takes this one."""
    on_cpu = value(graph, node.args[1]).device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_cpu and dtype in (torch.float32, torch.bfloat16) and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def conv_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """The convolutions in the one form; the others share their weights with the model's copy, and stay as they are."""
    return [n for n in graph.graph.nodes if n.target is torch.conv2d and "written" in n.meta]


def fixed(node: Any) -> bool:
    """A tensor of the model, and not something computed."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def value(graph: fx.GraphModule, node: Any) -> torch.Tensor:
    return operator.attrgetter(str(node.target))(graph)


def pair(v: Any) -> tuple[int, int]:
    if isinstance(v, int):
        return v, v
    return (v[0], v[0]) if len(v) == 1 else (v[0], v[1])
