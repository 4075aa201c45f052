"""Heat maps over pictures and signed bars, from plain arrays. Red speaks for, blue against, white is zero."""

from __future__ import annotations

import base64
import io
import textwrap
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEYOND = 0.005  # share of single pixels that may lie beyond the colour scale, lest a few of them fade all others
COARSE = 64  # pixels: a map of fewer is shown with its cells, not smoothed into detail that nobody measured
COLOURS = "RdBu_r"  # safe for colour-blind eyes, white in the middle
FOR, AGAINST = "#b2182b", "#2166ac"  # the ends of that scale


@cache
def fonts() -> list[str]:
    """The usual font, then one with Chinese, Japanese and Korean signs if the machine has any."""
    from matplotlib import font_manager

    wanted = (
        "Noto Sans CJK SC",
        "Noto Sans CJK JP",
        "Source Han Sans SC",
        "WenQuanYi Zen Hei",
        "WenQuanYi Micro Hei",
        "Microsoft YaHei",
        "SimHei",
        "PingFang SC",
        "Hiragino Sans GB",
        "Heiti SC",
        "Noto Serif CJK SC",
        "Droid Sans Fallback",
        "AR PL UMing CN",
        "Arial Unicode MS",
    )
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in wanted if name in installed][:1]]


def new_axes(width: float = 5.0, height: float = 4.0) -> Axes:
    """Axes of a figure that no window knows, on opaque paper, light or dark as the style in use."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=to_rgb(rcParams["figure.facecolor"])).add_subplot()


def limit(values: np.ndarray) -> float:
    """The end of a symmetric scale; 1 where all values are zero."""
    top = float(np.nanmax(np.abs(values))) if values.size else 0.0
    return top if np.isfinite(top) and top > 0 else 1.0


def clipped(values: np.ndarray) -> np.ndarray:
    """A map of single pixels has a few extreme values; the colours end before them where everything else would be invisible."""
    end = float(np.quantile(np.abs(values), 1 - BEYOND)) if values.ndim == 2 and min(values.shape) >= COARSE else 0.0
    return values.clip(-end, end) if 0 < end < limit(values) / 1.5 else values


def heatmap(
    values: np.ndarray, picture: np.ndarray | None = None, ax: Axes | None = None, *, title: str = "", unit: str = "change of the score",
    clip: bool = True,
) -> Axes:  # fmt: skip
    """A map [h, w] over its picture [h, w, 3]; strong values hide the picture, values near zero let it through.

    clip: let the few strongest of single pixels lie beyond the colours, and say so, where all else would be invisible.
    """
    ax = ax or new_axes()
    whole, values = values, clipped(values) if clip else values
    top, signed = limit(values), bool((values < 0).any())
    if picture is not None:
        grey = picture.mean(2).astype(float)
        ax.imshow(grey, cmap="gray", vmin=-255, vmax=255, extent=extent(values))  # paler, so that the colours lead
    alpha = 1.0 if picture is None else (np.abs(values) / top) ** 0.5 * 0.85
    shown = ax.imshow(values, cmap=COLOURS, vmin=-top, vmax=top, alpha=alpha, extent=extent(values), interpolation="nearest")
    ax.set_xticks([]), ax.set_yticks([])
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    beyond = whole is not values
    scale = ax.figure.colorbar(scale_of(shown), ax=ax, fraction=0.046, pad=0.03, extend=("both" if signed else "max") if beyond else "neither")
    scale.set_label(wrapped(f"{unit}; {BEYOND:.1%} of the pixels lie beyond" if beyond else unit), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    if not signed:
        scale.ax.set_ylim(0, top)
    return ax


def scale_of(shown: Any) -> Any:
    """A colour scale without the transparency of the picture."""
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm=shown.norm, cmap=shown.cmap)


def extent(values: np.ndarray) -> tuple[float, float, float, float]:
    height, width = values.shape
    return (0.0, float(width), float(height), 0.0)


def bars(
    values: np.ndarray, names: Sequence[str], std_error: np.ndarray | None = None, ax: Axes | None = None, *,
    title: str = "", most: int = 15, unit: str = "score units",
) -> Axes:  # fmt: skip
    """Signed horizontal bars, largest magnitude on top, with 95 % error bars where a standard error is known."""
    values = values.astype(np.float64)  # truth values have no sign
    order = np.argsort(-np.abs(values), kind="stable")[:most]
    ax = ax or new_axes(6.0, 0.9 + 0.32 * len(order) + 0.2 * wrapped(title).count("\n"))
    at = np.arange(len(order))
    error = None if std_error is None else 1.96 * np.nan_to_num(std_error[order])
    ax.barh(at, values[order], xerr=error, color=[FOR if v > 0 else AGAINST for v in values[order]], ecolor="0.35", capsize=2)
    ax.set_yticks(at, [wrapped(names[k], 34, 2) for k in order], fontsize=9, fontfamily=fonts())
    ax.invert_yaxis()
    ax.axvline(0, color="0.5", linewidth=0.8)
    rest = f" ({len(values) - len(order)} smaller ones not shown)" if len(values) > len(order) else ""
    ax.set_xlabel(wrapped(unit + rest, 70), fontsize=9)
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def overlay(values: np.ndarray) -> np.ndarray:
    """A map as a picture with transparency, uint8 [h, w, 4], to lay over a photo."""
    from matplotlib import colormaps

    strength = np.abs(values) / limit(values)
    rgba = colormaps[COLOURS](0.5 + 0.5 * values / limit(values))
    rgba[..., 3] = strength**0.5
    return (rgba * 255).round().astype(np.uint8)


def as_data_uri(shown: Axes | np.ndarray) -> str:
    """Axes or pixels as a PNG that stands inside an HTML file."""
    buffer = io.BytesIO()
    if isinstance(shown, np.ndarray):
        from PIL import Image

        Image.fromarray(shown).save(buffer, format="PNG", optimize=True)
    else:
        from matplotlib.figure import Figure

        figure = shown.figure
        assert isinstance(figure, Figure)
        figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def wrapped(text: str, width: int = 46, lines: int = 3) -> str:
    """On a few lines, where a Chinese sign takes the room of two letters; a $ is a $, and no formula."""
    spread = "".join(sign + "\u2060" * (unicodedata.east_asian_width(sign) in "WF") for sign in text)
    found = [line.replace("\u2060", "") for line in textwrap.wrap(spread, width, break_on_hyphens=False)]
    kept = found if len(found) <= lines else [*found[: lines - 1], shortened(" ".join(found[lines - 1 :]), width, 2.0)]
    return "\n".join(kept).replace("$", r"\$")


def shortened(text: str, room: float, size: float = 12) -> str:
    """As much of a text as fits into so many pixels: letters are about half as wide as high, Chinese signs as wide as high."""
    text = " ".join(text.split())
    ends = np.cumsum([size * (1.0 if ord(sign) > 0x2E7F else 0.58) for sign in text])
    kept = int((ends <= room).sum())
    return text if kept == len(text) else text[: max(kept - 1, 0)] + "…"
