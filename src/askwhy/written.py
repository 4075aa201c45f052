"""Operations that torch carries out in one piece, written out in simpler ones, which the rules know.

Each has the arguments of the function that it stands for, and gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Tensor = Any  # a torch.Tensor, or None where torch takes None


def standardize(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps)"""
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def per_channel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """weight and bias [c] on x [n, c, ...]."""
    shape = (-1, *(1,) * (x.ndim - 2))
    return affine(x, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape))


def layer_norm(x: Tensor, shape: Any, weight: Tensor = None, bias: Tensor = None, eps: float = 1e-5, *_: Any, **__: Any) -> Tensor:
    return affine(standardize(x, tuple(range(-len(shape), 0)), eps), weight, bias)


def rms_norm(x: Tensor, shape: Any, weight: Tensor = None, eps: float | None = None) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return affine(x * torch.rsqrt((x * x).mean(tuple(range(-len(shape), 0)), keepdim=True) + eps), weight, None)


def group_norm(x: Tensor, groups: int, weight: Tensor = None, bias: Tensor = None, eps: float = 1e-5, *_: Any) -> Tensor:
    return per_channel(standardize(x.reshape(len(x), groups, -1), (-1,), eps).reshape(x.shape), weight, bias)


def instance_norm(
    x: Tensor, running_mean: Tensor = None, running_var: Tensor = None, weight: Tensor = None, bias: Tensor = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Tensor:  # fmt: skip
    if use_input_stats:
        return per_channel(standardize(x, tuple(range(2, x.ndim)), eps), weight, bias)
    return per_channel(per_channel(x - running_mean.reshape(-1, *(1,) * (x.ndim - 2)), torch.rsqrt(running_var + eps), None), weight, bias)


def torch_instance_norm(x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, *rest: Any) -> Tensor:
    """The same in the order of torch.instance_norm."""
    return instance_norm(x, running_mean, running_var, weight, bias, *rest)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor = None, dropout_p: float = 0.0, is_causal: bool = False,
    *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(Q K^T / sqrt(d) + mask) V"""
    if dropout_p:
        raise UnsupportedError(f"the attention drops {dropout_p:.0%} of its weights at random; give it dropout_p=0 when the model is in eval mode.")
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    logits = torch.matmul(query, key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril() if is_causal and attn_mask is None else attn_mask
    return torch.matmul(torch.softmax(masked(logits, mask), -1), value)


def masked(logits: Tensor, mask: Tensor) -> Tensor:
    """A mask of booleans says where to look; one of numbers is added."""
    if mask is None:
        return logits
    return logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, dim: int, heads: int, in_weight: Tensor, in_bias: Tensor, bias_k: Tensor, bias_v: Tensor,
    add_zero_attn: bool, dropout_p: float, out_weight: Tensor, out_bias: Tensor, training: bool = True, key_padding_mask: Tensor = None,
    need_weights: bool = True, attn_mask: Tensor = None, use_separate_proj_weight: bool = False, q_proj_weight: Tensor = None,
    k_proj_weight: Tensor = None, v_proj_weight: Tensor = None, static_k: Tensor = None, static_v: Tensor = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """nn.MultiheadAttention on [length, n, dim]: (output, weights)."""
    extra = {"bias_k": bias_k, "bias_v": bias_v, "static_k": static_k, "static_v": static_v, "add_zero_attn": add_zero_attn or None}
    used = [name for name, given in extra.items() if given is not None]
    if used or (training and dropout_p):
        raise UnsupportedError(f"attention with {', '.join(used) or 'dropout'} has no rule here; use occlusion, lime or integrated gradients.")
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_weight.chunk(3)
    biases = (None,) * 3 if in_bias is None else in_bias.chunk(3)
    single = query.ndim == 2
    query, key, value = (t[:, None] if single else t for t in (query, key, value))
    q, k, v = (by_head(torch.nn.functional.linear(t, w, b), heads) for t, w, b in zip((query, key, value), weights, biases, strict=True))
    logits = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(q.shape[-1]))
    logits = masked(logits, mask_by_head(attn_mask, len(q), heads))
    padding = None if key_padding_mask is None else key_padding_mask.reshape(-1, 1, 1, logits.shape[-1])
    attention = torch.softmax(masked(logits, inverted(padding)), -1)  # [n, heads, length, length]
    mixed = torch.matmul(attention, v).permute(2, 0, 1, 3).flatten(2)
    out = torch.nn.functional.linear(mixed, out_weight, out_bias)
    seen = (attention.mean(1) if average_attn_weights else attention) if need_weights else None
    return (out[:, 0], None if seen is None else seen[0]) if single else (out, seen)


def by_head(x: Tensor, heads: int) -> Tensor:
    """[length, n, dim] -> [n, heads, length, dim / heads]"""
    return x.reshape(*x.shape[:2], heads, -1).permute(1, 2, 0, 3)


def mask_by_head(mask: Tensor, n: int, heads: int) -> Tensor:
    """nn.MultiheadAttention takes [length, length] or [n * heads, length, length]; its booleans say where not to look."""
    mask = inverted(mask)
    return mask.reshape(n, heads, *mask.shape[1:]) if mask is not None and mask.ndim == 3 else mask


def inverted(mask: Tensor) -> Tensor:
    return ~mask if mask is not None and mask.dtype == torch.bool else mask


def lstm_step(x: Tensor, state: tuple[Tensor, Tensor], w: Tensor, u: Tensor, b: Tensor = None, c: Tensor = None) -> tuple[Tensor, Tensor]:
    """(h, cell) -> (h, cell); gates in torch's order: in, forget, cell, out."""
    linear = torch.nn.functional.linear
    i, f, g, o = (linear(x, w, b) + linear(state[0], u, c)).chunk(4, -1)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def gru_step(x: Tensor, state: tuple[Tensor], w: Tensor, u: Tensor, b: Tensor = None, c: Tensor = None) -> tuple[Tensor]:
    linear = torch.nn.functional.linear
    (r, z, n), (r_h, z_h, n_h) = linear(x, w, b).chunk(3, -1), linear(state[0], u, c).chunk(3, -1)
    z = torch.sigmoid(z + z_h)
    new = torch.tanh(n + torch.sigmoid(r + r_h) * n_h)
    return ((1 - z) * new + z * state[0],)


def rnn_step(activation: str) -> Callable[..., tuple[Tensor]]:
    def step(x: Tensor, state: tuple[Tensor], w: Tensor, u: Tensor, b: Tensor = None, c: Tensor = None) -> tuple[Tensor]:
        linear = torch.nn.functional.linear
        return (getattr(torch, activation)(linear(x, w, b) + linear(state[0], u, c)),)

    return step


def recurrent(step: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    """nn.LSTM and its like as torch calls them, step by step."""

    def run(
        x: Tensor, hx: Any, weights: Any, has_biases: Any, layers: Any, dropout: Any, train: bool, bidirectional: bool, batch_first: Any = False
    ) -> Any:
        if isinstance(hx, torch.Tensor) and not hx.is_floating_point():  # the form for packed sequences: data, batch sizes, hx, weights, ...
            raise UnsupportedError("packed sequences have no rule here; give the padded sequence, or use occlusion, lime or gradients.")
        if train and dropout:
            raise UnsupportedError("the recurrent layer drops units at random; call model.eval() first.")
        starts = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        each, ways = (4 if has_biases else 2), (2 if bidirectional else 1)
        if len(weights) != each * ways * layers:
            raise UnsupportedError("recurrent layers with projections (proj_size) have no rule here; use occlusion, lime or gradients.")
        steps = list((x.transpose(0, 1) if batch_first else x).unbind(0))
        ends = []
        for layer in range(layers):
            found = []
            for way in range(ways):
                at = layer * ways + way
                outs, state = one_way(step, steps[::-1] if way else steps, tuple(s[at] for s in starts), weights[at * each : (at + 1) * each])
                found.append(outs[::-1] if way else outs)
                ends.append(state)
            steps = [torch.cat(parts, -1) for parts in zip(*found, strict=True)] if ways > 1 else found[0]
        out = torch.stack(steps, 1 if batch_first else 0)
        return (out, *(torch.stack(parts) for parts in zip(*ends, strict=True)))

    return run


def one_way(step: Callable[..., tuple[Tensor, ...]], steps: list[Tensor], state: tuple[Tensor, ...], weights: Any) -> tuple[list[Tensor], Any]:
    outs = []
    for x in steps:
        state = step(x, state, *weights)
        outs.append(state[0])
    return outs, state


def cell(step: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    """nn.LSTMCell and its like."""

    def run(x: Tensor, hx: Any, *weights: Any) -> Any:
        state = step(x, tuple(hx) if isinstance(hx, (tuple, list)) else (hx,), *weights)
        return state if len(state) > 1 else state[0]

    return run


def addmm(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.matmul(x, y)
    return (product if alpha == 1 else product * alpha) + (bias if beta == 1 else bias * beta)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


def normalize(x: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    return x / torch.linalg.vector_norm(x, p, dim, keepdim=True).clamp_min(eps) if out is None else NotImplemented


WRITTEN: dict[str, Callable[..., Any]] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "torch_instance_norm": torch_instance_norm,
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention_forward,
    "lstm": recurrent(lstm_step),
    "gru": recurrent(gru_step),
    "rnn_tanh": recurrent(rnn_step("tanh")),
    "rnn_relu": recurrent(rnn_step("relu")),
    "lstm_cell": cell(lstm_step),
    "gru_cell": cell(gru_step),
    "rnn_tanh_cell": cell(rnn_step("tanh")),
    "rnn_relu_cell": cell(rnn_step("relu")),
    "addmm": addmm,
    "baddbmm": addmm,
    "glu": glu,
    "normalize": normalize,
}


# ---- further down to sums, products and functions of one number, for rules that know no more ------------------------


def reciprocal_of(x: Any, y: Any, **options: Any) -> Any:
    """x / y where y depends on the input: a product."""
    return x * torch.reciprocal(y) if isinstance(y, torch.Tensor) and y.requires_grad and not options else NotImplemented


def larger(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """b + relu(a - b), where a depends on the input: a rectifier where b is zero."""
    a, b = (x, other) if x.requires_grad else (other, x)
    return b + torch.relu(a - b)


def smaller(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return other - torch.relu(other - x)


def larger_of_two(x: torch.Tensor, other: Any = None, *rest: Any, **options: Any) -> Any:
    """torch.max with a second tensor; with an axis it is a rule of its own."""
    return larger(x, other) if isinstance(other, torch.Tensor) and not rest and not options else NotImplemented


def smaller_of_two(x: torch.Tensor, other: Any = None, *rest: Any, **options: Any) -> Any:
    return smaller(x, other) if isinstance(other, torch.Tensor) and not rest and not options else NotImplemented


def square_root_of_sum(x: torch.Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """The Euclidean norm."""
    if p not in ("fro", 2, 2.0) or any(v is not None for v in options.values()):
        return NotImplemented
    return torch.sqrt((x * x).sum(dim, keepdim) if dim is not None else (x * x).sum())


def vector_norm(x: torch.Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    return square_root_of_sum(x, ord, dim, keepdim, **options)


def variance(x: torch.Tensor, dim: Any = None, *rest: Any, unbiased: bool | None = None, correction: Any = 1, keepdim: bool = False) -> Any:
    """The mean square from the mean."""
    if rest or isinstance(dim, bool):
        return NotImplemented
    axes = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    centred = x - x.mean(axes, keepdim=True)
    count = math.prod(x.shape[a] for a in axes) - (correction if unbiased is None else int(unbiased))
    return (centred * centred).sum(axes, keepdim) / count


def deviation(*args: Any, **kwargs: Any) -> Any:
    found = variance(*args, **kwargs)
    return found if found is NotImplemented else torch.sqrt(found)


WRITTEN_IN_FULL: dict[str, Callable[..., Any]] = {
    **WRITTEN, "div": reciprocal_of, "maximum": larger, "fmax": larger, "minimum": smaller, "fmin": smaller, "max": larger_of_two, "min": smaller_of_two,
    "norm": square_root_of_sum, "var": variance, "std": deviation, "vector_norm": vector_norm,
}  # fmt: skip
