"""Class activation maps: where in a layer's feature map the evidence lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import answer
from askwhy.components import grid_of
from askwhy.errors import LayerError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, batch_size_for, in_chunks, over_items, progress_of
from askwhy.local.feature_map import layer_names, layout, look, picture_grid
from askwhy.local.gradient import differentiate, grad_mode, need_torch
from askwhy.local.linear_head import constants
from askwhy.local.relevance import guided_backprop
from askwhy.models.base import to_numpy
from askwhy.registry import method
from askwhy.score import Score, ask

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="CAM",
    needs="layers",
    inputs=("image",),
    asks="In a network that averages its last feature map and then weighs the averages, what does each place add to the score?",
    reads="positive: this place raises the score; negative: it lowers it. The mean over the layer's grid, plus the base value, is the score",
    paper="Zhou et al. 2016, https://arxiv.org/abs/1512.04150",
)
def cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """sum_k w_k A_k, where the score is sum_k w_k mean(A_k) + b: [n, h, w], score units, signed; `base_value` is b,
    and `residual` by how much b differs for another input, over the change from b to the score.

    The network has to end in global average pooling and linear steps, however they are written; that is checked on the
    operations from the map to the score, on the weights of the places, and on the sum for this input and another.
    layer, resize: as in `grad_cam`, but one layer. Zhou et al. 2016. Raises UnsupportedError where the architecture
    does not allow it, LayerError. Example: `askwhy.cam(net, photo, target=3).plot()`.
    """
    score = ask(model, x, target, versus)
    wanted, base, again = layer_names(need_torch(score), layer), np.zeros(len(score)), np.zeros(len(score))
    if len(wanted) > 1:
        raise LayerError(f"cam explains one layer, the one that is averaged, and not {', '.join(wanted)}; name one, or leave layer= out.")

    def check(items: range, *found: Any) -> None:
        base[items.start : items.stop], again[items.start : items.stop] = map(to_numpy, constants(score, wanted, items, *found))

    why = class_map("cam", score, wanted or None, resize, batch_size, progress, check)
    change = why.prediction - base
    return replace(why, base_value=base, residual=np.divide(again - base, change, out=np.zeros_like(base), where=change != 0))


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
    the batch norm, activation, residual and concatenation that follow it: what the pooling sees. `details["layer"]`
    names it. For a transformer name a block: the grid of its tokens [n, tokens, dim], after class and register tokens, is found from
    the patches, and stands in `details["grid"]`. What speaks against the class: `counterfactual_cam`.
    Selvaraju et al. 2017. Raises LayerError. Example: `askwhy.grad_cam(net, photo, layer="layer4").plot()`.
    """
    return class_map("grad_cam", ask(model, x, target, versus), layer, resize, batch_size, progress)


@method(
    title="Counterfactual Grad-CAM",
    needs="layers",
    inputs=("image",),
    asks="Which part of the picture holds evidence against the class, so that the score would rise without it?",
    reads="large: what lies here speaks against the class; what speaks for it is cut off",
    signed=False,
    paper="Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391",
)
def counterfactual_cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """Grad-CAM of the negated score, relu(sum_k -a_k A_k) with a_k the mean of dS/dA_k: [n, h, w], score units.

    layer, resize: as in `grad_cam`. Selvaraju et al. 2017. Raises LayerError.
    Example: `askwhy.counterfactual_cam(net, photo, target="dog").plot()`.
    """
    return class_map("counterfactual_cam", ask(model, x, target, versus), layer, resize, batch_size, progress)


