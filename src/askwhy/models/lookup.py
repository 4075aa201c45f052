"""Where a torch model turns whole numbers into vectors, and how to put other vectors in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import ModelError
from askwhy.operations import by_position, key_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LOOKUPS = frozenset({"embedding", "getitem", "index_select"})
COPIES = frozenset({"to", "long", "int", "contiguous", "clone", "detach", "get", "cpu", "cuda", "type_as", "view_as"})  # the same ids
MOVES = frozenset({
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "movedim", "swapaxes", "t", "get", "getitem",
    "chunk", "split", "tensor_split", "unbind", "iter", "narrow", "select", "expand", "repeat", "flip", "roll", "unfold",
})  # fmt: skip
STEPS = frozenset({
    "add", "sub", "rsub", "mul", "remainder", "mod", "fmod", "floor_divide", "floordiv", "clamp", "clip", "clamp_min", "clamp_max", "where",
    "masked_fill", "maximum", "minimum", "abs", "neg", "iadd", "isub", "imul", "bitwise_and", "bitwise_or", "bitwise_xor",
})  # number by number: what comes out stands where the id stood  # fmt: skip
FRESH = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randint_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor",
})  # only the shape is taken  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lookup:
    """One place in the model where the numbers of an input become vectors."""

    places: np.ndarray  # [p]: the positions in an item that are looked up here
    size: int  # of a vector
    look: Callable[[torch.Tensor], torch.Tensor] | None  # ids -> vectors [..., size]; None where the model changes the ids before


@dataclass(frozen=True)
class Known:
    """A tensor that holds the ids of an input, moved and changed as the model likes."""

    tensor: torch.Tensor  # kept, since it is known by its identity
    name: str
    where: torch.Tensor | None  # item * places + place of each element; -1 for one that is no id; None where that is lost
    own: bool  # whether it still holds the ids themselves


Use = Callable[[Known, "torch.Tensor", Callable[["torch.Tensor"], "torch.Tensor"]], "torch.Tensor"]  # (ids, vectors, how) -> vectors


@contextmanager
def watched(ids: Mapping[str, torch.Tensor], use: Use) -> Iterator[None]:
    """Inside the block, `use` sees every lookup of these ids, and says what comes out of it."""
    from torch.overrides import TorchFunctionMode

    known = {id(t): Known(t, name, torch.arange(t.numel(), device=t.device).view_as(t), True) for name, t in ids.items()}

    class Watch(TorchFunctionMode):
        def __torch_function__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            args, kwargs = by_position(args, kwargs or {})
            at = next((k for k, a in enumerate(args) if isinstance(a, torch.Tensor) and id(a) in known), None)
            key = key_of(op)
            if at is None:
                joined = key in ("cat", "concat", "stack") and any(id(t) in known for t in args[0])
                out = op(*args, **kwargs)
                return follow_joined(known, op, args, kwargs, out) if joined else out
            ids = known[id(args[at])]
            if key == "embedding_bag":
                return bag(self, ids.name, op, args, kwargs)
            out = op(*args, **kwargs)
            if key in LOOKUPS and isinstance(out, torch.Tensor) and out.is_floating_point():
                if ids.where is None:
                    refuse_lost(ids.name, key, args)
                    return out
                return use(ids, out, lambda other: op(*args[:at], other, *args[at + 1 :], **kwargs))
            follow(known, ids, key, out, lambda where: op(*args[:at], where, *args[at + 1 :], **kwargs))
            return out

    with Watch():
        yield


def refuse_lost(name: str, key: str, args: tuple[Any, ...]) -> None:
    """An activation may be picked by what is made of ids; a table of vectors that nobody follows would be left out in silence."""
    if key == "embedding" or any(isinstance(a, torch.nn.Parameter) for a in args):
        raise ModelError(
            f"the model looks up what it makes of {name} (sorted, counted, summed, ...), so that no token can be told from another; "
            "give the vectors themselves, or use occlusion with a function around the model."
        )


def bag(mode: Any, name: str, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An embedding bag as a lookup and a sum, mean or maximum, where that is all it is."""
    import inspect

    given = inspect.signature(op).bind(*args, **kwargs)
    given.apply_defaults()
    rest = given.arguments
    plain = rest["input"].ndim == 2 and all(rest[name] is None for name in ("offsets", "max_norm", "per_sample_weights", "padding_idx"))
    if not plain:
        raise ModelError(
            f"the model looks up {name} in an embedding bag with offsets, weights or padding, whose tokens cannot be told apart; use an embedding and a sum."
        )
    with mode:
        vectors = torch.nn.functional.embedding(rest["input"], rest["weight"])
    return vectors.amax(1) if rest["mode"] == "max" else getattr(vectors, rest["mode"])(1)


