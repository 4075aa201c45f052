"""Whole numbers, asked for alike everywhere."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from askwhy.errors import InputError

ENDLESS = float("inf")


def is_whole(value: Any, least: float = -ENDLESS, most: float = ENDLESS) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def whole(name: str, value: Any, least: int = 0, most: float = ENDLESS, why: str = "", instead: str = "") -> int:
    """A number of Python's from `least` to `most`; why: what is said behind it, instead: what else could be given. Raises InputError."""
    if not is_whole(value, least, most):
        raise InputError(f"{name}={value!r}: give {instead}a whole number from {least} {'on' if most == ENDLESS else f'to {most}'}{why}.")
    return int(value)
