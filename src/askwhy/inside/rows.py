"""A row of numbers for each item: of layers, and of the input as if it were one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError, ModelError
from askwhy.game import Progress
from askwhy.layers import chosen, pooled, read_layers, real_places
from askwhy.models.base import Items, to_numpy

if TYPE_CHECKING:
    from askwhy.models.torch_module import TorchModel

INPUT = "input"


def read_rows(
    model: TorchModel, X: Any, layer: Any, pool: str, batch_size: Any, tick: Progress | None
) -> tuple[dict[str, np.ndarray], list[str], int]:
    """[n, d] of each layer, the input first; those in which places came together; the number of model calls. layer: also "input"; None: that and the main stages.

    Raises InputError, ModelError for what is no row of finite numbers. tick counts as if each layer took as long as all are read.
    """
    asked = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    known = INPUT not in dict(model.net.named_modules())  # else a layer is called so, and meant
    inner = [one for one in asked if one is not None and not (known and isinstance(one, str) and one == INPUT)]
    whole = known and (layer is None or len(inner) < len(asked))
    asks = inner or (None if layer is None or whole else asked)
    steps = 1 + whole + len(chosen(model, asks))

    over_places: set[str] = set()

    def keep(name: str, out: Any, items: Items, own: range) -> np.ndarray:
        if out.ndim > 2 and pool != "flat":
            over_places.add(name)
        return to_numpy(pooled(model, name, out, items, own, pool))

    def share(done: int, total: int) -> Any:
        return None if tick is None else tick(done, total * steps)

    found: dict[str, list[np.ndarray]] = {INPUT: []} if whole else {}
    calls = 0
    for read in read_layers(model, X, asks, keep, batch_size=batch_size, tick=share):
        calls += len(read.own) + (0 if read.own.start else read.items.calls)
        if whole:
            found[INPUT].append(given(read.items, read.own))
        for name, rows in read.outs.items() if inner or layer is None else ():
            found.setdefault(name, []).append(rows)
    return {name: stacked(name, pieces) for name, pieces in found.items()}, [name for name in found if name in over_places], calls


def given(items: Items, own: range) -> np.ndarray:
    """What the model is given, flat [m, d]; the mean word vector of a text."""
    batch = items.batch[own.start : own.stop]
    held = real_places(items, own, batch.shape[1]) if items.kind == "text" and batch.ndim == 3 else None
    rows = to_numpy(batch)
    return rows.reshape(len(rows), -1).copy() if held is None else np.stack([rows[k, at].mean(0) for k, at in enumerate(held)])


def stacked(name: str, pieces: list[np.ndarray]) -> np.ndarray:
    """[n, d]. Raises InputError, ModelError."""
    widths = sorted({piece.shape[1] for piece in pieces})
    if len(widths) > 1:
        raise InputError(f"layer {name!r} gives {widths[0]} numbers for one item and {widths[-1]} for another; pool='mean' makes them as many.")
    rows = np.concatenate(pieces)
    bad = ~np.isfinite(rows).all(1)
    if bad.any():
        raise ModelError(f"layer {name!r} gives NaN or infinite numbers for item {int(bad.argmax())}; leave the item out, or look into the model.")
    return rows
