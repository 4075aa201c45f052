"""Targets inside the network: a neuron, or a direction in what a layer gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.checks import is_whole
from askwhy.errors import LayerError, TargetError
from askwhy.models.base import contents, show_shape, to_numpy
from askwhy.tap import find_layer, hooked

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Inside:
    """A target that is read from the output of a layer, [m, ...] -> [m]."""

    layer: Any  # a module or its name
    read: Callable[[Any], Any]
    what: str  # its name in results, without the layer's

    def __call__(self, output: Any) -> Any:
        return self.read(output)

    @property
    def __name__(self) -> str:
        if self.layer == "":
            return f"{self.what} of the output"
        return f"{self.what} of layer {self.layer!r}" if isinstance(self.layer, str) else f"{self.what} of a {type(self.layer).__name__}"

    def named(self, net: torch.nn.Module) -> Inside:
        """The same with the layer's name in this network. Raises LayerError with near names."""
        return replace(self, layer=find_layer(net, self.layer)[0])


def neuron(layer: Any, index: int | Sequence[Any]) -> Inside:
    """The target "this neuron": the number that a layer gives at `index`, which counts without the axis of the items.

    layer: a module or its name. A channel of a feature map [m, c, h, w] alone, or a unit of tokens [m, tokens, dim]
    given as (..., unit), means its average over the places that `index` leaves open. The network is read as if it ended
    at the layer, for every method; `versus=` may be another neuron of it. Raises TargetError; and LayerError, when it is
    asked, for a layer that is not there, or runs several times. Example: `askwhy.saliency(net, photo, target=askwhy.neuron("layer3", 17))`.
    """
    at = tuple(index) if isinstance(index, (tuple, list)) else (index,)
    whole = [one for one in at if one is not Ellipsis]
    if not whole or len(at) > len(whole) + 1 or not all(is_whole(one, 0) for one in whole):
        raise TargetError(f"neuron({index!r}): give the number of a unit from 0 on, or one number for each axis, as (3, 0, 5) or (..., 5).")

    def read(out: torch.Tensor) -> torch.Tensor:
        try:
            found = out[(slice(None), *at)]
        except IndexError as error:
            raise TargetError(f"neuron({index!r}): the layer gives {show_shape(out[0])} for an item, counted from 0.") from error
        return found.flatten(1).mean(1) if found.ndim > 1 else found

    return Inside(layer, read, f"neuron {', '.join('...' if one is Ellipsis else str(one) for one in at)}")


def concept(layer: Any, direction: Any, name: str | None = None) -> Inside:
    """The target "this direction": the product of a layer's output with a vector, as of a concept (Kim et al. 2018).

    direction: one number a channel [c], of which the mean over the places is taken (channels are the first axis of a
    feature map [m, c, h, w], the last of tokens [m, tokens, c]), or one for each number of the layer. It is not scaled:
    give a unit vector for the length of the projection. name: what the results call it. Otherwise as `neuron`.
    Raises LayerError, TargetError. Example: `askwhy.integrated_gradients(net, x, target=askwhy.concept("layer4", stripes))`.
    """
    vector = as_direction(direction)

    def read(out: torch.Tensor) -> torch.Tensor:
        given = out.new_tensor(vector)
        if out.shape[1:] == given.shape:
            return out.flatten(1) @ given.flatten()
        return out.movedim(channel_axis(out, vector), -1).flatten(1, -2).mean(1) @ given

    return Inside(layer, read, f"direction {list(vector.shape)}" if name is None else str(name))


def as_direction(direction: Any) -> np.ndarray:
    """Finite numbers, not all of them 0. Raises TargetError."""
    try:
        vector = np.asarray(to_numpy(direction), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TargetError(f"concept: the direction is a {type(direction).__name__} and not an array of numbers.") from error
    if not np.isfinite(vector).all() or not vector.any():
        raise TargetError(f"concept: the direction {list(vector.shape)} is empty, all zero, or holds NaN or infinite numbers.")
    return vector


def channel_axis(out: torch.Tensor, vector: np.ndarray) -> int:
    """The axis that a direction [c] goes along. Raises TargetError where there is none, or two could be meant."""
    usual = (1, out.ndim - 1) if out.ndim > 3 else (2, 1) if out.ndim == 3 else ()
    fits = [axis for axis in usual if vector.shape == (out.shape[axis],)]
    if not fits:
        raise TargetError(
            f"concept: the direction is {list(vector.shape)}, and the layer gives {show_shape(out[0])} for an item; give one number a channel, or one for each number."
        )
    if out.ndim == 3 and len(fits) == 2:
        raise TargetError(
            f"concept: the direction {list(vector.shape)} fits both axes of the {show_shape(out[0])} that the layer gives for an item; give one number for each number of the layer."
        )
    return fits[0]


# ---- the network up to the layer -----------------------------------------------------------------------------------


class Reached(BaseException):
    """The layer has run. No Exception, so that no handler in the model's own code holds it up."""


def ending_at(net: torch.nn.Module, layer: str, run: Callable[[], Any]) -> torch.Tensor:
    """What the layer gives in `run()`, a pass of the network that ends there.

    So a method sees what it would see of a network that was cut there: no map, rectifier or comparison behind the
    target, which have no part in it. Raises LayerError.
    """
    found: list[torch.Tensor] = []

    def stop(name: str, module: torch.nn.Module, out: Any) -> None:
        found.append(one_tensor(out, name))
        raise Reached

    with hooked(net, [layer], stop), suppress(Reached):
        run()
    return only_run(found, layer)


def check_layer(net: torch.nn.Module, layer: str, run: Callable[[], Any]) -> None:
    """Refuse a layer that does not give one tensor, with a row for the item, in a whole pass `run()` for one item. Raises LayerError."""
    found: list[torch.Tensor] = []
    with hooked(net, [layer], lambda name, module, out: found.append(one_tensor(out, name))):
        run()
    out = only_run(found, layer)
    if out.ndim == 0 or len(out) != 1:
        raise LayerError(f"layer {layer!r} gives {show_shape(out)} for one item; a target needs a layer whose first axis counts the items.")


def only_run(outs: list[torch.Tensor], layer: str) -> torch.Tensor:
    if len(outs) != 1:
        why = f"runs {len(outs)} times in one forward pass, so it has no one output" if outs else "did not run in this forward pass"
        raise LayerError(f"layer {layer!r} {why}; a target needs a layer that runs once, perhaps the one around it.")
    return outs[0]


def one_tensor(out: Any, layer: str) -> torch.Tensor:
    """A layer's output, also out of a tuple that holds one tensor, as an LSTM's (output, (h, c)) does. Raises LayerError."""
    found = [out] if hasattr(out, "detach") else [part for part in out if hasattr(part, "detach")] if isinstance(out, (tuple, list)) else []
    if len(found) != 1:
        raise LayerError(f"layer {layer!r} gives {contents(out)} and not one tensor; name a layer inside it, or the one that reads what you mean.")
    return found[0]  # type: ignore[no-any-return]
