"""What probes read, layer by layer, beside their controls and chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.paper import GREY, INKS, finished
from askwhy.show.pictures import fonts, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUT = "input"
NAMES = {"linear": "linear probe", "mlp": "MLP probe"}
UNITS = {"accuracy": "accuracy on unseen rows", "balanced_accuracy": "balanced accuracy on unseen rows", "r2": "R² on unseen rows"}
CONTROLS = {"types": "random answers", "untrained": "untrained copy"}
CHANCES = {"accuracy": "chance (the most common answer)", "balanced_accuracy": "chance", "r2": "chance (the mean)"}
Curve = tuple[np.ndarray, np.ndarray, str]


def probe_curves(
    layers: Sequence[str], probes: Sequence[str], values: np.ndarray, std_error: np.ndarray, ax: Axes | None = None, *,
    control: Curve | None = None, chance: float = 0.0, unit: str = "accuracy", title: str = "",
) -> Axes:  # fmt: skip
    """values [layers, probes] with 95 % bands; control: the same on random answers, or of an untrained copy, dashed.

    A layer named "input" stands apart from the curve.
    """
    ax = ax or new_axes(max(7.0, 3.6 + 0.6 * len(layers)), 4.4)
    for p, name in enumerate(probes):
        colour = INKS[p]
        aside = 0.16 * (p - (len(probes) - 1) / 2)  # of what is drawn at the input
        curve(ax, layers, values[:, p], std_error[:, p], aside, colour, "-", NAMES.get(name, name))
        if control is not None:
            curve(ax, layers, control[0][:, p], control[1][:, p], aside, colour, "--", f"{NAMES.get(name, name)}, {CONTROLS[control[2]]}")
    ax.axhline(chance, color=GREY, linestyle=":", linewidth=1.5, label=CHANCES[unit])
    ax.set_xticks(range(len(layers)), [wrapped(name, 18, 2) for name in short(layers)], rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.4, len(layers) - 0.6)
    ax.set_ylim(top=1.02)
    finished(ax, title or "what probes read from each layer", "layer, first to last (bands: 95 %)", UNITS[unit])
    for label in ax.get_xticklabels():
        label.set_fontfamily(fonts())
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def curve(ax: Axes, layers: Sequence[str], values: np.ndarray, error: np.ndarray, aside: float, colour: str, style: str, label: str) -> None:
    at = np.arange(len(layers))
    inside = np.array([name != INPUT for name in layers])
    face = colour if style == "-" else ax.get_facecolor()
    ax.fill_between(at[inside], (values - 1.96 * error)[inside], (values + 1.96 * error)[inside], color=colour, alpha=0.2, linewidth=0)
    ax.plot(at[inside], values[inside], style, color=colour, marker="o", markersize=5, markerfacecolor=face, linewidth=2, label=label)
    ax.errorbar(
        at[~inside] + aside, values[~inside], yerr=1.96 * error[~inside], fmt="s", color=colour, markerfacecolor=face, markersize=6, capsize=3
    )


def short(layers: Sequence[str]) -> list[str]:
    """Names without the path that all layers share."""
    paths = [name.split(".") for name in layers if name != INPUT]
    same = 0
    while all(len(path) > same + 1 and path[same] == paths[0][same] for path in paths):
        same += 1
    return [name if name == INPUT else ".".join(name.split(".")[same:]) for name in layers]
