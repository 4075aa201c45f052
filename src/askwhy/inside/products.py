"""What a product of two tensors is in attention: queries with keys, or weights with values; followed from the projections on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

PROJECTIONS = frozenset({"linear", "conv1d", "conv2d", "addmm", "baddbmm", "bilinear"})
PRODUCTS = frozenset({"matmul", "einsum"})


class Pairs:
    """By tensor: which tokens it was projected from, and which two a product of queries and keys was made of.

    So self-attention is told from cross-attention of equal length. Nothing is kept alive.
    """

    def __init__(self) -> None:
        from torch.utils.weak import WeakIdKeyDictionary

        self.number: Any = WeakIdKeyDictionary()  # a name for each tensor that something was projected from
        self.origin: Any = WeakIdKeyDictionary()
        self.pair: Any = WeakIdKeyDictionary()
        self.weights: Any = WeakIdKeyDictionary()  # softmaxes, and what was carried from them
        self.loose: dict[int, tuple[str, tuple[int, ...]]] = {}  # softmaxes that look like attention, and met no values yet
        self.met: set[int] = set()
        self.count = 0

    def name(self, t: torch.Tensor) -> int:
        if t not in self.number:
            self.count += 1
            self.number[t] = self.count
        return int(self.number[t])

    def of(self, query: torch.Tensor, key: torch.Tensor) -> tuple[int, int] | None:
        """The tokens behind queries and keys; None where one of them is not known."""
        found = self.origin.get(query), self.origin.get(key)
        return None if None in found else found

    def begin(self, logits: torch.Tensor, out: torch.Tensor, axis: Any, layer: str) -> None:
        self.count += 1
        self.weights[out] = self.count
        if logits in self.pair:
            self.pair[out] = self.pair[logits]
        if out.ndim >= 3 and axis in (-1, out.ndim - 1) and out.shape[-1] == out.shape[-2] > 1:
            self.loose[self.count] = layer, tuple(out.shape)

    def is_weights(self, t: torch.Tensor) -> bool:
        return t in self.weights

    def used(self, weights: torch.Tensor) -> tuple[int, int] | None:
        """These weights have met their values. Raises UnsupportedError where they had met others before."""
        number = self.weights[weights]
        if number in self.met:
            raise UnsupportedError("one softmax weighs two sets of values, which has no one attention matrix; use occlusion, lrp or saliency.")
        self.met.add(number)
        self.loose.pop(number, None)
        return self.pair.get(weights)  # type: ignore[no-any-return]

    def follow(self, key: str, given: Sequence[torch.Tensor], outs: Sequence[torch.Tensor], carries: bool) -> None:
        """Where the outputs of an operation come from."""
        if not given:
            return
        flowing = [t for t in given if t.requires_grad]
        if key in PROJECTIONS or (key in PRODUCTS and len(flowing) == 1 < len(given)):
            from_one = self.name(flowing[0] if flowing else given[0])
            for out in outs:
                self.origin[out] = from_one
        elif key in PRODUCTS and len(given) == 2:
            pair = self.of(*given)
            if pair is not None and not any(map(self.is_weights, given)):
                for out in outs:
                    self.pair[out] = pair
        else:
            self.inherit(given, outs, carries)

    def inherit(self, given: Sequence[torch.Tensor], outs: Sequence[torch.Tensor], carries: bool) -> None:
        for table in (self.origin, self.pair, *([self.weights] if carries else [])):
            known = next((table[t] for t in given if t in table), None)
            if known is not None:
                for out in outs:
                    table[out] = known


def tensors_of(args: Any) -> list[torch.Tensor]:
    """The tensors among the arguments, in their order."""
    if isinstance(args, torch.Tensor):
        return [args]
    if isinstance(args, dict):
        args = args.values()
    elif not isinstance(args, (list, tuple)):
        return []
    return [t for one in args for t in tensors_of(one)]


def order_of(key: str, args: Any, operands: Sequence[torch.Tensor], which: int) -> list[int] | None:
    """How the axes of operand `which` become [..., queries, keys], keys being what the product sums over; None for another product."""
    if key == "matmul" and min(t.ndim for t in operands) >= 2:
        axes = list(range(operands[which].ndim))
        return axes if which == 0 else [*axes[:-2], axes[-1], axes[-2]]
    if key == "einsum" and isinstance(args[0], str) and "->" in args[0]:
        return order_of_letters(args[0].replace(" ", ""), [t.ndim for t in operands], which)
    return None


def order_of_letters(equation: str, dims: Sequence[int], which: int) -> list[int] | None:
    """The same for einsum, as "bhqk,bhkd->bhqd"."""
    inputs, out = equation.split("->")
    given = inputs.split(",")
    extra = ["ABCDEFGH"[8 - (dim - len(letters) + 3) :] if "..." in letters else "" for letters, dim in zip(given, dims, strict=True)]
    own, other = (given[k].replace("...", extra[k]) for k in (which, 1 - which))
    out = out.replace("...", max(extra, key=len))
    keys = [letter for letter in own if letter in other and letter not in out]
    queries = [letter for letter in own if letter not in other and letter in out]
    rest = [letter for letter in own if letter in other and letter in out]
    if len(keys) != 1 or len(queries) != 1 or len(rest) + 2 != len(own):
        return None
    return [own.index(letter) for letter in (*rest, *queries, *keys)]