@method(
    title="Grad-CAM++",
    needs="layers",
    inputs=("image",),
    asks="In which parts of the picture does the last feature map hold evidence for the class, where several objects or parts count alike?",
    reads="large: evidence for the class lies here; what speaks against it is cut off",
    signed=False,
    paper="Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063",
)
def grad_cam_plus_plus(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """relu(sum_k w_k A_k), w_k = sum_ij relu(g_kij) / (2 + g_kij sum(A_k)), g = dS/dA: [n, h, w], score units.

    The paper's w for Y = exp(S), without the common factor Y; as there, S counts as linear in A near this input.
    layer, resize: as in `grad_cam`. Chattopadhay et al. 2018. Raises LayerError; UnsupportedError where 2 + g sum(A) is
    not positive, as can happen for maps below zero. Example: `askwhy.grad_cam_plus_plus(net, photo).plot()`.
    """
    return class_map("grad_cam_plus_plus", ask(model, x, target, versus), layer, resize, batch_size, progress)


@method(
    title="HiResCAM",
    needs="layers",
    inputs=("image",),
    asks="What does each place of the last feature map add to the score, if the network after it is taken as linear?",
    reads="positive: what the network sees here raises the score; negative: it lowers it",
    paper="Draelos & Carin 2020, https://arxiv.org/abs/2011.08891",
)
def hires_cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """sum_k dS/dA_k A_k, place by place: [n, h, w], score units, signed. Where Grad-CAM averages the gradient, this does not.

    Where the network is linear after the layer, the sum over the grid and a constant are the score, and with global
    average pooling it is CAM. layer, resize: as in `grad_cam`. Draelos & Carin 2020. Raises LayerError.
    Example: `askwhy.hires_cam(net, photo).plot()`.
    """
    return class_map("hires_cam", ask(model, x, target, versus), layer, resize, batch_size, progress)


@method(
    title="LayerCAM",
    needs="layers",
    inputs=("image",),
    asks="Which places of a feature map, also of an early and fine one, raise the score?",
    reads="large: evidence for the class lies here; what speaks against it is cut off",
    signed=False,
    paper="Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943",
)
def layer_cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """relu(sum_k relu(dS/dA_k) A_k), place by place: [n, h, w], score units; fine maps from early layers are its use.

    layer, resize: as in `grad_cam`; several layers are averaged as they are, not scaled to each other as in the paper.
    Jiang et al. 2021. Raises LayerError. Example: `askwhy.layer_cam(net, photo, layer=["layer2", "layer4"]).plot()`.
    """
    return class_map("layer_cam", ask(model, x, target, versus), layer, resize, batch_size, progress)


@method(
    title="Guided Grad-CAM",
    needs="layers",
    inputs=("image",),
    asks="Which fine structure excites the network, inside the part of the picture that holds evidence for the class?",
    reads="far from zero: structure that the network uses, where the class has its evidence; the sign is that of guided backpropagation",
    unit="guided gradient times Grad-CAM",
    paper="Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391",
)
def guided_grad_cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """`guided_backprop` times `grad_cam` at the input's size: shaped like the input, both factors raw.

    layer: as in `grad_cam`. Selvaraju et al. 2017. Raises what the two raise: UnsupportedError where a rectifier cannot
    be reached, LayerError. Example: `askwhy.guided_grad_cam(net, photo, target="tiger cat").plot()`.
    """
    score = ask(model, x, target, versus)
    if score.items.kind == "several":
        raise UnsupportedError("guided_grad_cam explains one picture, and the model is given several inputs; use grad_cam.")
    axis = grid_of(score.items)[1]
    with progress_of(progress, "guided_grad_cam") as tick:
        first, second = over_items(tick, 2)
        fine = guided_backprop(score.model, x, target, versus=versus, batch_size=batch_size, progress=first)
        coarse = class_map("grad_cam", score, layer, True, batch_size, second)
    return replace(
        fine,
        values=fine.values * (coarse.values if axis is None else np.expand_dims(coarse.values, axis + 1)),
        details={**fine.details, **coarse.details},
        params={"layer": coarse.params["layer"]},
        model_calls=fine.model_calls + coarse.model_calls,
        seconds=fine.seconds + coarse.seconds,
    )


# ---- how a map and its gradient are read: A, dS/dA [n, k, h, w] -> [n, h, w] ---------------------------------------


def by_mean(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return torch.relu((a * g.mean((2, 3), keepdim=True)).sum(1))


def by_mean_against(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return by_mean(a, -g)


def by_sum(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return (a * g.sum((2, 3), keepdim=True)).sum(1)


def by_place(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return (a * g).sum(1)


def by_rising_place(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return torch.relu((a * g.clamp(min=0)).sum(1))


def by_curvature(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """g^2 / (2 g^2 + g^3 sum A) is 1 / (2 + g sum A): the paper's alpha without its 0 / 0."""
    rises, below = g > 0, 2 + g * a.sum((2, 3), keepdim=True)
    if bool((below <= 0)[rises].any()):
        raise UnsupportedError(
            f"grad_cam_plus_plus divides by 2 + g sum(A), which is {float(below[rises].min()):.3g} somewhere in this map below zero; "
            "name a layer after a ReLU, or use grad_cam or layer_cam."
        )
    weight = torch.where(rises, g / below, 0).sum((2, 3), keepdim=True)
    return torch.relu((a * weight).sum(1))


READINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cam": by_sum,
    "grad_cam": by_mean,
    "counterfactual_cam": by_mean_against,
    "grad_cam_plus_plus": by_curvature,
    "hires_cam": by_place,
    "layer_cam": by_rising_place,
}


def class_map(
    name: str,
    score: Score,
    layer: Any,
    resize: bool,
    batch_size: int | str,
    progress: bool | Progress | None,
    check: Callable[..., None] | None = None,
) -> Explanation:
    """Run the model, differentiate the score by the maps, read both; `check` may refuse what it sees."""
    wrapped, grid, read = need_torch(score), picture_grid(score), READINGS[name]
    wanted = layer_names(wrapped, layer)
    grids: dict[str, str] = {}

    def work(start: int, stop: int) -> np.ndarray:
        items, heat = range(start, stop), []
        scores, outs = look(score, wanted, score.items.batch[start:stop].clone(), items, score.settle)
        score.calls += stop - start
        for (own, out), gradient in zip(outs.items(), slopes(scores, outs), strict=True):
            place, grids[own] = layout(score, own, out, stop - start)
            a, g = place(out.detach()), slope(own, gradient, place)
            if check is not None:
                check(items, scores, out, a, g, own)
            heat.append(read(a, g))
        return to_numpy(torch.stack([enlarge(h, grid) for h in heat]).mean(0) if resize else same_grid(heat))

    size = batch_size if wrapped.seed is None else 1  # a seeded model runs its inputs one by one, and a layer has to run once
    with wrapped.untouched(), grad_mode(), progress_of(progress, name) as tick:
        values = in_chunks(len(score), work, batch_size_for(score, size, "layers"), tick)
    return answer(score, values, details={"layer": ", ".join(grids), "grid": ", ".join(grids.values())}, params={"layer": wanted or None})


def slopes(scores: torch.Tensor, outs: dict[str, torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """dS/d(output) of each layer. Raises LayerError where gradients are cut off."""
    cut = [name for name, out in outs.items() if not (out.requires_grad and scores.requires_grad)]
    if cut:
        raise LayerError(
            f"no gradient of the score reaches layer {cut[0]!r}: it does not depend on it, or only through no_grad, detach or a reentrant "
            "checkpoint; name a layer on the way to the target, or use score_cam."
        )
    return differentiate(scores, list(outs.values()))


def slope(name: str, g: torch.Tensor | None, place: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """dS/dA [n, k, h, w]. Raises LayerError where nothing of the map reaches the score."""
    if g is None:
        raise LayerError(f"the score does not depend on layer {name!r}; name a layer on the way to the target.")
    placed = place(g)
    if g.ndim == 3 and g.any() and not placed.any():
        raise LayerError(f"after layer {name!r} the score reads only the tokens before the patches; name what the last attention reads, as its norm.")
    return placed


def enlarge(heat: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
    """[n, h, w] -> [n, *grid], bilinear."""
    heat = heat.float() if heat.element_size() < 4 else heat
    return torch.nn.functional.interpolate(heat[:, None], size=grid, mode="bilinear", align_corners=False)[:, 0]


def same_grid(heat: list[torch.Tensor]) -> torch.Tensor:
    if len({tuple(h.shape) for h in heat}) > 1:
        raise LayerError("resize=False with several layers needs layers of one grid; leave resize on, or ask one layer at a time.")
    return torch.stack(heat).mean(0)