def is_whole(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and not (x.is_floating_point() or x.is_complex() or x.dtype is torch.bool)


def follow(known: dict[int, Known], ids: Known, key: str, out: Any, again: Callable[[torch.Tensor], Any]) -> None:
    """Remember where the ids are in what an operation made of them."""
    if key == "setitem":
        known[id(ids.tensor)] = Known(ids.tensor, ids.name, ids.where, False)
    several = list(out) if isinstance(out, (tuple, list)) else [out]
    if ids.where is not None and is_whole(out) and out.shape == ids.where.shape and key in STEPS | COPIES:
        known[id(out)] = Known(out, ids.name, ids.where, ids.own and key in COPIES)
    elif ids.where is not None and key in MOVES and all(map(is_whole, several)):
        moved = again(ids.where)
        for part, where in zip(several, moved if isinstance(out, (tuple, list)) else [moved], strict=True):
            known[id(part)] = Known(part, ids.name, where, ids.own)
    elif key not in FRESH:
        known.update((id(part), Known(part, ids.name, None, False)) for part in several if is_whole(part))


def follow_joined(known: dict[int, Known], op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> torch.Tensor:
    """Ids beside other numbers, as a class token put before them."""
    found = [known.get(id(t)) for t in args[0]]
    names = {ids.name for ids in found if ids is not None}
    if len(names) > 1 or any(ids is not None and ids.where is None for ids in found):
        known[id(out)] = Known(out, " and ".join(sorted(names)), None, False)
    elif is_whole(out):
        where = op([torch.full_like(t, -1) if ids is None else ids.where for t, ids in zip(args[0], found, strict=True)], *args[1:], **kwargs)
        own = all(ids is None or ids.own for ids in found)
        known[id(out)] = Known(out, names.pop(), where, own)
    return out


# ---- finding them ---------------------------------------------------------------------------------------------------


def find_lookups(ids: Mapping[str, torch.Tensor], run: Callable[[], Any]) -> dict[str, list[tuple[Lookup, torch.Tensor]]]:
    """For each input that `run` looks up: how, and the vectors [n, p, size] that come out."""
    seen: list[tuple[Known, torch.Tensor, Any]] = []

    def note(at: Known, out: torch.Tensor, look: Any) -> torch.Tensor:
        seen.append((at, out, look))
        return out

    with watched(ids, note):
        run()
    found: dict[str, list[tuple[Lookup, torch.Tensor]]] = {name: [] for name in ids}
    for at, out, look in seen:
        found[at.name].append(one_lookup(at, out, look, ids[at.name]))
    return {name: lookups for name, lookups in found.items() if lookups}


def one_lookup(at: Known, out: torch.Tensor, look: Any, ids: torch.Tensor) -> tuple[Lookup, torch.Tensor]:
    """The lookup, and the vector of each position of each item [n, p, size]. Raises ModelError where items are treated differently."""
    assert at.where is not None, "else it was refused"
    n, length, where = len(ids), ids[0].numel(), at.where.flatten()
    element = where.new_full((n * length,), -1)
    element[where[where >= 0]] = torch.arange(len(where), device=where.device)[where >= 0]
    element = element.view(n, length)
    covered = element >= 0
    if not (covered == covered[0]).all():
        raise ModelError(f"the model looks up other places of {at.name} for one item than for another; ask about one item at a time.")
    places = torch.nonzero(covered[0]).flatten()
    vectors = out.reshape(len(where), -1)[element[:, places]]
    return Lookup(places.cpu().numpy(), vectors.shape[-1], look if at.own else None), vectors


# ---- putting others in their place ----------------------------------------------------------------------------------


@contextmanager
def replaced(ids: Mapping[str, torch.Tensor], lookups: Mapping[str, Sequence[Lookup]], vectors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside the block, what a lookup gives comes from `vectors` [m, numbers], those of all its lookups one after the other."""
    left = {name: iter(split(lookups[name], given)) for name, given in vectors.items()}

    def use(at: Known, out: torch.Tensor, look: Any) -> torch.Tensor:
        if at.name not in left:
            return out
        lookup, given = next(left[at.name], (None, None))
        if lookup is None or given is None:
            raise changed(at.name)
        assert at.where is not None, "else it was refused"
        return placed(lookup, given, at.where, out, ids[at.name][0].numel())

    with watched(ids, use):
        yield
    for name, rest in left.items():
        if next(rest, None) is not None:
            raise changed(name)


def changed(name: str) -> ModelError:
    return ModelError(f"the model looks up {name} more or less often than before, so its vectors cannot be told apart; use occlusion or lime.")


def split(lookups: Sequence[Lookup], given: torch.Tensor) -> Iterator[tuple[Lookup, torch.Tensor]]:
    """The vectors [m, p, size] of each lookup."""
    start = 0
    for lookup in lookups:
        count = len(lookup.places) * lookup.size
        part = given if len(lookups) == 1 else given[:, start : start + count]
        yield lookup, part.reshape(len(given), len(lookup.places), lookup.size)
        start += count


def placed(lookup: Lookup, given: torch.Tensor, where: torch.Tensor, out: torch.Tensor, length: int) -> torch.Tensor:
    """The given vectors in the order in which the model looked them up, shaped like `out`."""
    slot = torch.full((length,), -1, device=where.device)
    slot[torch.as_tensor(lookup.places, device=where.device)] = torch.arange(len(lookup.places), device=where.device)
    row = torch.where(where < 0, -1, where // length * len(lookup.places) + slot[where % length]).flatten()
    if len(row) == given.shape[0] * given.shape[1] and bool((row == torch.arange(len(row), device=row.device)).all()):
        return given.reshape(out.shape).to(out.dtype)
    found = given.flatten(0, 1)[row.clamp(min=0)].reshape(out.shape).to(out.dtype)
    own = (row < 0).view(*where.shape, *(1,) * (out.ndim - where.ndim))
    return torch.where(own, out, found) if bool(own.any()) else found
