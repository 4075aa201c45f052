"""The places of what a layer gives: which axis holds the channels, which tokens are padding, and one row of numbers of them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError, LayerError
from askwhy.models.base import Items
from askwhy.models.torch_module import TorchModel
from askwhy.tap import hooked

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

AXES = "axes"  # what a model's memory calls the number of axes that each part gives, in the order in which they run
POOLS = ("mean", "max", "flat", "first", "last")


def pooled(model: TorchModel, name: str, out: torch.Tensor, items: Items, own: range, pool: str = "mean") -> torch.Tensor:
    """A layer's output [m, ...] as rows [m, d] of their own memory, so that no later operation of the model writes into them.

    pool: "mean" or "max" over the places (pixels, tokens without padding), "flat" (every number), "first" or "last" place.
    Raises InputError, LayerError.
    """
    if pool not in POOLS:
        raise InputError(f"pool={pool!r}: choose {', '.join(map(repr, POOLS))}.")
    if out.ndim == 2:
        return out.clone()
    if pool == "flat":
        held = real_places(items, own, out.shape[1]) if out.ndim == 3 else None
        if held is not None and len({*map(len, held), out.shape[1]}) > 1:
            raise InputError(
                f"pool='flat' with texts of different lengths would count the padding of layer {name!r}; choose 'mean', 'first' or 'last'."
            )
        return out.flatten(1).clone()
    places = in_places(model, name, out)  # [m, places, channels]
    held = real_places(items, own, places.shape[1])
    if held is None:
        whole = {"mean": lambda: places.mean(1), "max": lambda: places.amax(1), "first": lambda: places[:, 0], "last": lambda: places[:, -1]}
        return whole[pool]().clone()
    ends = {"first": lambda own: own[0], "last": lambda own: own[-1], "mean": lambda own: own.mean(0), "max": lambda own: own.amax(0)}
    return torch.stack([ends[pool](places[k, at]) for k, at in enumerate(held)])


def in_places(model: TorchModel, name: str, out: torch.Tensor) -> torch.Tensor:
    """[m, ...] -> [m, places, channels]: pixels of a feature map, tokens or steps of a sequence."""
    if out.ndim == 2:
        return out[:, None]
    return out.movedim(channels_of(model, name, out), -1).flatten(1, -2)


def channels_of(model: TorchModel, name: str, out: Any) -> int:
    """The axis of the channels in [m, ...], as the parts of known layout say: those in the layer, or else the nearest before it.

    The last part counts whose width is on one axis only, be it turned by a transposition behind it. Where each is as wide as
    both axes, the first does, since most blocks give the layout that they are given.
    """
    if out.ndim == 2:
        return 1
    if AXES not in model.memory:
        return channels_in(model, name, out.shape)
    key = "channels", name, tuple(out.shape[1:])
    if key not in model.memory:  # so that no pass takes another axis than the first one, in which some parts have yet to run
        model.memory[key] = channels_in(model, name, out.shape)
    return model.memory[key]  # type: ignore[no-any-return]


def channels_in(model: TorchModel, name: str, shape: Sequence[int]) -> int:
    for scope in scopes(model.net, name):
        said = list(layouts(model, name, scope, len(shape)))
        found = [at for front, width in said if (at := axis_of(shape, front, width)) is not None]
        sure = [axis for axis, alone in found if alone]
        if said:
            return sure[-1] if sure else found[0][0] if found else 1 if said[-1][0] else len(shape) - 1
    return 1 if len(shape) > 3 else len(shape) - 1


def axis_of(shape: Sequence[int], front: bool, width: int) -> tuple[int, bool] | None:
    """Where the width of a part is found, and whether there alone; None where it is not."""
    usual, other = (1, len(shape) - 1) if front else (len(shape) - 1, 1)
    if shape[usual] == width:
        return usual, shape[other] != width
    by_chance = front and len(shape) == 4 and shape[1] != shape[2]  # the width of one of several branches may be that of the map
    return (other, True) if shape[other] == width and not by_chance else None


def scopes(net: torch.nn.Module, name: str) -> Iterator[str]:
    """The layer, and what is written before it, the nearest first."""
    yield name
    while name:
        parent, _, own = name.rpartition(".")
        before = takewhile(lambda part, own=own: part != own, (part for part, _ in net.get_submodule(parent).named_children()))  # type: ignore[misc]
        yield from [f"{parent}.{part}" if parent else part for part in before][::-1]
        name = parent


def layouts(model: TorchModel, name: str, scope: str, ndim: int) -> Iterator[tuple[bool, int]]:
    """What the parts there say, in the order in which they ran; one that ran after the layer, or gave fewer axes, as a gate does, says nothing."""
    axes = model.memory.get(AXES, {})
    order = {part: k for k, part in enumerate(axes)}
    end = order.get(model.net.get_submodule(name))
    for part in sorted(model.net.get_submodule(scope).modules(), key=lambda part: order.get(part, -1)):
        said = layout_of(part, ndim)
        late = end is not None and scope != name and order.get(part, end) >= end
        if said is not None and not late and axes.get(part, ndim) >= ndim:
            yield said


@contextmanager
def axes_noted(model: TorchModel, names: Sequence[str]) -> Iterator[None]:
    """Inside the block is noted how many axes these layers give, and each part of known layout, one after the other."""
    axes = model.memory.setdefault(AXES, {})

    def note(name: str, part: torch.nn.Module, out: Any) -> None:
        first = out[0] if isinstance(out, tuple) and out else out
        axes[part] = max(axes.get(part, 0), getattr(first, "ndim", 0))

    with hooked(model.net, [*names, *(name for name, part in model.net.named_modules() if layout_of(part, 3) is not None)], note):
        yield


def layout_of(part: torch.nn.Module, ndim: int) -> tuple[bool, int] | None:
    """Whether a part has its channels in front, in an output of so many axes, and how many; None where it says nothing of that."""
    nn = torch.nn
    if isinstance(part, nn.modules.conv._ConvNd):
        return ndim == len(part.kernel_size) + 2, part.out_channels
    if isinstance(part, nn.modules.batchnorm._NormBase):
        return ndim > 3 or type(part).__name__.endswith("1d"), part.num_features
    if isinstance(part, nn.GroupNorm):
        return True, part.num_channels
    if isinstance(part, nn.RNNBase):
        return False, (part.proj_size or part.hidden_size) * (2 if part.bidirectional else 1)
    if isinstance(part, nn.LayerNorm):  # one over several axes may have its channels on any of them; some kinds of it turn the map
        front = type(part).__name__.endswith("2d") or getattr(part, "data_format", "") == "channels_first"
        return (front, part.normalized_shape[0]) if len(part.normalized_shape) == 1 else None
    for kind, width in ((nn.Linear, "out_features"), (nn.Embedding, "embedding_dim"), (nn.MultiheadAttention, "embed_dim")):
        if isinstance(part, kind):
            return False, getattr(part, width)
    return None


def real_places(items: Items, own: range, places: int) -> list[list[int]] | None:
    """The places of each text that are no padding; None of inputs other than one of tokens. Raises LayerError where the layer's places are no tokens."""
    parts: Sequence[Any] = () if items.arguments is None else items.arguments.parts
    if len(parts) != 1 or not parts[0].readings:
        return None
    mask = items.arguments.values.get("attention_mask")
    if mask is not None and tuple(mask.shape[1:]) == tuple(parts[0].places):  # ids beside their mask, without a tokenizer that says it
        held = [torch.nonzero(mask[k]).flatten().tolist() for k in own]
    else:
        held = [list(parts[0].readings[k].places) for k in own]
    tokens = int(np.prod(parts[0].places))
    if places == tokens:
        return held
    if places > 1 and any(len(one) < tokens for one in held):
        raise LayerError(
            f"the layer gives {places} places for {tokens} tokens, some of which are padding; ask about one text at a time, or name a layer of tokens."
        )
    return None
