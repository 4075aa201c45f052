"""The feature maps that class activation maps weigh: the layer that was named, or the last one; tokens are put back on their grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.components import grid_of
from askwhy.errors import InputError, LayerError, UnsupportedError
from askwhy.models.base import Items, show_shape
from askwhy.models.inputs import alone
from askwhy.models.outputs import parts_of
from askwhy.models.torch_module import TorchModel
from askwhy.operations import key_of
from askwhy.score import Score
from askwhy.tap import find_layer, once, tap

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Place = Callable[["torch.Tensor"], "torch.Tensor"]  # a layer's output, or a gradient of its shape -> [n, channels, h, w]
CONVOLUTIONS = frozenset({"conv2d", "conv_transpose2d"})
CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
MOST_PREFIX = 8  # class and register tokens before the patches; with more, another grid would fit as well


def picture_grid(score: Score) -> tuple[int, int]:
    """Rows and columns of the input. Raises InputError where it is no picture."""
    grid = grid_of(the_picture(score.items))[0]
    if len(grid) != 2:
        raise InputError(f"a class activation map needs pictures [n, c, h, w], but x is {show_shape(score.items.batch)}; use gradient or occlusion.")
    return grid  # type: ignore[return-value]


def the_picture(items: Items) -> Items:
    """The one input that is a picture, where a model takes several."""
    if items.kind == "text":
        raise InputError("a class activation map needs pictures, and the model is given tokens; use integrated_gradients, lrp or occlusion.")
    if items.kind != "several":
        return items
    pictures = [part for part in items.arguments.parts if part.pictures]
    if len(pictures) != 1:
        raise InputError(f"a class activation map needs one picture, and the model is given {len(pictures)}; use integrated_gradients or lrp.")
    return alone(items, pictures[0], 0)


def layer_names(model: TorchModel, layer: Any) -> list[str]:
    """The names of the layers that `layer=` means; none for the last map."""
    if layer is None:
        return []
    return [find_layer(model.net, one)[0] for one in (layer if isinstance(layer, (list, tuple)) else [layer])]


def look(
    score: Score, names: list[str], batch: torch.Tensor, items: range, read: Callable[[Any, range], torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Run the model on a batch: the scores [n], read by `score.settle` or `score.read`, and the layers' outputs by name."""
    with feature_maps(score, names) as maps_of:
        outputs = score.forward(batch, items)
    return read(outputs, items), maps_of(outputs)  # what the target computes is no part of the network


@contextmanager
def feature_maps(score: Score, names: list[str]) -> Iterator[Callable[[Any], dict[str, torch.Tensor]]]:
    """Run the model inside the block; afterwards the function gives, for its outputs, the maps of the named layers, or the last one."""
    model: Any = score.model
    if names:
        with tap(model.net, names, edit=lambda _, out: differentiable(out)) as seen:
            yield lambda _: {name: once(seen, name) for name in names}
    else:
        with last_map(model, score.layer) as last:
            yield last.found


def differentiable(out: torch.Tensor) -> torch.Tensor:
    """Start the graph at this layer: what comes before needs no gradient, and costs none."""
    return out if out.requires_grad else out.detach().requires_grad_()


# ---- where the places of a layer lie on the input ------------------------------------------------------------------


def layout(score: Score, name: str, out: torch.Tensor, rows: int) -> tuple[Place, str]:
    """How this layer's output becomes a map [n, channels, h, w], and that grid in words. Raises LayerError."""
    if out.ndim not in (3, 4):
        raise LayerError(
            f"layer {name!r} gives {show_shape(out)}; a class activation map needs a feature map [n, channels, h, w] or tokens [n, tokens, dim]."
        )
    if len(out) != rows:
        raise LayerError(f"layer {name!r} gives {show_shape(out)} for {rows} items; name a layer whose first axis counts the items.")
    if out.ndim == 3:
        before, h, w = token_grid(score, name, out.shape[1])
        return lambda t: t[:, before:].transpose(1, 2).unflatten(2, (h, w)), f"{h} x {w} tokens after {before} others"
    _, a, b, c = out.shape
    if channels_come_last((a, b, c), picture_grid(score)):
        return lambda t: t.permute(0, 3, 1, 2), f"{a} x {b}, channels last"
    return lambda t: t, f"{b} x {c}"


def channels_come_last(shape: tuple[int, int, int], grid: tuple[int, int]) -> bool:
    """Whether [h, w, channels], and not [channels, h, w], has the proportions of the input, to a cell of rounding."""
    height, width = grid
    apart = [abs(h * width - w * height) for h, w in (shape[:2], shape[1:])]
    return apart[0] <= height + width < apart[1]


