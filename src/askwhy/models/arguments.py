"""What a torch model takes that is not one tensor of numbers: several inputs, or token ids behind an embedding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.models.base import contents, said_clearly, show_shape
from askwhy.models.lookup import Lookup, is_whole, replaced
from askwhy.models.outputs import parts_of
from askwhy.models.state import random_state, set_random_state
from askwhy.reading import Reading

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

FIXED = ("mask", "token_type_ids", "position_ids", "segment_ids", "labels")  # ends of names of what says how to read another input


class Padded(dict[str, Any]):
    """Inputs by name that a tokenizer has filled up: on the left a token no longer stands at the place that it has alone."""

    def __init__(self, found: Mapping[str, np.ndarray], masks: np.ndarray) -> None:
        super().__init__(found)
        self.lengths, self.left = masks.sum(1).tolist(), not masks[:, 0].all()

    def alone(self, which: Any, length: int) -> dict[str, Any]:
        """Texts of this length as they are by themselves."""
        return {name: ends(rows[which], length, self.left) for name, rows in self.items()}


def ends(rows: Any, length: int, left: bool) -> Any:
    """Rows [n, length] without what fills them up."""
    return rows[:, -length:] if left else rows[:, :length]


@dataclass(frozen=True, eq=False)
class Part:
    """An input that is explained: its own numbers, or the vectors that stand for its tokens."""

    name: str
    shape: tuple[int, ...]  # of an item in the batch
    places: tuple[int, ...]  # of an item in the result
    start: int = 0  # of its numbers, where several inputs lie side by side in the batch
    lookups: tuple[Lookup, ...] = ()
    owner: np.ndarray | None = None  # the place that each number belongs to, for tokens
    readings: tuple[Reading, ...] | None = None
    pictures: tuple[np.ndarray | None, ...] = ()
    absent_ids: Mapping[str, int] = field(default_factory=dict)  # "pad", "mask": the tokens that say nothing

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def cut(self, batch: Any) -> Any:
        """Its numbers [m, *shape] of a batch of several inputs [m, numbers]."""
        return batch[:, self.start : self.start + self.size].reshape(len(batch), *self.shape)

    def shown(self, values: np.ndarray, how: str = "sum") -> np.ndarray:
        """values [k, *shape] -> [k, *places]: those of a token's vector come together as their sum, or the "length" of the vector."""
        if self.owner is None:
            return values
        flat = values.reshape(len(values), -1).astype(np.float64)
        total = np.zeros((int(np.prod(self.places)), len(flat)))
        np.add.at(total, self.owner, (flat if how == "sum" else flat**2).T)
        return (total if how == "sum" else np.sqrt(total)).T.reshape(len(values), *self.places)


