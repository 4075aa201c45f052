"""Every method, with the field's classification. Written once at the method, read everywhere."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, ParamSpec

import numpy as np

from askwhy.errors import InputError, near
from askwhy.explanation import Explanation

P = ParamSpec("P")
Need = Literal["predictions", "gradients", "layers", "trees", "path", "coefficients"]
SCORE, SLOPE = "score units", "score units per unit of input"
HIDDEN = ("model", "x", "target", "versus", "progress")


@dataclass(frozen=True)
class Method:
    """One way to ask. `needs` says what the model has to offer, `inputs` what it can look at."""

    name: str
    title: str  # as the literature writes it
    question: str
    needs: Need
    inputs: tuple[str, ...]  # of "image", "table", "text", "several", "other"
    asks: str  # a sentence for people who do not know the field
    reads: str  # how to read the values
    unit: str  # of the values
    signed: bool  # whether values can speak against the target
    scope: Literal["local", "global"]
    when: Literal["post hoc", "intrinsic"]
    paper: str
    preference: int | Mapping[str, int]  # explain(method="auto") takes the highest that fits; by the kind of input where that matters
    function: Callable[..., Explanation]

    def preferred(self, kind: str) -> int:
        """How much this method is preferred for such an input."""
        return self.preference if isinstance(self.preference, int) else self.preference.get(kind, 0)

    @property
    def access(self) -> str:
        """ "model-agnostic" when predictions are enough, else "model-specific"."""
        return "model-agnostic" if self.needs == "predictions" else "model-specific"

    def __repr__(self) -> str:
        return f"{self.name}: {self.question} ({self.scope}, {self.when}, {self.access}; needs {self.needs}; {', '.join(self.inputs)})"


_METHODS: dict[str, Method] = {}


class Methods(tuple[Method, ...]):
    """A tuple of methods that prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [("name", "question", "scope", "when", "access", "needs", "inputs")]
        rows += [(m.name, m.question, m.scope, m.when, m.access, m.needs, ", ".join(m.inputs)) for m in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def method(
    *,
    title: str,
    needs: Need,
    inputs: tuple[str, ...],
    asks: str,
    reads: str,
    paper: str,
    unit: str = SCORE,
    signed: bool = True,
    preference: int | Mapping[str, int] = 0,
    question: str = "Why do you think this is a cat?",
    scope: Literal["local", "global"] = "local",
    when: Literal["post hoc", "intrinsic"] = "post hoc",
) -> Callable[[Callable[P, Explanation]], Callable[P, Explanation]]:
    """Register a function `(model, x, target=None, *, ...) -> Explanation` under its name."""

    def register(function: Callable[P, Explanation]) -> Callable[P, Explanation]:
        name, recorded = function.__name__, record_params(function, unit)
        _METHODS[name] = Method(name, title, question, needs, inputs, asks, reads, unit, signed, scope, when, paper, preference, recorded)
        return recorded

    return register


def record_params(function: Callable[P, Explanation], unit: str) -> Callable[P, Explanation]:
    """Let a method's result carry its name and every parameter, defaults included."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Explanation:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {k: plain(v) for k, v in bound.arguments.items() if k not in HIDDEN}
        why = function(*args, **kwargs)
        own = why.unit if why.unit != SCORE else unit  # where it depends on the question
        return replace(why, method=function.__name__, unit=own, params={**given, **why.params}, seed=given.get("seed"))

    return call


def plain(value: Any) -> Any:
    """A parameter as JSON can hold it: numbers and text as they are, the rest as its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"array {list(value.shape)}"
    if hasattr(value, "columns"):
        return f"table {list(value.shape)}"
    return getattr(value, "text", None) or getattr(value, "__name__", None) or type(value).__name__


def methods() -> Methods:
    """All methods: name, question, needs, inputs and the field's classification. Example: `print(askwhy.methods())`."""
    import askwhy.local

    for module in pkgutil.iter_modules(askwhy.local.__path__):
        importlib.import_module(f"askwhy.local.{module.name}")
    return Methods(sorted(_METHODS.values(), key=lambda m: (m.needs != "predictions", m.needs, m.name)))


def find(name: str) -> Method:
    """A method by name. Raises InputError with near names."""
    known = {m.name: m for m in methods()}
    if name not in known:
        raise InputError(f"method={name!r} is not known; {near(name, list(known))}")
    return known[name]
