"""Take parts away and ask again."""

from __future__ import annotations

from typing import Any

import numpy as np

from askwhy.answer import answer, pad
from askwhy.components import absent, grid_of, patches
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.game import Game, Progress, over_items, progress_of, roughness, weights_of
from askwhy.models.base import Items
from askwhy.recipes import recipe
from askwhy.registry import method
from askwhy.score import ask


@method(
    title="Occlusion",
    needs="predictions",
    inputs=("image", "table", "text"),
    asks="If a box covers this part of the input, how much does the score drop?",
    reads="positive: covering it lowers the score, so it speaks for the class; negative: it speaks against it",
    paper="Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901",
    preference=10,
)
def occlusion(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, size: int | tuple[int, int] | None = None, stride: int | tuple[int, int] | None = None,
    components: Any = None, baseline: Any = "auto", background: Any = None, precision: str = "float32", seed: int = 0,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """The drop of the score when a component is taken away, v(all) - v(all but i), in score units.

    Pictures: a box of `size` pixels (default 1/7 of the picture) every `stride` pixels (default 1/4 of the box), filled
    with `baseline`; values [n, h, w] are the mean drop of the boxes that cover a pixel. The size of the box can be
    crucial: try several. Other `components` (superpixels, features) give values [n, d]. Tables need `background` rows.
    Zeiler & Fergus 2014. Example: `askwhy.occlusion(model, photo, size=32, stride=8, baseline="grey").plot()`.
    """
    score = ask(model, x, target, versus)
    boxed = box(score.items, size, stride) if components is None and score.items.kind == "image" else None
    if (size is not None or stride is not None) and not boxed:
        raise InputError("size= and stride= belong to boxes over a picture; leave out components=, or components=patches(size, stride).")
    chosen = patches(*boxed) if boxed else recipe(components, score.items)
    score.predict()
    drops, parts, names, deviations = [], [], set(), []
    with progress_of(progress, "occlusion") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            found = chosen.make(score.items, i)
            rows, name = absent(baseline if background is None else background, score.items, i, found, seed, weighted=True)
            v = Game(score, i, found, rows, weights=weights_of(background), batch_size=batch_size, tick=count, total=len(found), precision=precision)
            drops.append(score.prediction[i] - without_each(v))
            deviations.append(v.deviation)
            parts.append(found)
            names.add(name)
    shape = {"size": list(boxed[0]), "stride": list(boxed[1])} if boxed else {"components": chosen.text}
    params = {**shape, "baseline": ", ".join(sorted(names))}
    details = roughness(deviations)
    if parts[0].tiles:
        return answer(score, np.stack([p.paint(d) for p, d in zip(parts, drops, strict=True)]), params=params, details=details)
    return answer(score, pad(drops), components=parts, params=params, details=details)


def without_each(v: Game, block: int = 4096) -> np.ndarray:
    """v(all but i) for each component i, in blocks, since z for every pixel of a photo would fill the memory."""
    found = []
    for start in range(0, len(v), block):
        z = np.ones((min(block, len(v) - start), len(v)), dtype=bool)
        z[np.arange(len(z)), start + np.arange(len(z))] = False
        found.append(v(z))
    return np.concatenate(found)


def box(items: Items, size: int | tuple[int, int] | None, stride: int | tuple[int, int] | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size and stride of the box, rows first; by default 1/7 of the shorter side, moved by a quarter of itself."""
    shorter = min(grid_of(items)[0])
    size = pair(max(shorter // 7, 1) if size is None else size)
    return size, pair(max(min(size) // 4, 1) if stride is None else stride)


def pair(length: int | tuple[int, int]) -> tuple[int, int]:
    return (length, length) if isinstance(length, int) else (length[0], length[1])


@method(
    title="Ablation",
    needs="predictions",
    inputs=("image", "table", "text"),
    asks="What does the score lose without this part, or what does this part bring all alone?",
    reads="positive: the part raises the score; with keep=True: by itself, with everything else taken away",
    paper="Covert, Lundberg & Lee 2021 (removal-based explanations), https://arxiv.org/abs/2011.14878",
)
def ablation(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, keep: bool = False, components: Any = None, baseline: Any = "auto", background: Any = None,
    precision: str = "float32", seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """v(all) - v(all but i) for each component i, or with keep=True v(only i) - v(nothing), in score units, [n, d].

    Where the two differ much, components depend on one another: what one brings, another brings too. `components` are
    superpixels, columns, or words by default; tables need `background` rows, over which v is the mean.
    Example: `askwhy.ablation(predict, "A fine film", keep=True).top()`.
    """
    score = ask(model, x, target, versus)
    chosen = recipe(components, score.items)
    score.predict()
    values, base, parts, names, deviations = [], [], [], set(), []
    with progress_of(progress, "ablation") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            found = chosen.make(score.items, i)
            rows, name = absent(baseline if background is None else background, score.items, i, found, seed, weighted=True)
            v = Game(
                score, i, found, rows, weights=weights_of(background), batch_size=batch_size, tick=count, total=len(found) + 1, precision=precision
            )
            base.append(float(v(np.zeros((1, len(v)), dtype=bool))[0]))
            values.append(with_each(v) - base[-1] if keep else score.prediction[i] - without_each(v))
            deviations.append(v.deviation)
            parts.append(found)
            names.add(name)
    params = {"components": chosen.text, "baseline": ", ".join(sorted(names))}
    return answer(score, pad(values), base_value=np.array(base), components=parts, params=params, details=roughness(deviations))


def with_each(v: Game, block: int = 4096) -> np.ndarray:
    """v(only i) for each component i."""
    starts = range(0, len(v), block)
    return np.concatenate([v(np.eye(min(block, len(v) - start), len(v), start, dtype=bool)) for start in starts])
