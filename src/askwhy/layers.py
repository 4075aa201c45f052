"""What layers give over many inputs: read in pieces that fit into memory, and nothing changes in the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import AskwhyError, InputError, LayerError, UnsupportedError
from askwhy.game import BatchSize, Progress, batch_size_of, counted
from askwhy.models import wrap
from askwhy.models.base import Items, is_out_of_memory, show_shape
from askwhy.models.pictures import is_picture
from askwhy.models.torch_module import TorchModel
from askwhy.score import too_large
from askwhy.tap import find_layer
from askwhy.targets import Reached, one_tensor

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LOAD = 64  # items that are prepared together, so that a folder of photos need not fit into memory
Keep = Callable[[str, "torch.Tensor", Items, range], Any]


@dataclass(frozen=True, eq=False)
class Read:
    """What layers gave for some of the inputs."""

    which: range  # of all inputs
    items: Items  # these and their neighbours
    own: range  # which of those items these are
    outs: dict[str, Any]  # by layer: a tensor [m, ...], or what `keep` made of it


def read_layers(
    model: Any, X: Any, layers: Any = None, keep: Keep | None = None, *, batch_size: int | str = "auto", tick: Progress | None = None
) -> Iterator[Read]:
    """What the layers give for X, piece after piece, without gradients.

    X: whatever the model takes; also a sequence of items (memory-mapped, a Dataset), or an iterable of batches (a
    DataLoader), of which only a piece is held at a time. layers: names, modules, or None for the model's main stages.
    keep(name, output, items, own) says what to keep of an output [m, ...], which the model may change later; by default a
    copy. Raises LayerError, InputError; Cancelled where tick answers False.
    """
    wrapped = torch_model(model)
    names, total, done = chosen(wrapped, layers), count(X), 0
    size: BatchSize | None = None
    for load in loads(X):
        items = wrapped.prepare(load)
        size = size or batch_size_of(wrapped, items.batch, batch_size if wrapped.seed is None else 1, "layers")  # a seeded model runs one by one
        at = 0
        while at < len(items):
            own = range(at, min(at + size.size, len(items)))
            began = time.perf_counter()
            outs = fitting(wrapped, items, own, names, keep or copied, size, whole=not done)
            if outs is None:
                continue
            if not done and layers is None:  # the stages that were found to give one output
                names = list(outs)
            size.learn(len(own), time.perf_counter() - began)
            at, done = own.stop, done + len(own)
            yield Read(range(done - len(own), done), items, own, outs)
            counted(tick, done, total or done)


def torch_model(model: Any) -> TorchModel:
    """Raises UnsupportedError for a model whose layers cannot be seen."""
    wrapped = wrap(model)
    if "layers" not in wrapped.offers:
        raise UnsupportedError("this needs the model's layers, and this model offers predictions only; give the torch module itself.")
    return wrapped  # type: ignore[return-value]


def copied(name: str, out: torch.Tensor, items: Items, own: range) -> torch.Tensor:
    return out.detach().clone()  # a later operation may write into it


def fitting(
    model: TorchModel, items: Items, own: range, names: Sequence[str], keep: Keep, size: BatchSize, whole: bool
) -> dict[str, Any] | None:  # fmt: skip
    """What the layers give for these items; None, and a smaller size, where they do not fit into memory together."""
    try:
        return pass_of(model, items, own, names, keep, whole)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, AskwhyError) or not is_out_of_memory(error):
            raise
        if len(own) == 1:
            raise too_large() from error
        size.halve(len(own))
        return None


def pass_of(model: TorchModel, items: Items, own: range, names: Sequence[str], keep: Keep, whole: bool) -> dict[str, Any]:
    """One pass; it ends behind the last of the layers, but for a `whole` one, in which is seen what runs several times."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    failed: dict[str, AskwhyError] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, out: Any) -> None:
            try:
                found[name].append(keep(name, one_row_each(one_tensor(out, name), name, len(own)), items, own))
            except LayerError as error:
                failed[name] = error
            if not whole and all(found.values()):
                raise Reached

        return hook

    with model.untouched(), torch.no_grad():
        handles = [model.net.get_submodule(name).register_forward_hook(hook_for(name)) for name in names]
        try:
            model.forward(items.batch[own.start : own.stop], items.beside(own))
        except Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
    return alone(model, found, failed)


def one_row_each(out: torch.Tensor, name: str, rows: int) -> torch.Tensor:
    if out.ndim == 0 or len(out) != rows:
        raise LayerError(f"layer {name!r} gives {show_shape(out)} for {rows} items; name a layer whose first axis counts the items.")
    return out


