"""The attention matrices of a forward pass, seen by one mode, whatever the spelling: fused, `nn.MultiheadAttention`, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError
from askwhy.inside.products import Pairs, order_of, tensors_of
from askwhy.operations import by_position, key_of
from askwhy.written import WRITTEN, masked

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

SOFTMAX = frozenset({"softmax", "special_softmax", "safe_softmax"})
FUSED, WHOLE = "scaled_dot_product_attention", "multi_head_attention_forward"
CARRIES = frozenset([
    "dropout", "alpha_dropout", "feature_alpha_dropout", "to", "type", "type_as", "float", "half", "bfloat16", "double", "contiguous", "clone", "view",
    "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "movedim", "swapaxes", "t", "masked_fill", "nan_to_num", "where",
    "mul", "div", "getitem", "expand", "view_as", "reshape_as", "identity", "get",
])  # what may lie between the softmax and the values  # fmt: skip
SUM_ERROR = {2: 2e-2, 4: 1e-4, 8: 1e-8}  # of a row's sum, by the bytes of a number
Edit = Callable[["torch.Tensor"], "torch.Tensor"]  # [..., queries, keys] -> the same, of which the pass goes on


@dataclass
class Seen:
    """One attention of a pass."""

    layer: str  # the module that ran it
    weights: np.ndarray  # [rows, heads, queries, keys]
    at: torch.Tensor  # where the gradient is read,
    slope: Callable[[torch.Tensor], torch.Tensor]  # which this turns into that of the weights
    crosses: bool  # queries and keys are made of different tokens


@dataclass
class Attended:
    """What one pass gave."""

    rows: int
    edit: Edit | None = None
    seen: list[Seen] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)  # of the convolutions
    flat: bool = False  # items and heads share one axis, so that only single items can be told apart
    running: list[str] = field(default_factory=list)
    pairs: Pairs = field(default_factory=lambda: Pairs())

    def keep(self, weights: torch.Tensor, at: torch.Tensor, slope: Callable[[torch.Tensor], torch.Tensor], pair: tuple[int, int] | None) -> None:
        found = self.by_item(weights.detach()).float().cpu().numpy().copy()
        crosses = pair is not None and pair[0] != pair[1]
        self.seen.append(Seen(self.layer, found, at, lambda g: self.by_item(slope(g)), crosses))

    @property
    def layer(self) -> str:
        return self.running[-1] if self.running else ""

    def by_item(self, weights: torch.Tensor) -> torch.Tensor:
        """[..., queries, keys] -> [rows, heads, queries, keys]. Raises UnsupportedError."""
        first = weights.shape[0]
        if weights.ndim == 3 and first == self.rows:
            return weights[:, None]
        if weights.ndim == 3 and self.rows == 1:
            self.flat = True
            return weights[None]
        if weights.ndim == 4 and first == self.rows:
            return weights
        raise UnsupportedError(
            f"the attention in {self.layer or 'the model'!r} is {list(weights.shape)} for {self.rows} item{'s' * (self.rows > 1)}, and not [items, heads, queries, "
            "keys]: attention in windows (Swin) or along one axis has no matrix over all tokens; use occlusion, lrp or integrated_gradients."
        )


@contextmanager
def attending(net: torch.nn.Module, rows: int, edit: Edit | None = None) -> Iterator[Attended]:
    """Inside the block, a forward pass of so many rows is seen; `edit` may change each attention's weights.

    Raises UnsupportedError for what cannot be seen.
    """
    refuse_hidden(net)
    found = Attended(rows, edit)
    handles = []
    try:
        for name, module in net.named_modules():
            handles += [module.register_forward_pre_hook(partial(begin, found, name)), module.register_forward_hook(partial(end, found))]
        with mode_of(found):
            yield found
        refuse_loose(found)
    finally:
        for handle in handles:
            handle.remove()
        found.pairs = Pairs()


def begin(found: Attended, name: str, *_: Any) -> None:
    found.running.append(name)


def end(found: Attended, *_: Any) -> None:
    found.running.pop()


def refuse_hidden(net: torch.nn.Module) -> None:
    """torch.jit and torch.compile run where no operation can be seen."""
    for name, module in net.named_modules():
        compiled = type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            kind, remedy = ("torch.compile", "was compiled") if compiled else ("torch.jit", "it was made from")
            raise UnsupportedError(
                f"{name or 'the model itself'} is a {kind} module, whose attention cannot be seen; give the nn.Module that {remedy}."
            )


def refuse_loose(found: Attended) -> None:
    """A softmax that looks like attention, and whose values were not found: the answer would be incomplete."""
    if found.pairs.loose:
        layer, shape = next(iter(found.pairs.loose.values()))
        raise UnsupportedError(
            f"the softmax {list(shape)} in {layer or 'the model'!r} looks like attention, but does not weigh values in one matmul or einsum; "
            "what it does with them is not seen. Use occlusion, lrp or integrated_gradients."
        )


def mode_of(found: Attended) -> Any:
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            args, kwargs = by_position(args, kwargs or {})
            key = key_of(op)
            if key == WHOLE:
                with self:
                    return WRITTEN[WHOLE](*args, **kwargs)
            if key == FUSED:
                return fused(found, op, args, kwargs)
            refuse_unknown(key)
            args, kwargs = weighing(found, key, args, kwargs)
            out = op(*args, **kwargs)
            followed(found, key, args, kwargs, out)
            return out

    return Mode()


def refuse_unknown(key: str) -> None:
    """Kernels of other libraries, and torch's own fast path."""
    if "attention" in key or "attn" in key or key == "transformer_encoder_layer_fwd":
        raise UnsupportedError(
            f"the model attends in one operation, {key}, whose weights are not seen; use attn_implementation='eager' or 'sdpa', or scaled_dot_product_attention."
        )