def token_grid(score: Score, name: str, tokens: int) -> tuple[int, int, int]:
    """How many tokens come first that are no patch, and the rows and columns of the patches. Raises LayerError.

    The best evidence is a convolution that made the patches; without one, square patches that tile the input.
    """
    height, width = picture_grid(score)
    sizes = [s for s in range(1, min(height, width)) if height % s == 0 == width % s]
    fits = fitting(tokens, grids_of_convolutions(score)) or fitting(tokens, [(height // s, width // s) for s in sizes])
    if len(fits) == 1:
        return fits.pop()
    could = " and ".join(f"{h} x {w} after {before} others" for before, h, w in sorted(fits)) or "none fits"
    raise LayerError(
        f"layer {name!r} gives {tokens} tokens for an input of {height} x {width}, which do not say how they lie on it ({could}); "
        "name a layer that gives [n, channels, h, w], or use occlusion or lime."
    )


def fitting(tokens: int, grids: Sequence[tuple[int, int]]) -> set[tuple[int, int, int]]:
    """The grids that leave few tokens over, as (tokens before them, rows, columns)."""
    return {(tokens - h * w, h, w) for h, w in grids if 0 <= tokens - h * w < min(h * w, MOST_PREFIX + 1)}


def grids_of_convolutions(score: Score) -> list[tuple[int, int]]:
    """The grids that convolutions give in a forward pass of this model, seen once for each shape of input."""
    from torch.overrides import TorchFunctionMode

    model: Any = score.model
    seen: list[tuple[int, int]] = []

    class See(TorchFunctionMode):
        def __torch_function__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = op(*args, **(kwargs or {}))
            if key_of(op) in CONVOLUTIONS and out.ndim == 4:
                seen.append(tuple(out.shape[2:]))
            return out

    key = "grids of convolutions", tuple(score.items.batch.shape[1:])
    if key not in model.memory:
        with torch.no_grad(), See():
            score.forward(score.items.batch[:1].clone(), [0])
        model.memory[key] = seen
    return model.memory[key]


# ---- the last map --------------------------------------------------------------------------------------------------


class LastMap:
    """The output of the last convolution with a grid, carried through what follows it position by position."""

    def __init__(self) -> None:
        self.map: torch.Tensor | None = None
        self.name = ""
        self.weight: torch.Tensor | None = None
        self.attention = False
        self.users: list[Any] = []  # autograd nodes of the operations that were seen to use the map

    def begin(self, key: str, weight: torch.Tensor, out: torch.Tensor) -> None:
        self.map, self.name, self.weight, self.attention, self.users = out, key, weight, False, []

    def follow(self, key: str, args: tuple[Any, ...], out: Any) -> None:
        self.attention |= key in ATTENTION
        if self.map is None or not any(a is self.map for a in _tensors(args)):
            return
        if out is self.map:  # written in place
            self.users = []
        elif self.goes_on(key, out):
            self.map, self.name, self.users = out, f"{self.name} > {key}", []
        else:
            self.users += [t.grad_fn for t in _tensors((out,)) if isinstance(t, torch.Tensor)]

    def goes_on(self, key: str, out: Any) -> bool:
        """Whether this is the map after another step; a view is none, since what is written through it changes the map itself."""
        if not isinstance(out, torch.Tensor) or not out.requires_grad or out.ndim != 4 or out._is_view():
            return False
        before: Any = self.map
        if key in CONCATENATIONS:  # branches side by side, as in DenseNet and Inception
            return out.shape[0] == before.shape[0] and out.shape[2:] == before.shape[2:]
        return out.shape == before.shape and not key.endswith(("pool2d", "get"))

    def found(self, outputs: Any) -> dict[str, torch.Tensor]:
        """The map under its name. Raises LayerError where something that was not seen leads on from it to the outputs."""
        ends = [t for t in flat_tensors(outputs) if t is not self.map and t.grad_fn is not None]
        if self.map is not None and any(node is self.map.grad_fn for end in ends for node in nodes_between(end, {*self.users})):
            raise LayerError(
                f"what the model does after {self.name!r} cannot be followed (an autograd.Function, torch.jit or torch.compile), "
                "so the last feature map is not known; name a layer with layer=."
            )
        return {self.name: self.map}  # type: ignore[dict-item]


def flat_tensors(outputs: Any) -> list[torch.Tensor]:
    """The tensors in whatever a model returned."""
    if hasattr(outputs, "grad_fn"):
        return [outputs]
    return [t for part in parts_of(outputs).values() for t in flat_tensors(part)]


def nodes_between(scores: torch.Tensor, ends: set[Any]) -> Iterator[Any]:
    """The autograd nodes behind the scores, down to those in `ends`."""
    seen, stack = {None, *ends}, [scores.grad_fn]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack += [before for before, _ in node.next_functions]  # type: ignore[union-attr]


@contextmanager
def last_map(model: TorchModel, end: str | None) -> Iterator[LastMap]:
    """Inside the block, follow the convolutions of a forward pass; gradients are recorded from the last one on.

    Which module holds the last convolution is kept for the next time, when everything before it runs unwatched. It is
    another one where the question ends at a layer.
    """
    key = "last convolution", end
    last, stack, owner = LastMap(), ExitStack(), model.memory.get(key)
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
        model.memory.pop(key, None)
        raise LayerError("the model has no convolution with a feature map; name a layer with layer=, or use occlusion or lime.")
    if not last.map.requires_grad:
        raise LayerError(
            "the last convolution runs without gradients (no_grad, or a reentrant checkpoint), so that what follows it cannot be seen; name a layer with layer=."
        )
    if last.attention:
        raise UnsupportedError(
            "the model attends after its last convolution, whose map is not what the answer is made from; name a layer with layer=."
        )
    if owner is None:
        holders = (m for m in model.net.modules() if any(p is last.weight for p in m._parameters.values()))
        model.memory[key] = next(holders, None)


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
            out = op(*args, **kwargs)
            last.follow(key, (*args, *kwargs.values()), out)
            return out

    return Follow()


def _tensors(args: Any) -> Iterator[Any]:
    for a in args:
        if isinstance(a, (list, tuple)):
            yield from _tensors(a)
        else:
            yield a
