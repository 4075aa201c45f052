"""What the tables of LRP and DeepLIFT share: which operations are linear, and which only move numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.operations import key_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

# Operations whose derivative is already the rule: the numbers only move, or change by a fixed linear map
MOVES = frozenset([
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "transpose", "permute", "t", "movedim",
    "swapaxes", "contiguous", "clone", "getitem", "chunk", "split", "tensor_split", "unbind", "select", "narrow", "roll", "flip", "to",
    "type_as", "float", "double", "bfloat16", "half", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_alpha_dropout", "identity", "get", "pad", "repeat", "repeat_interleave", "tile", "view_as", "reshape_as", "gather",
    "index_select", "take_along_dim", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "unfold", "fold", "interpolate", "upsample",
    "masked_fill", "masked_select", "diagonal", "requires_grad",
])  # fmt: skip
SUMS = frozenset([
    "add", "sub", "rsub", "neg", "positive", "sum", "mean", "cumsum", "cat", "concat", "stack", "hstack", "vstack", "dstack", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "sum_to_size", "nansum",
])  # fmt: skip
MAXIMA = frozenset([
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "amax", "max", "min", "amin",
])  # fmt: skip
CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
PRODUCTS = frozenset(["mul", "matmul", "einsum", "bilinear"])
ELEMENTWISE = frozenset([
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "tanhshrink",
    "softshrink", "hardshrink", "hardswish", "hardsigmoid", "hardtanh", "threshold", "clamp", "clip", "clamp_min", "clamp_max", "tanh",
    "sigmoid", "logsigmoid", "log_sigmoid", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "square", "pow", "rpow",
    "reciprocal", "rdiv", "abs", "absolute", "sin", "cos", "tan", "atan", "arctan", "erf", "erfc", "sinh", "cosh", "asinh", "expit", "logit",
])  # fmt: skip


def tensors(args: Any) -> list[torch.Tensor]:
    """The tensors among the arguments that depend on the input."""
    found: list[torch.Tensor] = []
    for a in args:
        if isinstance(a, (list, tuple)):
            found += tensors(a)
        elif isinstance(a, torch.Tensor) and a.requires_grad:
            found.append(a)
    return found


HERE = object()  # stands where x was among the arguments of an operation; what comes of x must not keep x itself alive


def alone(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], x: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    """The operation as a function of x; it does not write into what it is given."""
    blank, blanks = put(HERE, x, args), put(HERE, x, tuple(kwargs.values()))

    def again(value: torch.Tensor) -> Any:
        copy = value.clone()
        return op(*put(copy, HERE, blank), **dict(zip(kwargs, put(copy, HERE, blanks), strict=True)))

    return again


def after(first: Callable[[Any], Any], then: Callable[[Any], Any], x: Any) -> Any:
    return then(first(x))


def put(new: Any, old: Any, args: Any) -> Any:
    """The arguments with `new` in place of `old`; a tuple stays one, which matters to an index."""
    found = [new if a is old else put(new, old, a) if isinstance(a, (list, tuple)) else a for a in args]
    return tuple(found) if isinstance(args, tuple) else found


def each(out: Any, again: Callable[[Any], Any]) -> list[tuple[torch.Tensor, Callable[[Any], Any]]]:
    """The tensors that an operation gave and that depend on the input, with what gives each of them again."""
    if not isinstance(out, (tuple, list)):
        return [(t, again) for t in tensors([out])]
    return [(t, partial(part, again, k)) for k, t in enumerate(out) if tensors([t])]


def part(again: Callable[[Any], Any], k: int, x: Any) -> Any:
    return again(x)[k]


@dataclass(frozen=True)
class Linear:
    """out = f(x, weight) + bias: a convolution, a dense layer, or a product with a fixed matrix."""

    op: Callable[..., Any]
    weight: torch.Tensor
    bias: torch.Tensor | None
    rest: tuple[Any, ...]
    dense: bool
    channel: int  # the axis of the output that the bias belongs to
    swapped: bool = False  # the fixed matrix comes first

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if self.swapped:
            return self.op(weight, x)
        return self.op(x, weight, *self.rest) if self.dense else self.op(x, weight, None, *self.rest)

    def transposed(self, x: torch.Tensor, weight: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """The gradient of <f(x, weight), s> with respect to x, which only gives the shape."""
        if self.dense and self.op is torch.nn.functional.linear:
            return torch.matmul(s, weight)
        if not self.dense and all(isinstance(r, (int, tuple, list)) for r in self.rest):
            return self._convolved_back(x, weight, s)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(self(leaf, weight), leaf, s)
        return found

    def _convolved_back(self, x: torch.Tensor, weight: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        transposed = len(self.rest) == 5
        stride, padding, *others = self.rest
        output_padding, groups, dilation = others if transposed else (0, others[1], others[0])
        spatial = [[v] if isinstance(v, int) else list(v) for v in (stride, padding, dilation)]
        extra = [output_padding] if isinstance(output_padding, int) else list(output_padding)
        wanted = [True, False, False]
        return torch.ops.aten.convolution_backward(s, x, weight, None, *spatial, transposed, extra, groups, wanted)[0]

    def spread(self, bias: torch.Tensor) -> torch.Tensor:
        """The bias in the shape that can be added to the output."""
        return bias if self.channel == -1 else bias.reshape(-1, *(1,) * (self.weight.ndim - 2))


def linear_of(key: str, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Linear | None:
    """A call of conv, linear, matmul or einsum in which only one operand depends on the input; None otherwise."""
    if key == "einsum":
        op, operands = partial(op, args[0]), args[1:]
        args = tuple(operands[0]) if isinstance(operands[0], (list, tuple)) else operands
    if key in ("matmul", "einsum"):
        if len(args) != 2:
            return None
        swapped = not args[0].requires_grad
        if key == "matmul" and not swapped and args[1].ndim == 2:
            return Linear(torch.nn.functional.linear, args[1].t(), None, (), True, -1)
        return Linear(op, args[0] if swapped else args[1], None, (), True, -1, swapped)
    if key == "linear":
        weight, bias = (*args[1:], *(None,) * 2)[:2]
        return Linear(torch.nn.functional.linear, kwargs.get("weight", weight), kwargs.get("bias", bias), (), True, -1)
    if key in CONVOLUTIONS:
        names = ("weight", "bias", "stride", "padding", *(("output_padding", "groups", "dilation") if "transpose" in key else ("dilation", "groups")))
        usual = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
        given = {**usual, **dict(zip(names, args[1:], strict=False)), **kwargs}
        return Linear(op, given["weight"], given["bias"], tuple(given[n] for n in names[2:]), False, 1)
    return None


def folded(layer: Linear, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Linear | None:
    """The layer together with the batch norm that follows it; None where the two are not one linear layer."""
    names = ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"]
    if key_of(op) == "torch_batch_norm":
        names[:4] = ["weight", "bias", "running_mean", "running_var"]
    given = {"weight": None, "bias": None, "training": False, "eps": 1e-5, **dict(zip(names, args[1:], strict=False)), **kwargs}
    scales_outputs = layer.op is torch.nn.functional.linear and args[0].ndim == 2 if layer.dense else "transpose" not in key_of(layer.op)
    if given["training"] or given["running_mean"] is None or not scales_outputs:
        return None
    scale = torch.rsqrt(given["running_var"] + given["eps"]) * (1 if given["weight"] is None else given["weight"])
    shift = (0 if given["bias"] is None else given["bias"]) - given["running_mean"] * scale
    bias = shift if layer.bias is None else shift + layer.bias * scale
    return replace(layer, weight=layer.weight * scale.reshape(-1, *(1,) * (layer.weight.ndim - 1)), bias=bias)
