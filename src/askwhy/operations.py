"""What an intercepted operation is called, whatever its spelling, and whether it writes into its input."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

# other names of the same arithmetic; "rsub" and "rdiv" are b - a and b / a
SPELLINGS = {
    "mm": "matmul", "bmm": "matmul", "linalg_vector_norm": "vector_norm", "linalg_norm": "norm",
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "rtruediv": "rdiv", "negative": "neg",
}  # fmt: skip


def key_of(op: Any) -> str:
    """One name for every spelling: F.relu, torch.relu_, Tensor.relu and nn.ReLU are all "relu"; 2 / x is "rdiv"."""
    name = getattr(op, "__name__", "?").split(".")[0].strip("_")
    if name in ("batch_norm", "instance_norm") and not inspect.isfunction(op):
        return f"torch_{name}"  # takes its arguments in another order than the one in torch.nn.functional
    return SPELLINGS.get(name, name)


def by_position(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """torch.relu(input=x) as torch.relu(x)"""
    if args or not isinstance(kwargs.get("input"), torch.Tensor):
        return args, kwargs
    return (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}


def writes(op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether this call writes into its first argument."""
    name = getattr(op, "__name__", "")
    if not args or not isinstance(args[0], torch.Tensor):
        return False
    if name.endswith("_") and not name.endswith("__"):
        return True
    if name == "__setitem__" or (name.startswith("__i") and name.endswith("__") and name not in ("__invert__", "__index__", "__int__")):
        return True
    own = getattr(op, "__closure__", None)  # a step of ours, which no cache may hold: it holds activations
    at = None if own else place_of_inplace(op)
    return bool(kwargs.get("inplace")) or (at is not None and len(args) > at and bool(args[at]))


@functools.lru_cache(maxsize=512)
def place_of_inplace(op: Any) -> int | None:
    """Where a function like F.hardtanh takes its argument `inplace`."""
    try:
        names = list(inspect.signature(op).parameters)
    except (ValueError, TypeError):  # most operations are built in, and say it in their name
        return None
    return names.index("inplace") if "inplace" in names else None
