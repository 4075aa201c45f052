"""What inside functions are asked, checked alike in all of them: one of so many, and the answers or labels of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from askwhy.checks import is_whole
from askwhy.errors import InputError
from askwhy.models.base import is_missing


def place(name: str, value: Any, count: int) -> int:
    """Which of so many. Raises InputError."""
    if not is_whole(value, 0, count - 1):
        raise InputError(f"{name}={value!r}: there are {count}, counted from 0.")
    return int(value)


def listed(given: Any, name: str) -> list[Any]:
    """One answer for each item, as numbers, truth values or names of Python. Raises InputError."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise InputError(f"{name}={given!r}: give a list or an array with one for each item.")
    flat = [one.item() if getattr(one, "shape", None) == () else one for one in (given.tolist() if hasattr(given, "tolist") else given)]
    for k, one in enumerate(flat):
        if hasattr(one, "__len__") and not isinstance(one, (str, bytes)):
            raise InputError(f"{name}[{k}] is a {type(one).__name__}; {name} holds one answer for each item, or one list of tags for each sentence.")
        if is_missing(one) or one in (float("inf"), float("-inf")):
            raise InputError(f"{name}[{k}] is {one!r}; leave such items out, or give them a name.")
    return flat


def is_number(one: Any) -> bool:
    return isinstance(one, (int, float)) and not isinstance(one, bool)


def truth_of(y: Any, task: str | None, name: str = "y") -> tuple[np.ndarray, tuple[str, ...]]:
    """y [n] as codes with the names of the classes, or as numbers with none. Raises InputError."""
    flat = listed(y, name)
    if len(set(flat)) < 2:
        raise InputError(f"{name} is {flat[0]!r} everywhere; there is nothing to tell apart." if flat else f"{name} is empty.")
    if task not in (None, "classes", "numbers"):
        raise InputError(f"task={task!r}: choose 'classes' or 'numbers'.")
    numeric = list(map(is_number, flat))
    if task is None and all(numeric) and any(isinstance(one, float) for one in flat):
        if all(float(one).is_integer() for one in flat) and len(set(flat)) <= 20:
            raise InputError(f"{name} holds {len(set(flat))} different whole numbers written as floats; say task='classes' or task='numbers'.")
        task = "numbers"
    if task == "numbers":
        if not all(numeric):
            raise InputError(f"{name}[{numeric.index(False)}] is {flat[numeric.index(False)]!r}, which is no number; take task='classes'.")
        return np.array(flat, np.float64), ()
    return coded(flat, name)


def coded(flat: Sequence[Any], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """int64 codes [n], and the names of the classes. Raises InputError."""
    kinds = {"number" if is_number(one) else type(one).__name__ for one in flat}
    if len(kinds) > 1:
        raise InputError(f"{name} mixes {' and '.join(sorted(kinds))}; give the classes as numbers or as names.")
    names = sorted(set(flat))
    code = {one: k for k, one in enumerate(names)}
    return np.array([code[one] for one in flat], np.int64), tuple(map(str, names))
