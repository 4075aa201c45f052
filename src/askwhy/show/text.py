"""A text whose words are coloured: red speaks for, blue against, white is zero."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from askwhy.show.pictures import COLOURS, fonts, limit, new_axes, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 12  # points
LINE = 1.8  # from line to line, in sizes of the font
WIDTH = 6.5  # inches of a figure of our own
MARGIN = 1.15  # inches beside the text, for the colour scale


class Piece(Protocol):
    """What is drawn: a value colours its text, None leaves it as it is."""

    @property
    def text(self) -> str: ...

    @property
    def value(self) -> float | None: ...


def text(pieces: Sequence[Piece], ax: Axes | None = None, *, title: str = "", unit: str = "score units") -> Axes:
    """The pieces of a text one after the other, each on the colour of its value, with the scale beside it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    values = np.array([piece.value for piece in pieces if piece.value is not None])
    top = limit(values)
    width = (WIDTH if ax is None else ax.get_window_extent().width / ax.figure.dpi + MARGIN) - MARGIN
    lines = list(lines_of(pieces, width * 72))
    ax = ax or new_axes(WIDTH, max(1.2, 0.5 + len(lines) * SIZE * LINE / 72))
    shown, points = ScalarMappable(Normalize(-top, top), COLOURS), points_of(ax)
    for row, line in enumerate(lines):
        middle = -(row + 0.75) * SIZE * LINE
        for at, size, piece, content in line:
            colour = shown.to_rgba(np.array(0.0 if piece.value is None else piece.value))
            if piece.value is not None:
                under = Rectangle((at, middle - 0.75 * SIZE), size, 1.5 * SIZE, transform=points, facecolor=colour, edgecolor="none", clip_on=False)
                ax.add_patch(under)
            ink = "white" if luminance(colour) < 0.5 else "black"
            ax.text(at, middle, escaped(content), transform=points, fontsize=SIZE, color=ink, va="center_baseline", fontfamily=fonts())
    ax.set_axis_off()
    ax.set_title(wrapped(title), fontsize=10, fontfamily=fonts())
    scale: Any = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
    scale.set_label(wrapped(unit, 24), fontsize=8)
    scale.ax.tick_params(labelsize=8)
    if not (values < 0).any():
        scale.ax.set_ylim(0, top)
    return ax


def points_of(ax: Axes) -> Any:
    """From points, counted from the upper left corner of the axes, to the screen."""
    from matplotlib.transforms import Affine2D, ScaledTranslation

    corner: Any = ScaledTranslation(0, 1, ax.transAxes)  # type: ignore[arg-type]
    return Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans + corner


def luminance(colour: Any) -> float:
    """How bright a colour looks, 0 to 1."""
    return float(0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2])


def escaped(content: str) -> str:
    return content.replace("$", r"\$")


def lines_of(pieces: Sequence[Piece], width: float) -> Iterator[list[tuple[float, float, Piece, str]]]:
    """Lines of (where it begins, its width, piece, what of it stands here), in points; a break may come between pieces, and in uncoloured ones."""
    measure, at = ruler(), 0.0
    line: list[tuple[float, float, Piece, str]] = []
    for piece in pieces:
        for content in words_of(piece):
            broken = content == "\n"
            size = 0.0 if broken else measure(content)
            if broken or (at + size > width and line and content.strip()):
                yield line
                line, at = [], 0.0
            if not broken and (content.strip() or line):
                line.append((at, size, piece, content))
                at += size
    if line:
        yield line


def words_of(piece: Piece) -> list[str]:
    """What has to stay on one line."""
    if piece.value is not None:
        return [piece.text.replace("\n", " ")]
    return re.findall(r"\n|[^\S\n]+|\S+", piece.text)


def ruler() -> Any:
    """The width of a text in points."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer, font = RendererAgg(10, 10, 72), FontProperties(family=fonts(), size=20 * SIZE)  # large, since widths are rounded to pixels

    def measure(content: str) -> float:
        return renderer.get_text_width_height_descent(content, font, ismath=False)[0] / 20

    return measure
