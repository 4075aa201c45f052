"""Many inputs, whatever holds them, as pieces that a model prepares together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.models.pictures import is_picture

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LOAD = 64  # items that are prepared together, so that a folder of photos need not fit into memory


def loads(X: Any) -> Iterator[Any]:
    """Pieces of X that a model prepares together."""
    if is_batch_of_batches(X):
        yield from map(inputs_of, X)
        return
    n = count(X)
    for start in range(0, n or 0, LOAD):
        yield piece(X, start, min(start + LOAD, n or 0))


def count(X: Any) -> int | None:
    """How many items X holds; None where only going through it tells."""
    if isinstance(X, str) or is_single(X):
        return 1
    if isinstance(X, (Mapping, tuple)):
        parts = list(X.values() if isinstance(X, Mapping) else X)
        return next((len(part) for part in parts if getattr(part, "ndim", 0) > 0), 1)
    if is_batch_of_batches(X):
        return None
    if not hasattr(X, "__len__") or (hasattr(X, "ndim") and X.ndim == 0):
        raise InputError(f"X is a {type(X).__name__}; give items: a tensor or array [n, ...], a list, a Dataset, or an iterable of batches.")
    if len(X) == 0:
        raise InputError("X holds no items.")
    return len(X)


def is_single(X: Any) -> bool:
    """One picture: a path, a PIL image, or an array of bytes [h, w, 3]."""
    return bool(is_picture(X)) and np.ndim(X) != 2


def is_batch_of_batches(X: Any) -> bool:
    return hasattr(X, "__iter__") and not hasattr(X, "__getitem__")


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch (inputs, labels), as a DataLoader gives it; texts and pictures are inputs themselves. Raises InputError."""
    if not isinstance(batch, (list, tuple)):
        return batch
    if all(map(is_item, batch)):
        return list(batch)
    found = first_of(batch, "a batch")
    return list(found) if isinstance(found, tuple) and all(map(is_item, found)) else found


def first_of(pair: Any, what: str) -> Any:
    """The inputs of (inputs, labels). Raises InputError where it is not plain what is what."""
    if not isinstance(pair, (list, tuple)):
        return pair
    kinds = [(str(getattr(one, "dtype", "")), tuple(getattr(one, "shape", ()))) for one in pair]
    alike = len(pair) == 2 and kinds[0] == kinds[1] and len(kinds[0][1]) > 1  # ids and their mask, or two items
    if len(pair) > 2 or alike or all(isinstance(one, str) for one in pair):
        raise InputError(
            f"{what} of X is a {type(pair).__name__} of {len(pair)}, and it is not plain which are inputs; give (inputs, labels), "
            "or the inputs alone, several of them by name in a dict."
        )
    return pair[0]


def is_item(one: Any) -> bool:
    return isinstance(one, str) or bool(is_picture(one))


def piece(X: Any, start: int, stop: int) -> Any:
    """The items from start to stop, as `prepare` takes them."""
    if isinstance(X, str) or is_single(X):
        return X
    if isinstance(X, Mapping):
        return {name: cut(part, start, stop) for name, part in X.items()}
    if isinstance(X, tuple):
        return tuple(cut(part, start, stop) for part in X)
    if hasattr(X, "iloc"):
        return X.iloc[start:stop]
    if hasattr(X, "ndim"):
        return X[start:stop]
    if isinstance(X, list):
        return by_name(X[start:stop], start) if isinstance(X[0], Mapping) else X[start:stop]
    items = [first_of(X[k], f"item {k}") for k in range(start, stop)]  # a Dataset
    if isinstance(items[0], Mapping):
        return by_name(items, start)
    return torch.stack(items) if all(isinstance(item, torch.Tensor) for item in items) else items


def by_name(items: list[Any], start: int) -> dict[str, torch.Tensor]:
    """Items that are dicts, as one dict of inputs [n, ...]. Raises InputError."""
    return {name: side_by_side(name, items, start) for name in items[0]}


def side_by_side(name: str, items: list[Any], start: int) -> torch.Tensor:
    """One input of items that are dicts, [n, ...]. Raises InputError."""
    try:
        found = [torch.as_tensor(item[name]) for item in items]
    except Exception as error:  # torch has a kind for each thing that is no number
        raise InputError(
            f"the items of X are dicts, and {name!r} is not an array of numbers in each of them ({error}); give the model's inputs."
        ) from error
    odd = next((k for k, one in enumerate(found) if one.shape != found[0].shape), None)
    if odd is not None:
        raise InputError(
            f"the items of X are dicts, and {name!r} is {list(found[0].shape)} in item {start} and {list(found[odd].shape)} in item {start + odd}; "
            "fill them up to one length, or give batches (a DataLoader)."
        )
    return torch.stack(found)


def cut(part: Any, start: int, stop: int) -> Any:
    return part[start:stop] if getattr(part, "ndim", 0) > 0 else part
