"""The second noun: the question. One number per input, and everything needed to ask for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from askwhy.errors import AskwhyError, ModelError, TargetError, near
from askwhy.models import wrap
from askwhy.models.base import Items, Model, contents, is_out_of_memory, show_shape
from askwhy.targets import Inside, check_layer, ending_at

Target = int | str | Callable[[Any], Any]


@dataclass(eq=False)
class Score:
    """`x [m, ...] -> [m]` for each item. A target of None becomes the predicted class at the first answer."""

    model: Model
    items: Items
    targets: list[int | Callable[[Any], Any] | None]
    versus: list[int | Callable[[Any], Any]] | None = None
    calls: int = 0  # inputs that the model was asked about
    started: float = field(default_factory=time.perf_counter)
    prediction: np.ndarray = field(default_factory=lambda: np.empty(0))  # [n]: the score of each item as it is

    single: bool = False  # whether the model gives one number, which is no class
    layer: Any = None  # in which the targets are; None for the output

    def __post_init__(self) -> None:
        self.prediction = np.full(len(self.items), np.nan)
        self.calls += self.items.calls
        self.layer = layer_of(self)

    def __len__(self) -> int:
        return len(self.items)

    def settle(self, outputs: Any, items: range) -> Any:
        """Read the items' own answers, one row each: choose open targets, note predictions; the scores [k], differentiable."""
        check_rows(outputs, len(items))
        self.single = tuple(getattr(outputs, "shape", ()))[1:] in ((), (1,))
        for row, i in enumerate(items):
            if self.targets[i] is None:
                check_scores(outputs, "None")
                self.targets[i] = int(outputs[row].argmax())
        scores = self.read(outputs, items)
        found = as_floats(scores)
        check_count(found, len(items))
        check_numbers(found, items)
        self.prediction[items.start : items.stop] = found
        return scores

    def read(self, outputs: Any, items: Sequence[int]) -> Any:
        """The scores [m] of outputs [m, ...], where row k belongs to item `items[k]`."""
        first = items[0]
        if all(self._question(i) == self._question(first) for i in items):
            return self._read(outputs, first)
        if not hasattr(outputs, "shape"):
            raise TargetError(
                f"the model returns a {type(outputs).__name__}, which cannot be split by item; ask with one target for all items, or one item at a time."
            )
        rows = [self._read(outputs[k : k + 1], i) for k, i in enumerate(items)]
        return sys.modules["torch"].cat(rows) if hasattr(outputs, "detach") else np.concatenate(rows)

    def _question(self, item: int) -> tuple[Any, Any]:
        return self.targets[item], None if self.versus is None else self.versus[item]

    def _read(self, outputs: Any, item: int) -> Any:
        target, versus = self._question(item)
        assert target is not None, "settle first"
        value = pick(outputs, target)
        return value if versus is None else value - pick(outputs, versus)

    def forward(self, batch: Any, owners: Sequence[int]) -> Any:
        """What the question is read from, for inputs of a torch model that belong to items `owners`, as the caller's grad mode has it."""
        model: Any = self.model
        return self._from(lambda: model.forward(batch, self.items.beside(owners)))

    def outputs(self, batch: Any, owners: Sequence[int]) -> Any:
        """The same of any model, without gradients."""
        return self._from(lambda: self.model.outputs(self.items, batch, owners))

    def engine(self, item: int, samples: Any, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
        """A faster way to the outputs for so many calls, with its name; None for the ordinary way."""
        if self.layer is None:
            return self.model.engine(self.items, item, samples, calls, precision)
        if precision != "float32":
            raise TargetError(f"precision={precision!r} and a target inside the network do not go together; leave precision out.")
        return None, "forward"

    def _from(self, run: Callable[[], Any]) -> Any:
        """The model's outputs, or what the layer gives that the targets are in."""
        model: Any = self.model
        return run() if self.layer is None else ending_at(model.net, self.layer, run)

    def predict(self) -> None:
        """Ask the model about the items themselves, so that targets and predictions are known."""
        if np.isnan(self.prediction).any():
            with self.model.untouched():
                for i in range(len(self)):
                    try:
                        out = self.outputs(self.items.batch[i : i + 1], [i])
                    except (RuntimeError, MemoryError) as error:
                        if isinstance(error, AskwhyError) or not is_out_of_memory(error):
                            raise
                        raise too_large() from error
                    self.calls += 1
                    self.settle(out, range(i, i + 1))

    def evaluate(self, batch: Any, item: int, engine: Callable[[Any], Any] | None = None) -> np.ndarray:
        """float64 [m]: the scores of perturbed inputs [m, ...] of one item. Raises ModelError on NaN."""
        out = engine(batch) if engine else self.outputs(batch, [item] * len(batch))
        self.calls += len(batch)
        check_rows(out, len(batch))
        values = as_floats(self._read(out, item))
        check_count(values, len(batch))
        check_numbers(values, range(item, item + 1), "a perturbed input of ")
        return values

    def name(self, target: int | Callable[[Any], Any] | None) -> str:
        """The label of a target, "class 3" without labels, or the function's name."""
        if target is None:
            return "the predicted class"
        if callable(target):
            return getattr(target, "__name__", type(target).__name__)
        labels = self.model.labels
        if self.single and not labels:
            return "the score"
        return labels[target] if labels and target < len(labels) else f"class {target}"


def too_large() -> ModelError:
    return ModelError("memory ran out on a single input; use a smaller input or model, or a machine with more memory.")


def ask(model: Any, x: Any, target: Any = None, versus: Any = None) -> Score:
    """The question that every method begins with: wrap the model, prepare x, resolve the target.

    target: None (the predicted class), an index, a label, one of these per item, or a function `outputs -> [m]`.
    versus: a second target that is subtracted. Raises TargetError, InputError, ModelError.
    """
    model = wrap(model)
    items = model.prepare(x)
    targets = one_per_item(target, len(items), model.labels, "target")
    others = None if versus is None else one_per_item(versus, len(items), model.labels, "versus")
    return Score(model, items, targets, others)  # type: ignore[arg-type]


def one_per_item(target: Any, n: int, labels: Sequence[str] | None, what: str) -> list[Any]:
    """Repeat one target for all items, or check a list of them."""
    if isinstance(target, np.ndarray) or (hasattr(target, "tolist") and not callable(target)):
        target = target.tolist()
    if isinstance(target, (list, tuple)):
        if len(target) != n:
            raise TargetError(f"{what}= has {len(target)} entries for {n} items; give one per item, or a single one.")
        return [resolve(t, labels, what) for t in target]
    return [resolve(target, labels, what)] * n


def layer_of(score: Score) -> str | None:
    """The one layer that the targets are in, which they name from now on; None for the model's output. Raises TargetError, LayerError."""
    model: Any = score.model
    asked: list[Any] = [*score.targets, *(score.versus or [])]
    if not any(isinstance(target, Inside) for target in asked):
        return None
    if "layers" not in model.offers:
        raise TargetError("a target inside the network needs its layers, and this model offers predictions only; give the torch module itself.")
    if model.seed is not None:
        raise TargetError("a target inside the network and wrap(seed=...) do not go together; ask about a network that draws no random numbers.")
    asked = [target.named(model.net) if isinstance(target, Inside) else target for target in asked]
    layers: list[Any] = list(dict.fromkeys(target.layer if isinstance(target, Inside) else None for target in asked))
    if len(layers) > 1:
        places = ", ".join("the output" if one is None else repr(one) for one in layers)
        raise TargetError(f"the targets are in different places ({places}); ask about one layer at a time.")
    score.targets, score.versus = asked[: len(score.targets)], None if score.versus is None else asked[len(score.targets) :]
    layer: str = layers[0]
    look_at_layer(score, model, layer)
    return layer


def look_at_layer(score: Score, model: Any, layer: str) -> None:
    """The layer has to run once in a forward pass, which is seen once."""
    key = "checked layer", layer, tuple(score.items.batch.shape[1:])
    if key not in model.memory:
        with model.untouched():
            check_layer(model.net, layer, lambda: model.outputs(score.items, score.items.batch[:1], [0]))
        model.memory[key] = True


def resolve(target: Any, labels: Sequence[str] | None, what: str) -> Any:
    """A label becomes its index; None, indices and functions stay."""
    if isinstance(target, str):
        return find_label(target, labels, what)
    if isinstance(target, (bool, np.bool_)) or not (target is None or callable(target) or isinstance(target, (int, np.integer))):
        raise TargetError(f"{what}={target!r} is a {type(target).__name__}; give an index, a label, or a function of the model's output.")
    if isinstance(target, np.integer):
        return int(target)
    if isinstance(target, int) and target < 0:
        raise TargetError(f"{what}={target}: classes are counted from 0.")
    return target


def find_label(name: str, labels: Sequence[str] | None, what: str) -> int:
    """The index of a label; an exact match first, then without regard to case."""
    if labels is None:
        raise TargetError(f"{what}={name!r}: this model has no labels; give an index, or wrap(model, labels=[...]).")
    found = [i for i, label in enumerate(labels) if label == name] or [i for i, label in enumerate(labels) if label.lower() == name.lower()]
    if len(found) > 1:
        raise TargetError(f"{what}={name!r} names the classes {found}; give the index of the one you mean.")
    if not found:
        raise TargetError(f"{what}={name!r} is no class of this model; {near(name, list(labels))}")
    return found[0]


def pick(outputs: Any, target: int | Callable[[Any], Any]) -> Any:
    """One number per row of the outputs."""
    if callable(target):
        try:
            value = target(outputs)
        except (LookupError, TypeError, AttributeError) as error:
            raise TargetError(
                f"the target {getattr(target, '__name__', target)!r} failed on what the model gives, {contents(outputs)}: {error}. "
                "wrap(model, output=...) says what of the outputs it is to read; output=lambda out: out means all of them."
            ) from error
        shape = getattr(value, "shape", None)
        rows = len(outputs) if hasattr(outputs, "shape") else None
        if shape is None or len(shape) != 1 or (rows is not None and shape[0] != rows):
            raise TargetError(
                f"the target {getattr(target, '__name__', target)!r} returned {show_shape(value) if shape is not None else type(value).__name__}; it has to return one number per input, [{rows or 'm'}]."
            )
        return value
    check_scores(outputs, str(target))
    if target >= outputs.shape[1]:
        raise TargetError(f"target={target}: the model has {outputs.shape[1]} outputs, 0 to {outputs.shape[1] - 1}.")
    return outputs[:, target]


def check_scores(outputs: Any, target: str) -> None:
    """An index needs scores [m, k]."""
    if not hasattr(outputs, "shape") or len(outputs.shape) not in (1, 2):
        got = show_shape(outputs) if hasattr(outputs, "shape") else f"a {type(outputs).__name__}"
        raise TargetError(
            f"target={target} needs scores [n, classes], but the model returns {got}; wrap(model, output=...) chooses among several outputs, or give a function as the target."
        )


def check_rows(outputs: Any, rows: int) -> None:
    """The model answers once for each input."""
    if hasattr(outputs, "shape") and (len(outputs.shape) == 0 or outputs.shape[0] != rows):
        raise ModelError(
            f"the model answered {rows} inputs with an output of shape {show_shape(outputs)}; the first axis has to count the inputs (a single item is x[None])."
        )


def check_count(values: np.ndarray, rows: int) -> None:
    """A function that reads a structured output has to give one number for each input too."""
    if values.shape != (rows,):
        raise TargetError(
            f"the target returned numbers of shape {list(values.shape)} for {rows} inputs; it has to return one number per input, [{rows}]."
        )


def check_numbers(values: np.ndarray, items: range, where: str = "") -> None:
    """Refuse to explain NaN or infinity."""
    bad = ~np.isfinite(values)
    if bad.any():
        k = int(bad.argmax())
        raise ModelError(
            f"the model's score is {values[k]} on {where}item {items[min(k, len(items) - 1)]}; an explanation of it would mean nothing. Check the input's scale and the weights."
        )


def as_floats(values: Any) -> np.ndarray:
    """float64, from any library and device."""
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the model returned {np.asarray(values).dtype} and not numbers; for a classifier use predict_proba, or return scores."
        ) from error
