"""What excites a filter: a line of patches, or of words, for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.paper import ink
from askwhy.show.pictures import fonts, new_axes, shortened, wrapped
from askwhy.show.tiles import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.19  # inches


def patch_rows(
    patches: Sequence[np.ndarray], told: Sequence[str], names: Sequence[str], portraits: Sequence[np.ndarray | None] | None = None,
    ax: Axes | None = None, *, title: str = "",
) -> Axes:  # fmt: skip
    """A line of pictures for each filter, with a word below each; portraits stand in front."""
    top = len(patches) // len(names)
    lines = [
        [(one if one.size else None, word) for one, word in zip(patches[k : k + top], told[k : k + top], strict=True)]
        for k in range(0, len(told), top)
    ]
    if portraits is not None:
        lines = [[(portrait, "portrait"), *own] for portrait, own in zip(portraits, lines, strict=True)]
    shown = [pair for own in lines for pair in own]
    return tiles([one for one, _ in shown], [word for _, word in shown], ax, columns=len(lines[0]), title=title, rows=names)


def word_rows(words: Sequence[Sequence[str]], values: np.ndarray, names: Sequence[str], ax: Axes | None = None, *, title: str = "") -> Axes:
    """The same of texts, one below the other."""
    count = sum(len(own) + 1 for own in words)
    ax = ax or new_axes(6.5, 0.5 + LINE * count)
    at = 0
    for name, own, numbers in zip(names, words, values, strict=True):
        ax.text(0, at, wrapped(name, 40, 1), va="top", fontsize=9, fontweight="bold", fontfamily=fonts(), color=ink())
        for k, (word, value) in enumerate(zip(own, numbers, strict=True), 1):
            ax.text(0.1, at + k, f"{value:.3g}", va="top", ha="right", fontsize=8, color=ink())
            ax.text(0.12, at + k, shortened(word, 620).replace("$", r"\$"), va="top", fontsize=8, fontfamily=fonts(), color=ink())
        at += len(own) + 1
    ax.set_xlim(0, 1)
    ax.set_ylim(count, 0)
    ax.set_axis_off()
    ax.set_title(wrapped(title, 80), fontsize=10, fontfamily=fonts())
    return ax