@dataclass(frozen=True, eq=False)
class Arguments:
    """The inputs of a model by name, for some items, and which of them are explained."""

    values: Mapping[str, Any]  # tensors [n, ...], and what is the same for every item
    names: tuple[str, ...] | None  # how they are passed: by these names, in this order, or (None) all in one dict or tuple
    kind: type  # dict or tuple: how the user gave them
    parts: tuple[Part, ...] = ()

    @property
    def held_fixed(self) -> tuple[str, ...]:
        """The inputs that are given as they are and not explained: masks, token types, whole numbers that are not looked up."""
        explained = {part.name for part in self.parts}
        return tuple(name for name in self.values if name not in explained)

    def rows(self, owners: Sequence[int]) -> Arguments:
        """The same for other items: row j belongs to item owners[j]."""
        index = torch.as_tensor(np.asarray(owners, dtype=np.int64))
        return replace(self, values={k: v[index.to(v.device)] if is_rows(v) else v for k, v in self.values.items()})

    def call(self, net: torch.nn.Module, batch: torch.Tensor) -> Any:
        """Run the model on these inputs, where those that are explained come from the batch."""
        given, vectors = dict(self.values), {}
        for part in self.parts:
            own = batch if len(self.parts) == 1 else part.cut(batch)
            if part.lookups:
                vectors[part.name] = own
            else:
                given[part.name] = own
        ids = {name: given[name] for name in vectors}
        with replaced(ids, {p.name: p.lookups for p in self.parts}, vectors) if vectors else nullcontext():
            return self.passed(net, given)

    def passed(self, net: torch.nn.Module, given: Mapping[str, Any]) -> Any:
        if self.names is not None:
            return net(**given) if self.kind is dict else net(*given.values())
        return net(dict(given) if self.kind is dict else tuple(given.values()))

    def described(self) -> str:
        """Their shapes, for error messages."""
        shapes = ", ".join(f"{name} {show_shape(v)}" for name, v in self.values.items() if isinstance(v, torch.Tensor))
        return shapes + (" (a tuple holds the inputs of a model; a batch of items is a list)" if self.kind is tuple and len(self.values) > 1 else "")

    def pieces(self, batch: Any) -> list[tuple[Part, Any]]:
        """Each explained input with its numbers."""
        return [(part, batch if len(self.parts) == 1 else part.cut(batch)) for part in self.parts]

    def shown(self, values: np.ndarray, how: str = "sum") -> np.ndarray:
        """values [k, *batch] -> [k, *places] of one input, [k, places of all] of several."""
        found = [part.shown(own, how) for part, own in self.pieces(values)]
        return found[0] if len(found) == 1 else np.concatenate([own.reshape(len(own), -1) for own in found], 1)


def is_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0


def is_fixed(name: str) -> bool:
    """Whether an input only says how another is to be read."""
    return name.lower().endswith(FIXED)


