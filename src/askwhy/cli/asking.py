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
USUAL = {"photo": DEMO_METHODS, "text": "occlusion,lime,shapley", "row": "auto,lime", "table": "auto"}


SCALES = ("raw", "probability")


@dataclass(frozen=True)
class Question:
    """What is asked about each item."""

    methods: Sequence[str]
    target: Any = None
    versus: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)  # for the methods that have them: seed, samples
    compared: bool = False  # whether the rows to compare with were named

    def of(self, method: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a method has, with those of an item. Trees know their training data, and are asked about other rows on request."""
        known = parameters_of(method)
        found = {k: v for k, v in {**self.options, **own}.items() if k in known}
        return found if self.compares(method) else {k: v for k, v in found.items() if k != "background"}

    def compares(self, method: str) -> bool:
        """Whether a method is given rows to compare with."""
        from askwhy.registry import find

        return "background" in parameters_of(method) and (self.compared or find(method).needs != "trees")


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

    if "auto" not in question.methods:
        return question
    chosen = choose(model, model.prepare(item.x), item.options).name
    note(f"askwhy: the method is {chosen}")
    names = list(dict.fromkeys(chosen if name == "auto" else name for name in question.methods))
    check_options(names, question.options)
    return replace(question, methods=names)


def check_options(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Raises InputError for what no method has."""
    if options.get("output", "raw") not in SCALES:
        raise InputError(f"--output {options['output']}: choose one of {', '.join(SCALES)}.")
    for option in options:
        if option != "seed" and "auto" not in names and not any(option in parameters_of(name) for name in names):
            raise InputError(f"--{option}: {' and '.join(names)} {'has' if len(names) == 1 else 'have'} no such option; leave it out.")


def as_class(text: str | None) -> Any:
    """A class number is typed as text; anything else is a label."""
    return int(text) if text is not None and text.isdigit() else text


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
        options = question.of(method, item.options)
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
