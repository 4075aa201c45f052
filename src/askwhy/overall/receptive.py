"""Which pixels a place of a layer sees: all that can reach it, and those that matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.components import grid_of
from askwhy.errors import InputError, LayerError, UnsupportedError
from askwhy.game import batch_size_of, in_chunks
from askwhy.kept import Kept
from askwhy.layers import channels_of, chosen, torch_model
from askwhy.models.base import Items, show_shape
from askwhy.models.fast import copy_in
from askwhy.models.state import attributes
from askwhy.models.torch_module import TorchModel
from askwhy.overall.footprint import boxes_of, smallest_box
from askwhy.overall.made import LARGEST
from askwhy.tap import hooked
from askwhy.targets import check_layer, ending_at

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
else:
    torch = lazy("torch", "torch")

SHARE = 0.95  # of the squared gradient, in the effective field


@dataclass(frozen=True, eq=False)
class ReceptiveField(Kept):
    """What the places of a layer see of a picture. Boxes are [top, left, bottom, right] in pixels, the last two exclusive.

    boxes [*grid, 4]: what can reach each place. effective [4]: the smallest box with 95 % of the squared gradient of `place`.
    gradient [h, w]: the share of the squared gradient that each pixel has, the mean over the items.
    """

    layer: str
    boxes: np.ndarray
    effective: np.ndarray
    gradient: np.ndarray
    place: tuple[int, ...]
    items: int = 1
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the largest box; smaller ones are cut off by the border of the picture."""
        return sides(self.boxes)

    @property
    def step(self) -> tuple[int, ...]:
        """How many pixels lie between neighbouring places that the border does not cut; 0 where that is not one number."""
        if self.boxes.ndim != 3:
            return (0, 0)
        h, w = self.gradient.shape
        return step_of(self.boxes[:, 0, ::2], h), step_of(self.boxes[0, :, 1::2], w)

    def summary(self) -> str:
        """A few lines: the fields, what of them matters, and how they were found."""
        h, w = self.gradient.shape
        high, wide = self.effective[2:] - self.effective[:2]
        own = self.boxes[self.place]
        return "\n".join(
            [
                f"a place of layer {self.layer!r} can see {self.size[0]} x {self.size[1]} pixels of {h} x {w}"
                + (f", and its neighbour lies {self.step[0]} x {self.step[1]} pixels further" if all(self.step) else ""),
                f"place {list(self.place)} sees rows {own[0]} to {own[2] - 1} and columns {own[1]} to {own[3] - 1}; "
                f"{SHARE:.0%} of its squared gradient lies in {high} x {wide} pixels ({self.items} item{'s' * (self.items > 1)})",
                "the fields are exact for this size of picture: NaN in a pixel outside never reaches the place; the effective one depends on the items",
                f"{self.model_calls} model calls, {self.seconds:.2f} s",
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The squared gradient of the place, the box of all it can see, and the effective box (dashed)."""
        from matplotlib.patches import Rectangle

        from askwhy import show
        from askwhy.show.paper import INKS

        ax = show.heatmap(
            self.gradient, ax=ax, title=f"field of place {list(self.place)} of layer {self.layer!r}", unit="share of the squared gradient"
        )
        for (top, left, bottom, right), line, name in ((self.boxes[self.place], "-", "can be seen"), (self.effective, "--", f"holds {SHARE:.0%}")):
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ls=line, lw=1.5, ec=INKS[0], label=name, clip_on=False))
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, frameon=False)
        return ax

    def __repr__(self) -> str:
        return f"<ReceptiveField of layer {self.layer!r}, {self.size[0]} x {self.size[1]} pixels>"


def receptive_field(
    model: Any, layer: Any, x: Any, place: Sequence[int] | None = None, *, seed: int = 0, batch_size: int | str = "auto"
) -> ReceptiveField:
    """Which pixels of a picture each place of a layer can see, and which of them matter.

    The boxes are measured on the model as it is (on a copy in float32, if it computes in half precision on the CPU): a place
    sees a pixel if NaN in the pixel makes the place NaN, whatever the values, so that dead rectifiers, max pooling, strides
    and uneven padding all count. A regular field is found in few passes and proved at many places; any other line by line.
    The effective field of `place` (None: the middle one) is the smallest box that holds 95 % of its squared gradient,
    summed over the channels (in expectation: random signs) and averaged over the items of x (Luo et al. 2016).
    Raises LayerError, also for a layer that runs twice; InputError for inputs other than pictures [n, c, h, w] and series
    [n, c, steps]; UnsupportedError where NaN or gradients are stopped on their way. Example: `askwhy.receptive_field(model, "layer3", photos).plot()`.
    """
    began = time.perf_counter()
    whole("seed", seed, 0, LARGEST)
    wrapped = torch_model(model)
    name = one_layer(wrapped, layer)
    items = wrapped.prepare(x)
    boxes, calls = measured(wrapped, name, items, batch_size)
    at = middle(boxes.shape[:-1]) if place is None else checked_place(place, boxes.shape[:-1])

    def work(start: int, stop: int) -> np.ndarray:
        return energy(wrapped, name, items, range(start, stop), [at] * (stop - start), None, seed)

    each = in_chunks(len(items), work, batch_size_of(wrapped, items.batch, batch_size if wrapped.seed is None else 1, "layers backward"), None)
    check_within(each, np.repeat(boxes[at][None], len(each), 0), name)
    shares = each / np.maximum(each.sum((1, 2), keepdims=True), 1e-300)
    return ReceptiveField(
        name, boxes, smallest_box(shares.mean(0), SHARE), shares.mean(0), at, len(items), int(seed),
        model_calls=calls + len(items), seconds=time.perf_counter() - began, versions=versions(),
    )  # fmt: skip


def one_layer(model: TorchModel, layer: Any) -> str:
    """Raises InputError, LayerError, UnsupportedError."""
    refuse_scripted(model.net)
    names = [] if layer is None else chosen(model, layer)
    if len(names) != 1:
        raise InputError(f"layer={layer!r}: name one layer, of which the places are meant.")
    refuse_scripted(model.net.get_submodule(names[0]))
    return names[0]


def refuse_scripted(module: torch.nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("torch.jit made a ScriptModule of this layer, in which nothing can be seen; give the module that it was made of.")


def checked_place(place: Sequence[int], grid: tuple[int, ...]) -> tuple[int, ...]:
    at = tuple(int(k) for k in np.atleast_1d(np.asarray(place)))
    if len(at) != len(grid) or not all(0 <= k < n for k, n in zip(at, grid, strict=True)):
        raise InputError(f"place={list(at)}: the layer has {' x '.join(map(str, grid)) or 'no'} places; give one number for each axis, from 0 on.")
    return at


def middle(grid: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n // 2 for n in grid)


def sides(boxes: np.ndarray) -> tuple[int, int]:
    """Height and width of the largest of boxes [..., 4]."""
    return int((boxes[..., 2] - boxes[..., 0]).max()), int((boxes[..., 3] - boxes[..., 1]).max())


def step_of(spans: np.ndarray, length: int) -> int:
    """spans [places, 2] of so many pixels -> the one distance of their ends, as far as the border does not cut them off; 0 where there is none."""
    starts, ends = spans[:, 0][spans[:, 0] > 0], spans[:, 1][spans[:, 1] < length]
    apart = np.unique(np.concatenate([np.diff(starts), np.diff(ends)]))
    return int(apart[0]) if len(apart) == 1 else 0


# ---- what can reach a place -----------------------------------------------------------------------------------------


def measured(model: TorchModel, name: str, items: Items, batch_size: int | str = "auto") -> tuple[np.ndarray, int]:
    """The boxes [*grid, 4] of all places, kept on the wrapped model for the next time, and the model calls.

    Raises InputError, LayerError, UnsupportedError.
    """
    key, state = ("receptive field", name, tuple(items.batch.shape[1:]), items.batch.dtype), attributes(model.net)
    known, boxes = model.memory.get(key, (None, None))
    if known == state:
        return boxes, 0  # type: ignore[return-value]
    space, _ = picture_axes(items)
    found = boxes_of(spoiler(model, name, items, batch_size), space)
    if found is None:
        raise UnsupportedError(
            f"layer {name!r} stays finite when every pixel is NaN: it does not read the picture, or the model replaces NaN; so its field is not known."
        )
    model.memory[key] = state, found.boxes
    return found.boxes, found.calls


def picture_axes(items: Items) -> tuple[tuple[int, int], int]:
    """Height and width of the pictures (1 and the steps of a series), and the axis of their channels. Raises InputError."""
    shape = tuple(items.batch.shape)
    if items.arguments is not None or len(shape) not in (3, 4) or not items.batch.is_floating_point():
        raise InputError(f"a receptive field needs pictures [n, c, h, w], or series [n, c, steps], as the one input; x is {show_shape(items.batch)}.")
    if len(shape) == 3:
        return (1, shape[2]), 1
    grid, axis = grid_of(items)
    return (grid[0], grid[1]), (axis or 0) + 1


def spoiler(model: TorchModel, name: str, items: Items, batch_size: int | str) -> Callable[[np.ndarray], np.ndarray]:
    """Masks of pixels [k, h, w] -> [k, *grid]: the places that are NaN if these pixels of the first item are."""
    axis = picture_axes(items)[1]
    size = batch_size_of(model, items.batch, batch_size if model.seed is None else 1, "layers")
    model, items = told_by_nan(model, name, Items(items.batch[:1], items.pictures[:1], items.frames[:1]))

    def spoiled(masks: np.ndarray) -> np.ndarray:
        def work(start: int, stop: int) -> np.ndarray:
            mask = torch.from_numpy(np.ascontiguousarray(masks[start:stop])).to(items.batch.device).unsqueeze(axis)
            mask = mask.reshape(stop - start, 1, -1) if items.batch.ndim == 3 else mask
            with torch.no_grad():
                out = ending_at(model.net, name, lambda: model.forward(items.batch.masked_fill(mask, torch.nan), items.beside([0] * (stop - start))))
            if out.ndim < 2 or len(out) != stop - start:
                raise LayerError(f"layer {name!r} gives {show_shape(out)} for {stop - start} items; name a layer whose first axis counts the items.")
            return out.isnan().any(channels_of(model, name, out)).cpu().numpy()

        with model.untouched(), exact_kernels(items.batch.is_cuda):
            return in_chunks(len(masks), work, size, None)

    return spoiled


def told_by_nan(model: TorchModel, name: str, first: Items) -> tuple[TorchModel, Items]:
    """The model, or a copy in float32: half precision on a CPU spreads NaN to places that do not see it. Raises LayerError, UnsupportedError."""
    if not computes_in_half(model, name, first) or first.batch.is_cuda:
        return model, first
    cause: Exception | None = None
    try:
        wide, own = replace(model, net=copy_in(model.net, torch.float32), memory={}), replace(first, batch=first.batch.float())
        if not computes_in_half(wide, name, own):
            return wide, own
    except Exception as error:  # noqa: BLE001  whatever the user's layers raise in a dtype that they were not written for
        cause = error
    raise UnsupportedError(
        "the model computes in half precision, and cannot be run in float32, in which alone a field can be told on a CPU; give it in float32."
    ) from cause


def computes_in_half(model: TorchModel, name: str, first: Items) -> bool:
    """Seen in one whole pass. Raises LayerError for a layer that does not run once in it."""
    seen = {t.dtype for t in chain(model.net.parameters(), model.net.buffers())}

    def note(name: str, module: torch.nn.Module, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            seen.add(out.dtype)

    every = [path for path, part in model.net.named_modules() if not isinstance(part, torch.jit.ScriptModule)]
    with model.untouched(), torch.no_grad(), exact_kernels(first.batch.is_cuda), hooked(model.net, every, note):
        check_layer(model.net, name, lambda: model.forward(first.batch))
    return not seen.isdisjoint({torch.float16, torch.bfloat16})


@contextmanager
def exact_kernels(on_gpu: bool) -> Iterator[None]:
    """Without the algorithms of cuDNN and NNPACK that compute with pixels that a place does not see (Winograd, FFT), and without autocast."""
    wide = torch.backends.cudnn if on_gpu else torch.backends.nnpack
    with wide.flags(enabled=False), torch.autocast("cuda" if on_gpu else "cpu", enabled=False):
        yield


# ---- what matters to a place ----------------------------------------------------------------------------------------


def energy(
    model: TorchModel, name: str, items: Items, own: range, places: Sequence[Sequence[int]], channels: Sequence[int] | None, seed: int = 0
) -> np.ndarray:
    """The squared gradient [m, h, w] of one place for each item, of one channel or summed over all of them. Raises UnsupportedError."""
    space, axis = picture_axes(items)
    with model.untouched(), torch.inference_mode(False), torch.enable_grad():
        leaf = items.batch[own.start : own.stop].clone().requires_grad_()
        out = ending_at(model.net, name, lambda: model.forward(leaf.clone(), items.beside(own)))
        rows = torch.arange(len(own))
        found = out.movedim(channels_of(model, name, out), -1)[(rows, *torch.as_tensor(np.array(places, int).reshape(len(own), -1)).T)]  # [m, c]
        if not found.requires_grad:
            raise UnsupportedError(f"layer {name!r} has no gradient with respect to the pixels (no_grad, detach or a step function on the way).")
        if channels is None:
            drawn = [np.random.default_rng([seed, k]).integers(0, 2, found.shape[1]) for k in own]  # whatever the batch size
            signs = torch.from_numpy(np.stack(drawn) * 2 - 1)
        else:
            signs = torch.nn.functional.one_hot(torch.as_tensor(channels), found.shape[1])
        (slope,) = torch.autograd.grad(found, [leaf], signs.to(found))
    squared = slope.double().square().sum(axis).reshape(len(own), *space).cpu().numpy()
    if not np.isfinite(squared).all():
        raise UnsupportedError(f"the gradient of layer {name!r} holds NaN or infinite numbers, so that no field can be told from it.")
    return squared


def check_within(squared: np.ndarray, boxes: np.ndarray, name: str) -> None:
    """Two ways of measuring have to agree: no gradient [m, h, w] outside of what NaN says can be seen [m, 4]. Raises UnsupportedError."""
    for one, (top, left, bottom, right) in zip(squared, boxes, strict=True):
        if one.sum() > one[top:bottom, left:right].sum() * (1 + 1e-9):
            raise UnsupportedError(
                f"layer {name!r} has a gradient at pixels whose NaN does not reach it: the model replaces NaN on the way, so the field cannot be measured."
            )
