"""What layers give over many inputs: read in pieces that fit into memory, and nothing changes in the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy._memory import resident
from askwhy.errors import AskwhyError, InputError, LayerError, UnsupportedError
from askwhy.game import BatchSize, Progress, batch_size_of, counted
from askwhy.models import wrap
from askwhy.models.base import Items, is_out_of_memory, show_shape
from askwhy.models.torch_module import TorchModel
from askwhy.pieces import count as count
from askwhy.pieces import is_batch_of_batches as is_batch_of_batches
from askwhy.pieces import loads as loads
from askwhy.pieces import piece as piece
from askwhy.places import POOLS as POOLS
from askwhy.places import axes_noted
from askwhy.places import channels_of as channels_of
from askwhy.places import in_places as in_places
from askwhy.places import pooled as pooled
from askwhy.places import real_places as real_places
from askwhy.score import too_large
from askwhy.tap import find_layer, hooked
from askwhy.targets import Reached, one_tensor

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Keep = Callable[[str, "torch.Tensor", Items, range], Any]


@dataclass(frozen=True, eq=False)
class Read:
    """What layers gave for some of the inputs."""

    which: range  # of all inputs
    items: Items  # these and their neighbours
    own: range  # which of those items these are
    outs: dict[str, Any]  # by layer: a tensor [m, ...], or what `keep` made of it


@dataclass(eq=False)
class Asked:
    """The layers that are read, and what the first passes have shown of them."""

    model: TorchModel
    names: list[str]
    keep: Keep
    stages: bool  # the main stages, of which those may still be left out that give no one output
    axes: dict[str, int] = field(default_factory=dict)  # where the items are counted
    passes: int = 0

    @property
    def whole(self) -> bool:
        """Whether a pass goes on behind the last of the layers, so that it shows what runs several times: the first three, and then ever fewer."""
        return self.passes & (self.passes - 1) == 0  # 0 and the powers of two


def read_layers(
    model: Any, X: Any, layers: Any = None, keep: Keep | None = None, *, batch_size: int | str = "auto", tick: Progress | None = None
) -> Iterator[Read]:
    """What the layers give for X, piece after piece, without gradients.

    X: whatever the model takes; also a sequence of items (memory-mapped, a Dataset), or an iterable of batches (a
    DataLoader), of which only a piece is held at a time. layers: names, modules, or None for the model's main stages.
    keep(name, output, items, own) says what to keep of an output [m, ...], which the model may change later; by default a
    copy. Raises LayerError, InputError; Cancelled where tick answers False.
    """
    yield from read_loads(model, loads(X), count(X), layers, keep, batch_size=batch_size, tick=tick)


def read_loads(
    model: Any, loads: Iterable[Any], total: int | None, layers: Any = None, keep: Keep | None = None, *,
    batch_size: int | str = "auto", tick: Progress | None = None,
) -> Iterator[Read]:  # fmt: skip
    """The same for pieces of X that are ready, as `loads(X)` gives them."""
    wrapped = torch_model(model)
    asked = Asked(wrapped, chosen(wrapped, layers), keep or copied, layers is None)
    size: BatchSize | None = None
    done = 0
    with resident():
        for load in loads:
            items = prepared(wrapped, load, done)
            size = size or batch_size_of(wrapped, items.batch, batch_size if wrapped.seed is None else 1, "layers")  # a seeded model runs one by one
            at = 0
            while at < len(items):
                own = range(at, min(at + (size.size if asked.passes else 1), len(items)))  # one item alone shows which axis counts the items
                began = time.perf_counter()
                outs = fitting(asked, items, own, size)
                if outs is None:
                    continue
                size.learn(len(own), time.perf_counter() - began)
                if asked.stages:
                    items = checked(asked, items, size)
                    outs = {name: outs[name] for name in asked.names}
                at, done = own.stop, done + len(own)
                yield Read(range(done - len(own), done), items, own, outs)
                counted(tick, done, total or done)
    if not done:
        raise InputError("X holds no items.")


def prepared(model: TorchModel, load: Any, done: int) -> Items:
    """A piece of X. Raises InputError, which counts the items of the piece."""
    try:
        return model.prepare(load)
    except InputError as error:
        if not done:
            raise
        raise InputError(f"{error} (Items are counted within a piece of X, which begins with item {done}.)") from error


def checked(asked: Asked, items: Items, size: BatchSize) -> Items:
    """Leave out the stages that give no row for each of two items, as positions [1, t, d] do."""
    if min(len(items), size.size) > 1 and fitting(asked, items, range(2), size) is not None:
        items = replace(items, calls=items.calls + 2)
    asked.stages = False
    return items


def torch_model(model: Any) -> TorchModel:
    """Raises UnsupportedError for a model whose layers cannot be seen."""
    wrapped = wrap(model)
    if "layers" not in wrapped.offers:
        raise UnsupportedError("this needs the model's layers, and this model offers predictions only; give the torch module itself.")
    return wrapped  # type: ignore[return-value]


def copied(name: str, out: torch.Tensor, items: Items, own: range) -> torch.Tensor:
    return out.detach().clone()  # a later operation may write into it


def fitting(asked: Asked, items: Items, own: range, size: BatchSize) -> dict[str, Any] | None:
    """What the layers give for these items; None, and a smaller size, where they do not fit into memory together."""
    try:
        return pass_of(asked, items, own)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, AskwhyError) or not is_out_of_memory(error):
            raise
        if len(own) == 1:
            raise too_large() from error
        size.halve(len(own))
        return None


def pass_of(asked: Asked, items: Items, own: range) -> dict[str, Any]:
    """One pass; it ends behind the last of the layers, unless it is to be a whole one."""
    model, whole = asked.model, asked.whole
    found: dict[str, list[Any]] = {name: [] for name in asked.names}
    failed: dict[str, AskwhyError] = {}
    faults: list[Exception] = []

    def hook(name: str, module: Any, out: Any) -> None:
        try:
            rows = items_first(output_of(module, out, name), name, len(own), asked.axes)
            found[name].append(asked.keep(name, rows, items, own))
        except LayerError as error:
            failed[name] = error
        except Exception as error:  # kept until the pass has ended, in which it would count as the model's
            faults.append(error)
            raise Reached from error
        if not whole and all(found.values()):
            raise Reached

    noted = nullcontext() if asked.passes else axes_noted(model, asked.names)
    with model.untouched(), torch.no_grad(), noted, hooked(model.net, asked.names, hook), suppress(Reached):
        model.forward(items.batch[own.start : own.stop], items.beside(own))
    if faults:
        raise faults[0]
    if asked.stages:
        some = [name for name, outs in found.items() if len(outs) == 1 and name not in failed]
        asked.names = some or asked.names
    outs = alone({name: found[name] for name in asked.names}, failed)
    asked.passes += 1
    return outs


def output_of(module: torch.nn.Module, out: Any, name: str) -> torch.Tensor:
    """The tensor that a layer is known for, where it gives states or weights beside it. Raises LayerError."""
    several = isinstance(out, tuple) and isinstance(module, (torch.nn.RNNBase, torch.nn.MultiheadAttention))
    return one_tensor(out[0] if several else out, name)


def items_first(out: torch.Tensor, name: str, rows: int, axes: dict[str, int]) -> torch.Tensor:
    """[m, ...], also of a sequence [steps, m, d] whose steps come first; [m, 1] of one number an item. Raises LayerError."""
    if out.ndim < 2 and out.numel() == rows:  # also of a single item that squeeze() has left without any axis
        return out.reshape(rows, 1)
    axis = axes.get(name, 0 if out.ndim and len(out) == rows else 1)
    if out.ndim <= axis or out.shape[axis] != rows or (axis and out.ndim != 3):
        hint = " (a squeeze() without its axis drops that of a single item)" if rows == 1 else ""
        raise LayerError(f"layer {name!r} gives {show_shape(out)} for {rows} items; name a layer whose first axis counts the items{hint}.")
    axes[name] = axis
    return out.movedim(axis, 0)


def alone(found: Mapping[str, list[Any]], failed: Mapping[str, AskwhyError]) -> dict[str, Any]:
    """The one output of each layer. Raises LayerError."""
    for name, outs in found.items():
        if name in failed:
            raise failed[name]
        if len(outs) != 1:
            why = f"runs {len(outs)} times in one forward pass, so it has no one output" if outs else "did not run in this forward pass"
            raise LayerError(f"layer {name!r} {why}; name another, perhaps the one around it.")
    return {name: outs[0] for name, outs in found.items()}


# ---- which layers ---------------------------------------------------------------------------------------------------


def chosen(model: TorchModel, layers: Any) -> list[str]:
    """The names of layers: given by name, module, or a list of them; None for the main stages. Raises LayerError with near names."""
    if layers is None:
        return list(names_of(model))
    asked = layers if isinstance(layers, (list, tuple)) else [layers]
    if not asked:
        raise LayerError(f"layers=[] names no layer; leave it out for the main stages, {', '.join(names_of(model)[:6])}, ...")
    return list(dict.fromkeys(find_layer(model.net, layer)[0] for layer in asked))


def names_of(model: TorchModel) -> tuple[str, ...]:
    """The main stages: the blocks of a deep network, the layers of a plain one."""
    if "stages" not in model.memory:
        found = tuple(stages(model.net))
        model.memory["stages"] = found or ("",)
    return model.memory["stages"]  # type: ignore[no-any-return]


def stages(net: torch.nn.Module, prefix: str = "") -> Iterator[str]:
    """A part is opened where it is a plain list of parts, or holds a list of like blocks somewhere; a block stays whole."""
    for name, part in net.named_children():
        path = f"{prefix}{name}"
        if isinstance(part, (torch.nn.Identity, torch.nn.modules.dropout._DropoutNd)):  # in eval mode they give what they are given
            continue
        if isinstance(part, (torch.nn.Sequential, torch.nn.ModuleList)) or any(map(holds_blocks, part.modules())):
            yield from stages(part, f"{path}.")
        else:
            yield path


def holds_blocks(module: torch.nn.Module) -> bool:
    """Whether this is a list of several parts of one kind that have parts themselves."""
    if not isinstance(module, (torch.nn.Sequential, torch.nn.ModuleList)):
        return False
    kinds = [type(part) for part in module if next(part.children(), None) is not None]
    return len(kinds) > len(set(kinds))
