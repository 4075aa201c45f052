"""Numbers, places and names as a reader expects them."""

from __future__ import annotations

from typing import Any

import numpy as np

from askwhy.answer import in_words_of

SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: float) -> str:
    """Three significant digits, with a true minus: "−0.301", "1.20 × 10⁻⁵"."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, _, power = f"{value:#.3g}".partition("e")
    mantissa = mantissa.removesuffix(".")
    text = f"{mantissa} × 10{str(int(power)).translate(SUPERSCRIPT)}" if power else mantissa
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Like `number`, with a plus where it is positive."""
    return ("+" if value > 0 else "") + number(value)


def percent(share: float) -> str:
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def place(down: float, across: float) -> str:
    """Where a point (0..1 each) lies, in words: "upper left", "right", "centre"."""
    words = [("upper", "", "lower")[min(int(3 * down), 2)], ("left", "", "right")[min(int(3 * across), 2)]]
    return " ".join(filter(None, words)) or "centre"


def ordinal(rank: float) -> str:
    """ "2nd"; tied ranks lie between two places: "31.5th"."""
    if rank != int(rank):
        return f"{rank:g}th"
    n = int(rank)
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def listed(names: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def plain(value: Any) -> str:
    """A parameter or detail on one line."""
    if isinstance(value, (float, np.floating)):
        return number(float(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value)) or "none"
    return "none" if value is None else str(value)


def held(value: Any) -> str:
    """A cell of a table."""
    return in_words_of(value)
