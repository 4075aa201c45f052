"""Which picture shows a Portrait: its numbers handed to the plain functions of `show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy import show
from askwhy.errors import InputError
from askwhy.show.paper import INKS, finished
from askwhy.show.pictures import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def caption(portrait: Any, k: int) -> str:
    said = f"{portrait.target[k]}: {portrait.score[k]:.3g}"
    if portrait.judge_rank is not None and portrait.judge_rank[k]:
        said += f" judge: {portrait.judge_probability[k]:.2f}, rank {portrait.judge_rank[k]}"
    return said


def pictures(portrait: Any, ax: Axes | None, columns: int | None) -> Axes:
    names = [caption(portrait, k) for k in range(len(portrait))]
    return show.tiles(
        list(portrait.pictures), names, ax, columns=columns or min(len(portrait), 5), title=f"activation maximization: {portrait.method}"
    )


def nearest(portrait: Any, ax: Axes | None, columns: int | None) -> Axes:
    if portrait.nearest_pictures is None:
        raise InputError(
            "the nearest real images are not known; ask activation_maximization(..., images=[...]) with a list or an array of images of one size."
        )
    found: list[np.ndarray | None] = []
    names: list[str] = []
    for k in range(len(portrait)):
        found += [portrait.pictures[k], *portrait.nearest_pictures[k]]
        names += [caption(portrait, k), *(f"image {one}" for one in portrait.nearest[k])]
    layer = portrait.natural_layers[-1]
    return show.tiles(
        found, names, ax, columns=1 + len(portrait.nearest[0]), title=f"{portrait.method}, and the nearest real images in layer {layer}"
    )


def trace(portrait: Any, ax: Axes | None, columns: int | None) -> Axes:
    ax = ax or new_axes(6.0, 4.0)
    for k in range(len(portrait)):
        ax.plot(np.arange(len(portrait.trace)), portrait.trace[:, k], color=INKS[k % len(INKS)], linewidth=1, label=str(k) if k < len(INKS) else None)
    legend = ax.legend(frameon=False, prop={"family": show.pictures.fonts(), "size": 8})
    for text, name in zip(legend.get_texts(), portrait.target, strict=False):  # not as labels, of which "_x" are left out and "$x$" are formulas
        text.set_text(name)
        text.set_parse_math(False)
    return finished(ax, f"activation maximization: {portrait.method}", "step", "score of the moved picture")


HOW: dict[str, Callable[[Any, Any, int | None], Any]] = {"pictures": pictures, "nearest": nearest, "trace": trace}
