"""Score-CAM: each channel of a feature map weighs as much as the score says when only its part of the picture is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import answer
from askwhy.components import grid_of
from askwhy.errors import UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, batch_size_for, in_chunks, over_items, progress_of
from askwhy.local.cam import enlarge, same_grid
from askwhy.local.feature_map import layer_names, layout, look, picture_grid
from askwhy.local.gradient import grad_mode, need_torch
from askwhy.models.base import to_numpy
from askwhy.registry import method
from askwhy.score import Score, ask

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="Score-CAM",
    needs="layers",
    inputs=("image",),
    asks="Which parts of the last feature map keep the score high when the picture is dimmed everywhere else?",
    reads="large: channels that are active here keep the score high; the numbers are those of the feature map",
    unit="units of the feature map",
    signed=False,
    paper="Wang et al. 2020, https://arxiv.org/abs/1910.01279",
)
def score_cam(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, layer: Any = None, resize: bool = True,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """relu(sum_k a_k A_k), a = softmax_k S(x M_k), M_k = A_k at the input's size, scaled to 0..1: [n, h, w], units of A.

    No gradient is used, but one model call a channel. A channel that is equal everywhere shows no part, and has no
    weight. x M_k dims towards 0, which is what the model takes 0 to be. The softmax is sharp for logits, and softer for
    `wrap(net, output="probabilities")`. layer, resize: as in `grad_cam`. Wang et al. 2020; the score of an empty
    picture, which the paper subtracts, cancels in the softmax. Raises LayerError. Example: `askwhy.score_cam(net, photo).plot()`.
    """
    score = ask(model, x, target, versus)
    wrapped, grid = need_torch(score), picture_grid(score)
    wanted, heat, grids = layer_names(wrapped, layer), [], {}
    with wrapped.untouched(), grad_mode(), progress_of(progress, "score_cam") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            _, outs = look(score, wanted, score.items.batch[i : i + 1].clone(), range(i, i + 1), score.settle)
            score.calls += 1
            places = {name: layout(score, name, out, 1) for name, out in outs.items()}
            maps = [places[name][0](out.detach())[0] for name, out in outs.items()]  # [k, h, w] each
            grids = {name: words for name, (_, words) in places.items()}
            weights = weigh(score, i, [channel for a in maps for channel in a], batch_size, count)
            heat.append(merged([weighted(a, w) for a, w in zip(maps, split(weights, maps), strict=True)], grid, resize))
    details = {"layer": ", ".join(grids), "grid": ", ".join(grids.values())}
    return answer(score, np.concatenate(heat), details=details, params={"layer": wanted or None})


def weigh(score: Score, item: int, channels: list[torch.Tensor], batch_size: int | str, tick: Progress | None) -> np.ndarray:
    """The score of the picture behind each channel's mask, [k]; minus infinity for channels that are equal everywhere."""
    if score.items.kind == "several":
        raise UnsupportedError("score_cam hides parts of the input, and the model is given several; use grad_cam.")
    (grid, axis), x = grid_of(score.items), score.items.batch[item]
    gains = np.full(len(channels), -np.inf)
    shown = [k for k, channel in enumerate(channels) if channel.min() < channel.max()]
    if not shown:
        return gains

    def masked(which: list[int]) -> torch.Tensor:
        masks = torch.stack([mask(channels[k], grid) for k in which]).to(x.dtype)
        return x * (masks if axis is None else masks.unsqueeze(axis + 1))

    engine, name = score.engine(item, masked(shown[:2]), len(shown), "float32")
    before = len(channels) - len(shown)  # counted as done, so that all items have one total
    done = None if tick is None else lambda count, total: tick(before + count, before + total)
    work = lambda start, stop: score.evaluate(masked(shown[start:stop]), item, engine)  # noqa: E731
    gains[shown] = in_chunks(len(shown), work, batch_size_for(score, batch_size, name), done)
    return gains


def mask(channel: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
    """[h, w] -> the input's grid, from 0 to 1."""
    wide = enlarge(channel[None], grid)[0]
    return (wide - wide.min()) / (wide.max() - wide.min())


def split(gains: np.ndarray, maps: list[torch.Tensor]) -> list[np.ndarray]:
    """The gains of each layer's channels."""
    return np.split(gains, np.cumsum([len(a) for a in maps])[:-1])


def weighted(a: torch.Tensor, gains: np.ndarray) -> torch.Tensor:
    """A [k, h, w] -> [1, h, w]: the mean of the channels, weighted by the softmax of their gains."""
    share = np.exp(gains - gains.max()) if np.isfinite(gains).any() else np.zeros(len(gains))
    weight = torch.as_tensor(share / max(share.sum(), 1)).to(a.device, a.dtype)
    return torch.relu((a * weight[:, None, None]).sum(0, keepdim=True))


def merged(heat: list[torch.Tensor], grid: tuple[int, ...], resize: bool) -> np.ndarray:
    """The mean of the layers' maps, at the input's size or on their common grid."""
    return to_numpy(torch.stack([enlarge(h, grid) for h in heat]).mean(0) if resize else same_grid(heat))