def followed(found: Attended, key: str, args: Any, kwargs: Any, out: Any) -> None:
    """Note what an operation gave, where it is on the way from a projection to the values."""
    if key == "conv2d" and out.ndim == 4:
        found.grids.append((int(out.shape[2]), int(out.shape[3])))
    pairs = found.pairs
    given = tensors_of((args, kwargs))
    if key in SOFTMAX:
        pairs.begin(given[0], out, axis_of(args, kwargs), found.layer)
    else:
        pairs.follow(key, given, tensors_of((out,)), carries=key in CARRIES)


def axis_of(args: Any, kwargs: Any) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)


# ---- where the weights meet the values -------------------------------------------------------------------------------


def fused(found: Attended, op: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """The fused kernel runs as it is; its weights are computed beside it, and their gradient is G V^T."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {
        "attn_mask": None,
        "dropout_p": 0.0,
        "is_causal": False,
        "scale": None,
        "enable_gqa": False,
        **dict(zip(names, args, strict=False)),
        **kwargs,
    }
    if given["dropout_p"]:
        raise UnsupportedError(f"the attention drops {given['dropout_p']:.0%} of its weights at random; give it dropout_p=0 in eval mode.")
    query, key, value = given["query"], given["key"], given["value"]
    if given["enable_gqa"]:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    with torch.no_grad():
        weights = weights_of(query, key, given["attn_mask"], given["is_causal"], given["scale"])
    out = op(*args, **kwargs) if found.edit is None else torch.matmul(found.edit(weights).to(value.dtype), value)
    out = differentiable(out)
    found.keep(weights, out, lambda g: torch.matmul(g, value.detach().transpose(-2, -1)), found.pairs.of(query, key))
    return out  # type: ignore[no-any-return]


def weights_of(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float | None) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d) + mask) as torch defines it, in float32 at least; a row that may look nowhere is 0."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    logits = torch.matmul(query.to(dtype), key.to(dtype).transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if causal and mask is None:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    logits = masked(logits, mask)
    return torch.softmax(logits, -1).masked_fill(torch.isneginf(logits).all(-1, keepdim=True), 0.0)


def weighing(found: Attended, key: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The operands of a product, with the weights noted, and edited, where it is weights times values."""
    operands = tensors_of((args, kwargs))
    which = [k for k, t in enumerate(operands) if found.pairs.is_weights(t)]
    order = order_of(key, args, operands, which[0]) if len(which) == 1 and len(operands) == 2 else None
    if order is None:
        return args, kwargs
    weights, values = operands[which[0]], operands[1 - which[0]]
    fixed = values.ndim < 3 or isinstance(values, torch.nn.Parameter)  # vectors that all items share, as of the words of a language model
    if fixed or not are_weights(weights.detach().permute(order)):
        return args, kwargs
    at, back = weights, np.argsort(order).tolist()
    if found.edit is not None:
        at = found.edit(weights.permute(order)).permute(back)
    else:
        at = differentiable(weights)
    found.keep(weights.permute(order), at, lambda g: g.permute(order), found.pairs.used(weights))
    return put(args, weights, at), put(kwargs, weights, at)


def differentiable(t: torch.Tensor) -> torch.Tensor:
    """Weights that do not depend on the input, on which the score does depend, as in a decoder."""
    return t if t.requires_grad else t.detach().requires_grad_()


def are_weights(found: torch.Tensor) -> bool:
    """[..., queries, keys]: shares of at most 1 in each row, so that the product runs over what the softmax ran over."""
    error = SUM_ERROR[min(found.element_size(), 8)]
    return found.ndim >= 3 and bool((found >= 0).all()) and bool((found.sum(-1) <= 1 + error).all())


def put(args: Any, old: Any, new: Any) -> Any:
    if isinstance(args, dict):
        return {name: put(one, old, new) for name, one in args.items()}
    if isinstance(args, (list, tuple)):
        return type(args)(put(one, old, new) for one in args)
    return new if args is old else args


def shuffled(weights: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Each row's weights [..., queries, keys] among the places that it looks at, in another order; one generator for each item."""
    if len(generators) == len(weights):
        noise = torch.stack([torch.rand(weights.shape[1:], generator=one) for one in generators])
    else:  # heads of a single item
        noise = torch.rand(weights.shape, generator=generators[0])
    empty = weights == 0
    places = torch.argsort(empty.to(torch.uint8), dim=-1, stable=True)
    taken = torch.argsort(noise.to(weights.device) + empty, dim=-1)
    return torch.zeros_like(weights).scatter(-1, places, weights.gather(-1, taken))
