"""Small parts of drawings as SVG text; whatever a name holds is text and never markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

INK, SOFT, LINE, PAPER = "#20252b", "#59616b", "#c9cdd2", "#ffffff"  # its own paper: readable also in a dark notebook
FONTS = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # signs that XML has not
Node = ElementTree.Element


def drawing(width: float, height: float, label: str) -> Node:
    """An empty sheet of its own colour, which says what it shows to those who cannot see it."""
    box = f"0 0 {width:g} {height:g}"
    root = Node("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box, "width": f"{width:g}", "role": "img", "aria-label": clean(label)})
    root.set("style", f"max-width:100%;height:auto;font-family:{FONTS};font-size:12px")
    add(root, "rect", width=width, height=height, fill=PAPER)
    return root


def add(parent: Node, tag: str, text: str = "", /, **attributes: Any) -> Node:
    """A part inside another one; stroke_width= is stroke-width."""
    named = {
        key.replace("_", "-"): number(float(value)) if isinstance(value, (float, np.floating)) else clean(str(value))
        for key, value in attributes.items()
    }
    made = ElementTree.SubElement(parent, tag, named)
    made.text = clean(text) or None
    return made


def number(value: float) -> str:
    """To a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # + 0.0: no minus before a zero


def clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)


def written(root: Node) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def ticks(low: float, high: float, count: int = 7) -> list[float]:
    """Round numbers from low to high."""
    from matplotlib.ticker import MaxNLocator

    return [float(at) for at in MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= at <= high]


def said(value: float, places: Sequence[float]) -> str:
    """A tick's number with as many digits as tell the ticks apart."""
    step = min(np.diff(places)) if len(places) > 1 else abs(value) or 1.0
    return f"{value:.{int(np.clip(np.ceil(-np.log10(step) - 1e-9), 0, 12))}f}" if 1e-5 < step < 1e6 else f"{value:.4g}"
