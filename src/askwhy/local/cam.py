"""Class activation maps: where in a layer's feature map the evidence lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.components import grid_of
from askwhy.errors import LayerError, UnsupportedError
from askwhy.explanation import Explanation, answer
from askwhy.game import Progress, batch_size_for, in_chunks, progress_of
from askwhy.local.gradient import differentiate, grad_mode, need_torch
from askwhy.models.base import show_shape, to_numpy
from askwhy.models.torch_module import TorchModel
from askwhy.registry import method
from askwhy.rules import key_of
from askwhy.score import ask
from askwhy.tap import find_layer, once, tap

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="Grad-CAM",
    needs="layers",
    inputs=("image",),
    asks="In which part of the picture does the last feature map of the network hold evidence for the class?",
    reads="large: evidence for the class lies here; what speaks against it is cut off",
    signed=False,
    paper="Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391",
    preference=30,
)
def grad_cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """relu(sum_k a_k A_k) with a_k the mean of dS/dA_k over the map: [n, h, w], at the input's size or (resize=False) the layer's grid.

    layer: a module, its name, or a list (the mean of their maps). None takes the last convolution's feature map, after
    the batch norm, activation and residual that follow it: what the pooling sees. `details["layer"]` names it.
    Selvaraju et al. 2017. Raises LayerError. Example: `askwhy.grad_cam(net, photo, layer="layer4").plot()`.
    """
    score = ask(model, x, target, versus)
    wrapped, grid = need_torch(score), grid_of(score.items)[0]
    wanted = [] if layer is None else [find_layer(wrapped.net, one)[0] for one in (layer if isinstance(layer, (list, tuple)) else [layer])]
    found: list[str] = []

    def work(start: int, stop: int) -> np.ndarray:
        with feature_maps(wrapped, wanted) as maps_by_name:
            scores = score.settle(wrapped.forward(score.items.batch[start:stop].clone()), range(start, stop))
        score.calls += stop - start
        maps = maps_by_name()
        found[:] = list(maps)
        grads = differentiate(scores, list(maps.values()))
        heat = [weighted(a, g, name) for (name, a), g in zip(maps.items(), grads, strict=True)]
        return to_numpy(torch.stack([enlarge(h, grid) for h in heat]).mean(0) if resize else same_grid(heat))

    with wrapped.untouched(), grad_mode(), progress_of(progress, "grad_cam") as tick:
        values = in_chunks(len(score), work, batch_size_for(score, batch_size, "layers"), tick)
    return answer(score, values, details={"layer": ", ".join(found)}, params={"layer": wanted or None})


@contextmanager
def feature_maps(model: TorchModel, names: list[str]) -> Iterator[Callable[[], dict[str, torch.Tensor]]]:
    """Run the model inside the block; afterwards the function gives the maps of the named layers, or the last one."""
    if names:
        with tap(model.net, names, edit=lambda _, out: differentiable(out)) as seen:
            yield lambda: {name: once(seen, name) for name in names}
    else:
        with last_map(model) as last:
            yield lambda: {last.name: last.map}  # type: ignore[dict-item]


def weighted(a: torch.Tensor, g: torch.Tensor | None, name: str) -> torch.Tensor:
    """A [n, k, h, w], dS/dA -> [n, h, w]."""
    if a.ndim != 4:
        raise LayerError(f"layer {name!r} gives {show_shape(a)}; a class activation map needs a feature map [n, channels, h, w].")
    if g is None:
        raise LayerError(f"the score does not depend on layer {name!r}; name a layer on the way to the target.")
    return torch.relu((a * g.mean((2, 3), keepdim=True)).sum(1))


def enlarge(heat: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
    """[n, h, w] -> [n, *grid], bilinear."""
    return torch.nn.functional.interpolate(heat[:, None].float(), size=grid, mode="bilinear", align_corners=False)[:, 0]


def same_grid(heat: list[torch.Tensor]) -> torch.Tensor:
    if len({tuple(h.shape) for h in heat}) > 1:
        raise LayerError("resize=False with several layers needs layers of one grid; leave resize on, or ask one layer at a time.")
    return torch.stack(heat).mean(0)


def differentiable(out: torch.Tensor) -> torch.Tensor:
    """Start the graph at this layer: what comes before needs no gradient, and costs none."""
    return out if out.requires_grad else out.detach().requires_grad_()


CONVOLUTIONS = frozenset({"conv2d", "conv_transpose2d"})
ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})


class LastMap:
    """The output of the last convolution with a grid, carried through what follows it position by position."""

    map: torch.Tensor | None = None
    name: str = ""
    weight: torch.Tensor | None = None
    attention: bool = False

    def follow(self, key: str, args: tuple[Any, ...], out: Any) -> None:
        self.attention |= key in ATTENTION
        if not isinstance(out, torch.Tensor) or not out.requires_grad or self.map is None or out is self.map or out._is_view():
            return  # a view is written through: the map itself changes with it
        if out.ndim == 4 and out.shape == self.map.shape and any(a is self.map for a in _tensors(args)) and not key.endswith(("pool2d", "get")):
            self.map, self.name = out, f"{self.name} > {key}"

    def begin(self, key: str, weight: torch.Tensor, out: torch.Tensor) -> None:
        self.map, self.name, self.weight, self.attention = out, key, weight, False


@contextmanager
def last_map(model: TorchModel) -> Iterator[LastMap]:
    """Inside the block, follow the convolutions of a forward pass; gradients are recorded from the last one on.

    Which module holds the last convolution is kept for the next time, when everything before it runs unwatched.
    """
    last, stack, owner = LastMap(), ExitStack(), model.memory.get("last convolution")
    watch = following(last)

    def begin(*_: Any) -> None:
        if last.map is None:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(watch)

    with stack:
        if owner is None:
            begin()
        else:
            stack.enter_context(torch.no_grad())
            stack.callback(owner.register_forward_pre_hook(begin).remove)
        yield last
    if last.map is None:
        model.memory.pop("last convolution", None)
        raise LayerError("the model has no convolution with a feature map; name a layer with layer=, or use occlusion or lime.")
    if last.attention:
        raise UnsupportedError(
            "the model attends after its last convolution, whose map is not what the answer is made from; name a layer with layer=."
        )
    if owner is None:
        holders = (m for m in model.net.modules() if any(p is last.weight for p in m._parameters.values()))
        model.memory["last convolution"] = next(holders, None)


def following(last: LastMap) -> Any:
    """The mode that tells `last` of every operation."""
    from torch.overrides import TorchFunctionMode

    class Follow(TorchFunctionMode):
        def __torch_function__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs, key = kwargs or {}, key_of(op)
            if key not in CONVOLUTIONS:
                out = op(*args, **kwargs)
                last.follow(key, (*args, *kwargs.values()), out)
                return out
            # gradients begin at this convolution's weight, so that nothing before it is kept, and in-place steps may follow
            given = {**dict(zip(("input", "weight"), args, strict=False)), **kwargs}
            named = {k: v for k, v in given.items() if k not in ("input", "weight")}
            out = op(given["input"].detach(), given["weight"].detach().requires_grad_(), *args[2:], **named)
            if out.ndim == 4 and out.shape[2] * out.shape[3] > 1:
                last.begin(key, given["weight"], out)
                return out
            return op(*args, **kwargs)

    return Follow()


def _tensors(args: Any) -> Iterator[Any]:
    for a in args:
        if isinstance(a, (list, tuple)):
            yield from _tensors(a)
        else:
            yield a
