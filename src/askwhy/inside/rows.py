"""A row of numbers for each item: of layers, and of the input as if it were one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import LayerError
from askwhy.game import Progress
from askwhy.layers import Read, chosen, pooled, read_layers, real_places
from askwhy.models.base import Items, to_numpy

if TYPE_CHECKING:
    import torch

    from askwhy.models.torch_module import TorchModel
else:
    torch = lazy("torch", "torch")

INPUT = "input"


class Pile:
    """The rows of a model's layers as they come, and what is known of them."""

    def __init__(self, model: TorchModel, pool: str, dtype: Any = None) -> None:
        self.model, self.pool, self.dtype = model, pool, dtype
        self.kept: dict[str, list[np.ndarray]] = {}
        self.over_places: set[str] = set()  # layers in which places came together
        self.calls = 0

    def keep(self, name: str, out: torch.Tensor, items: Items, own: range) -> np.ndarray:
        if out.ndim > 2 and self.pool != "flat":
            self.over_places.add(name)
        return np.asarray(pooled_rows(self.model, name, out, items, own, self.pool), self.dtype)

    def add(self, read: Read) -> None:
        self.calls += len(read.own) + (0 if read.own.start else read.items.calls)
        for name, rows in read.outs.items():
            self.kept.setdefault(name, []).append(rows)

    def rows(self) -> dict[str, np.ndarray]:
        return {name: stacked(name, pieces) for name, pieces in self.kept.items()}


def read_rows(
    model: TorchModel, X: Any, layer: Any, pool: str, batch_size: Any, tick: Progress | None
) -> tuple[dict[str, np.ndarray], list[str], int]:
    """[n, d] of each layer, the input first; those in which places came together; the number of model calls. layer: also "input"; None: that and the main stages.

    tick counts as if each layer took as long as all are read. Raises LayerError for what is no row of finite numbers.
    """
    asked = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    known = INPUT not in dict(model.net.named_modules())  # else a layer is called so, and meant
    inner = [one for one in asked if one is not None and not (known and isinstance(one, str) and one == INPUT)]
    whole = known and (layer is None or len(inner) < len(asked))
    asks = inner or (None if layer is None or whole else asked)
    steps = 1 + whole + len(chosen(model, asks))

    def share(done: int, total: int) -> Any:
        return None if tick is None else tick(done, total * steps)

    pile, inputs, wanted = Pile(model, pool), [], bool(inner) or layer is None
    for read in read_layers(model, X, asks, pile.keep, batch_size=batch_size, tick=share):
        pile.add(read if wanted else replace(read, outs={}))
        inputs += [given(read.items, read.own)] if whole else []
    rows = ({INPUT: stacked(INPUT, inputs)} if whole else {}) | pile.rows()
    return rows, [name for name in rows if name in pile.over_places], pile.calls


def pooled_rows(model: TorchModel, name: str, out: torch.Tensor, items: Items, own: range, pool: str) -> np.ndarray:
    """A layer's output as rows [m, d] of real numbers. Raises InputError, LayerError."""
    if out.is_complex() and pool == "max":
        raise LayerError(f"layer {name!r} gives complex numbers, of which none is the largest; choose pool='mean', or name another layer.")
    return to_numpy(real_parts(pooled(model, name, out, items, own, pool)))


def real_parts(found: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Complex numbers as their real and imaginary parts, one behind the other."""
    return torch.cat([found.real, found.imag], axis) if found.is_complex() else found


def given(items: Items, own: range) -> np.ndarray:
    """What the model is given, flat [m, d]; the mean word vector of a text."""
    batch = real_parts(items.batch[own.start : own.stop])
    held = real_places(items, own, batch.shape[1]) if items.kind == "text" and batch.ndim == 3 else None
    rows = to_numpy(batch)
    return rows.reshape(len(rows), -1).copy() if held is None else np.stack([rows[k, at].mean(0) for k, at in enumerate(held)])


def stacked(name: str, pieces: list[np.ndarray]) -> np.ndarray:
    """[n, d]. Raises LayerError."""
    widths = sorted({piece.shape[1] for piece in pieces})
    if len(widths) > 1:
        raise LayerError(f"layer {name!r} gives {widths[0]} numbers for one item and {widths[-1]} for another; pool='mean' makes them as many.")
    rows = np.concatenate(pieces)
    bad = ~np.isfinite(rows).all(1)
    if bad.any():
        raise LayerError(f"layer {name!r} gives NaN or infinite numbers for item {int(bad.argmax())}; leave the item out, or name another layer.")
    return rows
