"""From several inputs, token ids or texts to items: what is explained, and what stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.models.arguments import Arguments, Part, is_rows, number_inputs, whole_inputs
from askwhy.models.base import Items, check_finite, to_numpy
from askwhy.models.lookup import Lookup, find_lookups
from askwhy.models.pictures import from_values
from askwhy.reading import Reading

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Found = Mapping[str, Sequence[tuple[Lookup, "torch.Tensor"]]]


def items_of(
    net: torch.nn.Module, arguments: Arguments, readings: Mapping[str, Sequence[Reading]] | None = None, absent_ids: Mapping[str, int] | None = None
) -> Items | None:
    """The items of these arguments: every input of numbers, and every one that the model looks up in an embedding, is explained; None if none is."""
    ids = whole_inputs(arguments)
    probe = arguments.rows(range(len(next(v for v in arguments.values.values() if is_rows(v)))))  # a copy, since the model may write into it
    found = find_lookups(whole_inputs(probe), lambda: probe.passed(net, probe.values)) if ids else {}
    parts: list[Part] = []
    pieces: list[torch.Tensor] = []
    for name in arguments.values:
        if name in found:
            part, piece = tokens(name, ids[name], found[name], (readings or {}).get(name), absent_ids or {})
        elif name in number_inputs(arguments):
            part, piece = numbers(name, arguments.values[name])
        else:
            continue
        parts.append(replace(part, start=sum(p.size for p in parts)))
        pieces.append(piece)
    if not parts:
        return None
    n = len(pieces[0])
    batch = pieces[0] if len(pieces) == 1 else torch.cat([piece.reshape(n, -1) for piece in pieces], 1)
    pictures = parts[0].pictures if len(parts) == 1 and parts[0].pictures else (None,) * n
    return Items(batch, pictures, (None,) * n, arguments=replace(arguments, parts=tuple(parts)), calls=n if ids else 0)


def numbers(name: str, x: torch.Tensor) -> tuple[Part, torch.Tensor]:
    """An input that is explained as it is."""
    check_finite(x, f"{name} of item")
    shape = tuple(x.shape[1:])
    pictures = tuple(from_values(to_numpy(one)) for one in x) if x.ndim == 4 else ()
    return Part(name, shape, shape, pictures=pictures), x


def tokens(
    name: str, ids: torch.Tensor, found: Sequence[tuple[Lookup, torch.Tensor]], readings: Sequence[Reading] | None, absent_ids: Mapping[str, int]
) -> tuple[Part, torch.Tensor]:
    """An input that is explained through the vectors of its tokens [n, places, dim], or [n, numbers] where it is looked up several times."""
    places = tuple(ids.shape[1:]) or (1,)
    lookups = tuple(lookup for lookup, _ in found)
    owner = np.concatenate([np.repeat(lookup.places, lookup.size) for lookup in lookups])
    vectors = torch.cat([v.reshape(len(ids), -1) for _, v in found], 1).detach()
    shape = (*places, lookups[0].size) if len(lookups) == 1 and len(lookups[0].places) == np.prod(places) else (len(owner),)
    read = tuple(readings) if readings is not None else tuple(map(plain_reading, ids)) if len(places) == 1 else None
    return Part(name, shape, places, lookups=lookups, owner=owner, readings=read, absent_ids=absent_ids), vectors.reshape(len(ids), *shape)


def plain_reading(ids: torch.Tensor) -> Reading:
    """Tokens whose words are not known."""
    numbers = ids.reshape(-1).tolist()
    return Reading(tuple(f"token {k} (id {one})" for k, one in enumerate(numbers)), tuple(range(len(numbers))))


# ---- without them ---------------------------------------------------------------------------------------------------


def alone(items: Items, part: Part, i: int) -> Items:
    """One item's part of several, as items of their own."""
    own = next(own for one, own in items.arguments.pieces(items.batch[i : i + 1]) if one is part)
    pictures = part.pictures[i : i + 1] or (None,)
    return Items(own, pictures, (None,))


WITHOUT = ("auto", "pad", "mask", "zero")


def without_tokens(items: Items, part: Part, i: int, baseline: Any) -> tuple[np.ndarray, str]:
    """The vectors [k, *part.shape] of a text that says nothing, and what that is.

    baseline: "pad", "mask" (that token in every place but those of special tokens), "zero" (vectors of zeros), "auto"
    (pad where it is known, else zero), one id for all, ids [places] or [k, places], or vectors shaped like the part's.
    """
    ids = items.arguments.values[part.name][i].reshape(part.places)
    own = next(own for one, own in items.arguments.pieces(items.batch[i : i + 1]) if one is part)
    if isinstance(baseline, str):
        return of_name(part, ids, own, i, baseline)
    given = baseline if hasattr(baseline, "detach") else torch.as_tensor(np.asarray(baseline))
    given = given.to(ids.device)
    if given.ndim == 0 and not given.is_floating_point():
        given = given.expand(part.places)
    if given.is_floating_point() and tuple(given.shape[-len(part.shape) :]) == part.shape:
        return to_numpy(given.reshape(-1, *part.shape)), f"given vectors {list(part.shape)}"
    if given.is_floating_point() or given.dtype is torch.bool or tuple(given.shape[-len(part.places) :]) != part.places:
        shape = list(given.shape)
        raise InputError(
            f"the baseline of {part.name} is {given.dtype} {shape}; give one of {', '.join(map(repr, WITHOUT))}, or ids {list(part.places)}."
        )
    rows = given.reshape(-1, *part.places)
    return vectors_of(part, rows), "given ids" if len(rows) == 1 else f"{len(rows)} background rows"


def of_name(part: Part, ids: torch.Tensor, own: torch.Tensor, i: int, name: str) -> tuple[np.ndarray, str]:
    """The special tokens stay, since they only say where a text begins and ends."""
    if name not in WITHOUT:
        raise InputError(
            f"baseline={name!r} means nothing for {part.name}; choose one of {', '.join(map(repr, WITHOUT))}, or give ids {list(part.places)}."
        )
    known = part.absent_ids if all(lookup.look is not None for lookup in part.lookups) else {}
    if name == "auto":
        name = "pad" if "pad" in known else "zero"
    if name == "zero":
        empty = np.zeros((1, *part.shape), to_numpy(own).dtype)
    elif name in known:
        empty = vectors_of(part, torch.full_like(ids, known[name])[None])
    else:
        raise InputError(f"baseline={name!r}: no {name} token of {part.name} is known; wrap(net, tokenizer=...) tells, or give its ids, or 'zero'.")
    special = [place for place, mark in zip(part.readings[i].places, part.readings[i].special, strict=False) if mark] if part.readings else []
    kept = np.isin(np.asarray(part.owner), special).reshape(part.shape)
    return np.where(kept, to_numpy(own), empty), name


def vectors_of(part: Part, ids: torch.Tensor) -> np.ndarray:
    """ids [k, *places] -> what the model looks up for them, [k, *part.shape]."""
    if any(lookup.look is None for lookup in part.lookups):
        raise InputError(f"the model changes {part.name} before it looks it up, so other ids cannot be put in its place; give vectors, or 'zero'.")
    flat = ids.reshape(len(ids), -1)
    with torch.no_grad():
        try:
            found = [lookup.look(flat[:, lookup.places]).reshape(len(ids), -1) for lookup in part.lookups]  # type: ignore[misc]
        except (IndexError, RuntimeError) as error:
            raise InputError(f"the baseline's ids {ids.min()} to {ids.max()} do not fit the model's embedding: {error}.") from error
    return to_numpy(torch.cat(found, 1)).reshape(len(ids), *part.shape)