def read_arguments(net: torch.nn.Module, x: Any, place: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
    """The inputs that a dict or tuple holds, on the model's device. Raises InputError."""
    kind = tuple if isinstance(x, tuple) else dict
    names = accepted(net, x, kind)
    given = dict(zip(names or [f"input {k}" for k in range(len(x))], x, strict=True)) if kind is tuple else {str(k): v for k, v in x.items()}
    values = {name: place(as_tensor(v, name)) if hasattr(v, "__array__") or isinstance(v, torch.Tensor) else v for name, v in given.items()}
    counts = {name: len(v) for name, v in values.items() if is_rows(v)}
    if not counts or len(set(counts.values())) > 1 or 0 in counts.values():
        shapes = ", ".join(f"{name} {show_shape(v)}" for name, v in values.items() if isinstance(v, torch.Tensor)) or contents(x)
        raise InputError(f"x holds {shapes}; the first axis of every input counts the items, and has to be the same.")
    found = Arguments(values, names, kind)
    return placed_alike(net, found, x) if isinstance(x, Padded) else found


def as_tensor(value: Any, name: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"x[{name!r}] is an array of {array.dtype}; a torch model needs numbers.")
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def accepted(net: torch.nn.Module, x: Any, kind: type) -> tuple[str, ...] | None:
    """The names under which the model takes each input; None where it takes them all in one. Raises InputError."""
    taken = inspect.signature(net.forward).parameters.values()
    named = [p.name for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if kind is dict:
        if all(str(k) in named for k in x) or any(p.kind is p.VAR_KEYWORD for p in taken):
            return tuple(map(str, x))
        if len(named) == 1:
            return None
        odd = next(str(k) for k in x if str(k) not in named)
        raise InputError(f"x has the key {odd!r}, and the model's forward takes {', '.join(named)}.")
    if len(x) <= len(named) or any(p.kind is p.VAR_POSITIONAL for p in taken):
        return (*named, *(f"input {k}" for k in range(len(named), len(x))))[: len(x)]
    if len(named) == 1:
        return None
    raise InputError(f"x is a tuple of {len(x)} inputs, and the model's forward takes {len(named)} ({', '.join(named)}); a list is a batch of items.")


# ---- texts that are filled up ----------------------------------------------------------------------------------------


def placed_alike(net: torch.nn.Module, given: Arguments, texts: Padded) -> Arguments:
    """The same for a model to which the filling is nothing; with position_ids for one that is to be told the places. Seen on the shortest text.

    Raises InputError where the text does not get what it gets alone.
    """
    mask = given.values.get("attention_mask")
    ways = [given]
    if texts.left and mask is not None and given.names is not None and "position_ids" in inspect.signature(net.forward).parameters:
        places = (mask.cumsum(1) - 1).clamp(min=0)
        ways.append(replace(given, values={**given.values, "position_ids": places}, names=(*given.names, "position_ids")))
    gaps = [gap(net, way, texts, given) for way in ways]
    best = min(range(len(gaps)), key=gaps.__getitem__)
    if not gaps[best] <= 1:
        side, other = ("left", "right") if texts.left else ("right", "left")
        raise InputError(
            f"the texts have different lengths and are filled up on the {side}, where this model answers otherwise than for a text alone; "
            f"ask about one text at a time, or set tokenizer.padding_side = {other!r} if the model can read that."
        )
    return ways[best]


def reads_filled(net: torch.nn.Module, given: Arguments, texts: Padded) -> bool:
    """Whether the shortest text gets what it gets alone."""
    return gap(net, given, texts, given) <= 1


def gap(net: torch.nn.Module, given: Arguments, texts: Padded, usual: Arguments) -> float:
    """How far a model's outputs for the shortest text are from those without its filling: largest difference / largest number / what rounding explains.

    usual: what it is given without its filling; places that are told there too would hide that they are not the model's own.
    0 for a model that draws random numbers, of which it cannot be told; one in training mode is refused for that.
    """
    if any(module.training for module in net.modules()):
        return 0.0
    which = int(np.argmin(texts.lengths))
    length, filled, whole = texts.lengths[which], given.rows([which]), usual.rows([which])
    alone = replace(whole, values={name: ends(v, length, texts.left) if is_rows(v) else v for name, v in whole.values.items()})
    like = next(v for v in given.values.values() if is_rows(v))
    state = random_state(like)
    try:
        with torch.no_grad(), said_clearly(filled.described()):
            out, own, again = (tensors_of(one.passed(net, one.values)) for one in (filled, alone, alone))
    finally:
        set_random_state(like, state)
    if 1 < apart(own, again) < float("inf"):
        return 0.0
    return apart([ends(a, length, texts.left) if a.ndim > 1 and a.shape[1] != b.shape[1] else a for a, b in zip(out, own, strict=False)], own)


def apart(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest difference, over the largest number, over what rounding explains."""
    return max((differing(a, b) for a, b in zip(some, others, strict=False) if a.shape == b.shape), default=float("inf"))


def differing(a: torch.Tensor, b: torch.Tensor) -> float:
    usual = a.isfinite() & b.isfinite()
    if not torch.equal(a[~usual].nan_to_num(), b[~usual].nan_to_num()):
        return float("inf")
    largest = torch.cat([a[usual], b[usual], a.new_zeros(1)]).abs().max()
    gap = (a[usual] - b[usual]).abs().max() if usual.any() else largest
    return float(gap / largest) / max(1e-4, 16 * torch.finfo(b.dtype).eps) if gap else 0.0


def tensors_of(out: Any) -> list[torch.Tensor]:
    """The numbers that a model returned."""
    parts = [out] if isinstance(out, torch.Tensor) else list(parts_of(out).values())
    return [part for part in parts if isinstance(part, torch.Tensor) and part.is_floating_point()]


def whole_inputs(arguments: Arguments) -> dict[str, torch.Tensor]:
    """Those that may be token ids."""
    return {name: v for name, v in arguments.values.items() if is_whole(v) and v.ndim > 0 and not is_fixed(name)}


def number_inputs(arguments: Arguments) -> dict[str, torch.Tensor]:
    """Those that hold numbers of their own."""
    return {name: v for name, v in arguments.values.items() if is_rows(v) and v.is_floating_point() and not is_fixed(name)}
