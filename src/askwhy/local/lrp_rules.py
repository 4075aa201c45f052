"""The rules of layer-wise relevance propagation, as values: how a linear layer divides the relevance that it receives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.local.propagate import Linear

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Part = Callable[[Any], Any]  # x -> the part of it that counts


@dataclass(frozen=True)
class Share:
    """A part of the relevance, divided in proportion to sum_t part_t(x) W_t, of the outputs where `when` holds."""

    terms: tuple[tuple[Part, torch.Tensor], ...]
    bias: torch.Tensor | None
    weight: float = 1.0
    whole: bool = False  # the sum is the output itself
    when: Callable[[Any], Any] | None = None
    at_input: bool = False  # not in proportion to x: only for the first layer


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def plus(x: torch.Tensor | None) -> Any:
    return None if x is None else x.clamp(min=0)


def minus(x: torch.Tensor | None) -> Any:
    return None if x is None else x.clamp(max=0)


def scaled(a: torch.Tensor | None, b: torch.Tensor | None, factor: float) -> Any:
    return None if a is None or b is None else a + factor * b


def epsilon(w: Any, b: Any, box: Any) -> list[Share]:
    return [Share(((same, w),), b, whole=True)]


def gamma(w: Any, b: Any, box: Any, g: float = 0.25) -> list[Share]:
    """Montavon et al. 2019, with the same favour for what agrees in sign with a negative output."""
    up, down = w + g * plus(w), w + g * minus(w)
    return [
        Share(((plus, up), (minus, down)), scaled(b, plus(b), g), when=lambda z: z > 0),
        Share(((plus, down), (minus, up)), scaled(b, minus(b), g), when=lambda z: z < 0),
    ]


def alpha_beta(w: Any, b: Any, box: Any, alpha: float = 2.0) -> list[Share]:
    """alpha times the contributions that raise the output, less alpha - 1 times those that lower it."""
    raising = Share(((plus, plus(w)), (minus, minus(w))), plus(b), alpha)
    lowering = Share(((plus, minus(w)), (minus, plus(w))), minus(b), 1 - alpha)
    return [raising, lowering] if alpha != 1 else [raising]


def flat(w: Any, b: Any, box: Any) -> list[Share]:
    return [Share(((torch.ones_like, torch.ones_like(w)),), None, at_input=True)]


def in_box(w: Any, b: Any, box: Any) -> list[Share]:
    """Montavon et al. 2017: x W - low W+ - high W-."""
    low, high = box
    return [Share(((same, w), (lambda x: -low.expand_as(x), plus(w)), (lambda x: -high.expand_as(x), minus(w))), b, at_input=True)]


Divide = Callable[[Any, Any, Any], list[Share]]
RULES: dict[str, Callable[..., list[Share]]] = {
    "epsilon": epsilon,
    "gamma": gamma,
    "alpha-beta": alpha_beta,
    "z-plus": partial(alpha_beta, alpha=1.0),
    "alpha2-beta1": alpha_beta,
    "flat": flat,
    "box": in_box,
}
STABILIZER = 1e-6


@dataclass(frozen=True)
class Choice:
    """A rule with its parameter."""

    name: str
    divide: Divide
    stabilizer: float = STABILIZER


@dataclass(frozen=True)
class Plan:
    """Which rule a linear operation gets: by the layer's name, being first, being a convolution, or dense."""

    dense: Choice
    convolution: Choice
    first: Choice | None = None
    layers: Mapping[str, Choice] = field(default_factory=dict)

    def choose(self, running: list[str], linear: Linear, first: bool) -> Choice:
        named = next((self.layers[name] for name in reversed(running) if name in self.layers), None)
        if named is not None:
            return named
        return self.first if first and self.first is not None else self.dense if linear.dense else self.convolution


def choice(text: str) -> Choice:
    """ "gamma(0.1)" -> the rule. Raises InputError."""
    found = re.fullmatch(r"\s*([a-z0-9-]+)\s*(?:\(\s*([0-9.eE+-]+)\s*\))?\s*", text)
    name, number = found.groups() if found else (text, None)
    if name not in RULES or (number is not None and name not in ("epsilon", "gamma", "alpha-beta")):
        raise InputError(f"rule={text!r}: choose {', '.join(RULES)}, with a number as in 'gamma(0.1)', or a composite: {', '.join(COMPOSITES)}.")
    if name == "epsilon":
        return Choice(name, epsilon, float(number) if number else STABILIZER)
    return Choice(
        text, partial(RULES[name], **{"gamma": {"g": float(number)}, "alpha-beta": {"alpha": float(number)}}[name]) if number else RULES[name]
    )


COMPOSITES = {  # dense, convolution, first
    "epsilon-plus": ("epsilon", "z-plus", None),
    "epsilon-plus-flat": ("epsilon", "z-plus", "flat"),
    "epsilon-gamma-box": ("epsilon", "gamma", "box"),
    "alpha2-beta1-flat": ("epsilon", "alpha2-beta1", "flat"),
}


def read_plan(rule: str | Mapping[str, str]) -> Plan:
    """A composite's name, one rule for all, or a rule for each layer."""
    if isinstance(rule, str):
        dense, convolution, first = COMPOSITES.get(rule, (rule, rule, None))
        return Plan(choice(dense), choice(convolution), None if first is None else choice(first))
    if not isinstance(rule, Mapping):
        raise InputError(f"rule={rule!r}: give a name, or a dict from layer names to rules.")
    rest = read_plan(rule.get("", "epsilon"))
    return Plan(rest.dense, rest.convolution, rest.first, {name: choice(text) for name, text in rule.items() if name})