def alone(model: TorchModel, found: Mapping[str, list[Any]], failed: Mapping[str, AskwhyError]) -> dict[str, Any]:
    """The one output of each layer; of the model's stages, those that have one. Raises LayerError."""
    if names_of(model) == tuple(found):
        one = {name: outs[0] for name, outs in found.items() if len(outs) == 1 and name not in failed}
        if one:
            return one
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


# ---- which inputs ---------------------------------------------------------------------------------------------------


def loads(X: Any) -> Iterator[Any]:
    """Pieces of X that a model prepares together."""
    if is_batch_of_batches(X):
        yield from map(first_of, X)
        return
    n = count(X)
    for start in range(0, n or 0, LOAD):
        yield piece(X, start, min(start + LOAD, n or 0))


def count(X: Any) -> int | None:
    """How many items X holds; None where only going through it tells."""
    if isinstance(X, str) or is_single(X):
        return 1
    if isinstance(X, (dict, tuple)):
        parts = list(X.values() if isinstance(X, dict) else X)
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


def first_of(batch: Any) -> Any:
    """The inputs of a batch (inputs, labels), as a DataLoader gives it."""
    return batch[0] if isinstance(batch, (list, tuple)) and len(batch) and not isinstance(batch[0], str) and not is_picture(batch[0]) else batch


def piece(X: Any, start: int, stop: int) -> Any:
    """The items from start to stop, as `prepare` takes them."""
    if isinstance(X, str) or is_single(X):
        return X
    if isinstance(X, dict):
        return {name: cut(part, start, stop) for name, part in X.items()}
    if isinstance(X, tuple):
        return tuple(cut(part, start, stop) for part in X)
    if hasattr(X, "iloc"):
        return X.iloc[start:stop]
    if hasattr(X, "ndim") or isinstance(X, list):
        return X[start:stop]
    items = [first_of(X[k]) for k in range(start, stop)]  # a Dataset
    return torch.stack(items) if all(isinstance(item, torch.Tensor) for item in items) else items


def cut(part: Any, start: int, stop: int) -> Any:
    return part[start:stop] if getattr(part, "ndim", 0) > 0 else part


# ---- from maps and tokens to one row of numbers ---------------------------------------------------------------------

POOLS = ("mean", "max", "flat", "first", "last")


def pooled(model: TorchModel, name: str, out: torch.Tensor, items: Items, own: range, pool: str = "mean") -> torch.Tensor:
    """A layer's output [m, ...] as rows [m, d].

    pool: "mean" or "max" over the places (pixels, tokens without padding), "flat" (every number), "first" or "last" place.
    """
    if pool not in POOLS:
        raise InputError(f"pool={pool!r}: choose {', '.join(map(repr, POOLS))}.")
    if out.ndim == 2 or pool == "flat":
        return out.flatten(1)
    places = in_places(model, name, out)  # [m, places, channels]
    held = real_places(items, own, places.shape[1])
    if held is None:
        return {"mean": lambda: places.mean(1), "max": lambda: places.amax(1), "first": lambda: places[:, 0], "last": lambda: places[:, -1]}[pool]()
    ends = {"first": lambda own: own[0], "last": lambda own: own[-1], "mean": lambda own: own.mean(0), "max": lambda own: own.amax(0)}
    return torch.stack([ends[pool](places[k, at]) for k, at in enumerate(held)])


def in_places(model: TorchModel, name: str, out: torch.Tensor) -> torch.Tensor:
    """[m, ...] -> [m, places, channels]: pixels of a feature map, tokens or steps of a sequence."""
    if out.ndim == 2:
        return out[:, None]
    return out.movedim(channels_of(model, name, out), -1).flatten(1, -2)


def channels_of(model: TorchModel, name: str, out: torch.Tensor) -> int:
    """The axis of the channels: the first of convolutions, the last of tokens, steps, and maps that are square in their first axes only."""
    if out.ndim == 3:
        kinds = (torch.nn.Conv1d, torch.nn.ConvTranspose1d, torch.nn.BatchNorm1d, torch.nn.MaxPool1d, torch.nn.AvgPool1d)
        convolves = any(isinstance(part, kinds) for part in model.net.modules())
        recurs = any(isinstance(part, torch.nn.RNNBase) for part in model.net.get_submodule(name).modules())
        return 1 if convolves and not recurs else 2
    if out.ndim == 4 and out.shape[1] == out.shape[2] != out.shape[3]:
        return 3
    return 1


def real_places(items: Items, own: range, places: int) -> list[list[int]] | None:
    """The places of each text that are no padding; None where that is not known, or the layer has other places."""
    parts: Sequence[Any] = () if items.arguments is None else items.arguments.parts
    if len(parts) != 1 or not parts[0].readings or int(np.prod(parts[0].places)) != places:
        return None
    return [list(parts[0].readings[k].places) for k in own]
