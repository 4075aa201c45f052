"""`explain` and `compare`: ask by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from askwhy.errors import InputError, LayerError, UnsupportedError, near
from askwhy.explanation import Explanation
from askwhy.models import wrap
from askwhy.models.base import Items, Model
from askwhy.registry import Method, find, methods


def explain(model: Any, x: Any, method: str = "auto", target: Any = None, **options: Any) -> Explanation:
    """Explain by a method's name; `options` are the method's own.

    "auto" takes, of the methods that the model and the input allow, the one with the highest `preference` in
    `askwhy.methods()`; the result names it. Raises InputError for an unknown method or option.
    Example: `askwhy.explain(model, photo, method="lime", target="tiger cat", samples=500)`.
    """
    model = wrap(model)
    chosen = choose(model, model.prepare(x), options) if method == "auto" else find(method)
    check_fit(chosen, model)
    known = inspect.signature(chosen.function).parameters
    for option in options:
        if option not in known:
            raise InputError(f"{chosen.name} has no option {option!r}; {near(option, [k for k in known if k not in ('model', 'x')])}")
    for needed in lacking(chosen):
        if needed not in options:
            raise InputError(f"{chosen.name} needs {needed}=; askwhy.{chosen.name} says what it is.")
    return chosen.function(model, x, target, **options)


def lacking(method: Method) -> list[str]:
    """The options without a default."""
    parameters = inspect.signature(method.function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def compare(model: Any, x: Any, methods: Sequence[str] | None = None, target: Any = None, **options: Any) -> list[Explanation]:
    """The same question to several methods, in order. Each gets the options that it has.

    methods: None means all that fit; one that refuses this very model is then left out with a warning that says why.
    Example: `for why in askwhy.compare(model, photo, ["occlusion", "grad_cam"]): why.plot()`.
    """
    model = wrap(model)
    names = list(methods) if methods is not None else [m.name for m in fitting(model, model.prepare(x)) if set(lacking(m)) <= options.keys()]
    chosen = [find(name) for name in names]
    taken = {m.name: set(inspect.signature(m.function).parameters) for m in chosen}
    for option in options:
        if not any(option in parameters for parameters in taken.values()):
            raise InputError(f"none of {', '.join(names)} has an option {option!r}.")
    found = []
    for m in chosen:
        try:
            found.append(explain(model, x, m.name, target, **{k: v for k, v in options.items() if k in taken[m.name]}))
        except (UnsupportedError, LayerError) as error:
            if methods is not None:
                raise
            warnings.warn(f"compare left out {m.name}: {error}", stacklevel=2)
    return found


def fitting(model: Model, items: Items) -> list[Method]:
    """The methods that this model and this kind of input allow."""
    return [m for m in methods() if m.needs in model.offers and items.kind in m.inputs]


def choose(model: Model, items: Items, options: Mapping[str, Any]) -> Method:
    """The preferred one among the fitting methods; of a table without background rows, one that needs none, if there is any."""
    found = fitting(model, items)
    if items.kind == "table" and not {"background", "baseline"} & options.keys():
        found = [m for m in found if m.needs != "predictions"] or found
    if not found:
        raise UnsupportedError(
            f"no method explains an input of shape {list(items.batch.shape)} to a model that offers {', '.join(sorted(model.offers))}."
        )
    return max((m for m in found if not lacking(m)), key=lambda m: m.preferred(items.kind))


def check_fit(method: Method, model: Model) -> None:
    """Say what a method lacks before it fails somewhere inside."""
    if method.needs not in model.offers:
        able = [m.name for m in methods() if m.needs in model.offers]
        raise UnsupportedError(
            f"{method.name} needs the model's {method.needs}, but this model offers only {', '.join(sorted(model.offers))}; {', '.join(able)} need no more."
        )
