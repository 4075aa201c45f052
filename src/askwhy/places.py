"""The places of what a layer gives: which axis holds the channels, which tokens are padding, and one row of numbers of them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError, LayerError
from askwhy.models.base import Items
from askwhy.models.torch_module import TorchModel

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

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
    """The axis of the channels in [m, ...]: that of the last part with a known layout in the layer, or before it.

    A part whose width is found on the other axis only was turned by a transposition behind it.
    """
    if out.ndim == 2:
        return 1
    known = [layout for part in parts_until(model.net, name) if (layout := layout_of(part, out.ndim)) is not None]
    front, width = known[-1] if known else (out.ndim > 3, 0)
    usual, other = (1, out.ndim - 1) if front else (out.ndim - 1, 1)
    turned = out.shape[other] == width != out.shape[usual]
    if front and out.ndim == 4:
        turned = turned and out.shape[1] == out.shape[2]  # the width of the last of several branches may be that of the map by chance
    return other if turned else usual


def parts_until(net: torch.nn.Module, name: str) -> Iterator[torch.nn.Module]:
    """The parts up to the end of a layer, as they are written down."""
    begun = False
    for path, part in net.named_modules():
        within = not name or path == name or path.startswith(f"{name}.")
        if begun and not within:
            return
        begun = begun or within
        yield part


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
    if isinstance(part, nn.LayerNorm):
        return False, part.normalized_shape[-1]
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
