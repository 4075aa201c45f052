"""Every method about every item."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from askwhy.cli.given import Item
from askwhy.cli.said import Begin, note
from askwhy.errors import InputError, LayerError, ModelError, UnsupportedError

if TYPE_CHECKING:
    from askwhy.models.base import Model
    from askwhy.report import Case

DEMO_METHODS = "occlusion,lime,smooth_grad,grad_cam,guided_backprop"
USUAL = {"photo": DEMO_METHODS, "text": "occlusion,lime,shapley", "row": "shapley,lime"}


@dataclass(frozen=True)
class Question:
    """What is asked about each item."""

    methods: Sequence[str]
    target: Any = None
    versus: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)  # for the methods that have them: seed, samples


def method_names(named: str | None, kind: str) -> list[str]:
    """Raises InputError for what is no method."""
    from askwhy.registry import find

    names = [name.strip() for name in (USUAL[kind] if named is None else named).split(",") if name.strip()]
    if not names:
        raise InputError("--method names no method; see: askwhy methods")
    for name in names:
        if name != "auto":
            find(name)
    return names


def fitted(question: Question, model: Model, item: Item) -> Question:
    """The same with a name for "auto"."""
    from askwhy.ask import choose

    return replace(
        question, methods=[choose(model, model.prepare(item.x), item.options).name if name == "auto" else name for name in question.methods]
    )


def check_options(names: Sequence[str], options: Mapping[str, Any]) -> None:
    for option in options:
        if option != "seed" and "auto" not in names and not any(option in parameters_of(name) for name in names):
            raise InputError(f"--{option}: {' and '.join(names)} {'has' if len(names) == 1 else 'have'} no such option; leave it out.")


def parameters_of(method: str) -> set[str]:
    from askwhy.registry import find

    return set(inspect.signature(find(method).function).parameters)


def ask_all(model: Model, item: Item, question: Question, begin: Begin) -> Case:
    """All methods about one item; a method that refuses is noted, and the others go on."""
    from askwhy.ask import explain as ask_by_name

    explanations, refused = [], []
    try:
        top = top_classes(model, item.x)
    except ModelError as error:
        note(f"askwhy: {item.name}: {error}")
        return item.case([], [], [(method, str(error)) for method in question.methods])
    for method in question.methods:
        options = {k: v for k, v in {**question.options, **item.options}.items() if k in parameters_of(method)}
        try:
            told = begin(f"{item.name}: {method}")
            explanations.append(ask_by_name(model, item.x, method, question.target, versus=question.versus, progress=told, **options))
        except (InputError, UnsupportedError, ModelError, LayerError) as error:
            refused.append((method, str(error)))
            note(f"askwhy: {item.name}: {method} refuses: {error}")
    return item.case(top, explanations, refused)


def top_classes(model: Model, x: Any, k: int = 5) -> list[tuple[str, float]]:
    """The k most probable classes. A model of logits gets a softmax; scores that are probabilities stay."""
    import numpy as np

    from askwhy.score import as_floats, ask

    score = ask(model, x)
    with model.untouched():
        outputs = as_floats(score.outputs(score.items.batch, [0]))[0]
    if outputs.ndim != 1 or len(outputs) < 2:
        return []
    if outputs.min() < 0 or abs(outputs.sum() - 1) > 1e-3:
        outputs = np.exp(outputs - outputs.max())
        outputs /= outputs.sum()
    return [(score.name(int(i)), float(outputs[i])) for i in np.argsort(-outputs, kind="stable")[:k]]
