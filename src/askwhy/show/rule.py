"""A rule as a card: its conditions one below the other, what follows, how often it holds, and how many cases it speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.show.pictures import AGAINST, FOR, fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.2  # inches of a figure of our own
LINE = 0.19  # inches of a line of text
LETTERS = 60  # in a line
ROOM = 1.3  # inches for the title and the bars
BARS = 0.5  # inches


def card_of(why: Any, ax: Axes | None = None, i: int = 0) -> Axes:
    """The card of item i of what `askwhy.anchors` found."""
    one = why[i]
    found = {name: value[0] for name, value in one.details.items() if isinstance(value, tuple)}
    names, _ = one._parts()
    inside = [] if one.std_error is None else np.flatnonzero(np.isfinite(one.std_error[0])).tolist()
    return card(
        [(f'"{names[k]}"' if one.readings else names[k], float(one.values[0, k])) for k in inside],
        found["answer"],
        (found["precision"], found["precision_low"], found["precision_high"]),
        float(why.params["precision"]),
        found["coverage"],
        reached=found["reached"],
        ax=ax,
        title=f"{why.method}: {why.question(i)}",
    )


def card(
    conditions: Sequence[tuple[str, float]], then: str, precision: tuple[float, float, float], asked: float, coverage: float, *,
    reached: bool = True, ax: Axes | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """conditions: each with what it added to the precision; precision: with the ends of its 95 % interval; asked: that of the question."""
    lines = written(conditions, then)
    height = ROOM + LINE * sum(text.count("\n") + 1.3 for text, _, _ in lines)
    ax = ax or new_axes(WIDTH, height)
    height, top = max(ax.get_window_extent().height / ax.figure.dpi, height - 0.5), 1.0
    ax.set_axis_off()
    ax.set_title(wrapped(title, 46), fontsize=10, fontfamily=fonts())
    bars = ax.inset_axes((0.22, 0.1, 0.74, BARS / height))
    for text, gain, bold in lines:
        left = ax.text(0.0, top, text, transform=ax.transAxes, va="top", fontsize=10, fontfamily=fonts(), weight="bold" if bold else "normal")
        right = ax.text(0.98, top, gain, transform=ax.transAxes, va="top", ha="right", fontsize=9, color="0.35")
        for written_there in (left, right):  # long lines would shrink the axes
            written_there.set_in_layout(False)
        top -= LINE * (text.count("\n") + 1.3) / height
    measured(bars, precision, asked, coverage, reached)
    return ax


def written(conditions: Sequence[tuple[str, float]], then: str) -> list[tuple[str, str, bool]]:
    """The lines of the rule: text, what stands at its end, whether it is bold."""
    found = [
        (wrapped(f"{'if' if k == 0 else 'and'} {name}", LETTERS), f"{100 * gain:+.1f} points", False) for k, (name, gain) in enumerate(conditions)
    ]
    return [*(found or [("whatever the input holds", "", False)]), (wrapped(f"then {then}", LETTERS), "", True)]


def measured(ax: Axes, precision: tuple[float, float, float], asked: float, coverage: float, reached: bool) -> None:
    """Two bars: the precision with its interval and a mark at what was asked, and the coverage."""
    share, low, high = precision
    ax.barh([0, 1], [share, coverage], color=[AGAINST if reached else FOR, "0.6"], height=0.6)
    ax.errorbar(share, 0, xerr=[[max(share - low, 0)], [max(high - share, 0)]], color="black", capsize=3, linewidth=1)
    ax.plot([asked, asked], [-0.45, 0.45], color="black", linewidth=1.5, linestyle=(0, (2, 1)))
    ax.set_xlim(0, 1)
    ax.set_ylim(1.55, -0.55)
    ax.set_yticks([0, 1], [f"holds in {share:.1%}", f"covers {coverage:.1%}"], fontsize=9)
    ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"], fontsize=8)
    ax.set_xlabel(f"whisker: 95% interval; dashed: the {asked:.0%} asked for" + ("" if reached else ", which no rule surely reaches"), fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
