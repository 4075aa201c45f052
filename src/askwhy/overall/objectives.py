"""What is to be raised: a class, a neuron, a direction, a whole layer, or a weighted sum of such aims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from askwhy.errors import TargetError
from askwhy.models.base import contents
from askwhy.models.torch_module import TorchModel
from askwhy.score import pick, resolve
from askwhy.targets import Inside

if TYPE_CHECKING:
    import torch

Scale = Callable[[Any], Any]


@dataclass(frozen=True)
class Aim:
    """A weighted sum of targets. Made by `askwhy.aim`; sums, differences and multiples of aims are aims."""

    terms: tuple[tuple[float, Any], ...]

    def __add__(self, other: Any) -> Aim:
        return Aim(self.terms + aim(other).terms)

    def __sub__(self, other: Any) -> Aim:
        return self + -1.0 * aim(other)

    def __mul__(self, weight: float) -> Aim:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            return NotImplemented
        return Aim(tuple((weight * one, target) for one, target in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Aim:
        return self * -1.0


def aim(target: Any) -> Aim:
    """A target that can be added to others: a class (index or label), `neuron`, `concept`, `energy`, or a function of the output.

    Example: `askwhy.activation_maximization(model, askwhy.aim("tiger cat") + 0.5 * askwhy.aim("lynx"))`.
    """
    if target is None:
        raise TargetError("aim(None): name the class, the neuron or the layer that is to be raised, as aim('tiger cat').")
    return target if isinstance(target, Aim) else Aim(((1.0, target),))


def energy(layer: Any) -> Inside:
    """The target "this whole layer": the mean square of what it gives, as DeepDream raises it (Mordvintsev et al. 2015).

    layer: a module or its name. Example: `askwhy.activation_maximization(model, askwhy.energy("layer3"))`.
    """
    return Inside(layer, lambda out: out.square().flatten(1).mean(1), "energy")


def aims_of(model: TorchModel, target: Any, versus: Any) -> list[Aim]:
    """One aim for each target, with labels as indices and modules by name. Raises TargetError, LayerError."""
    target = plain(target)
    targets = [plain(one) for one in target] if isinstance(target, (list, tuple, range)) else [target]
    if not targets or any(one is None for one in targets):
        raise TargetError("target= is missing: name the class, the neuron or the layer whose picture is sought, as target='tiger cat'.")
    aims = [aim(one) if versus is None else aim(one) - aim(versus) for one in targets]
    return [Aim(tuple((weight, found(model, one)) for weight, one in one_aim.terms)) for one_aim in aims]


def plain(target: Any) -> Any:
    """Numbers of numpy and torch as Python's own; anything else as it is."""
    return target.tolist() if hasattr(target, "tolist") else target


def found(model: TorchModel, target: Any) -> Any:
    return target.named(model.net) if isinstance(target, Inside) else resolve(plain(target), model.labels, "target")


def named(model: TorchModel, one: Aim) -> str:
    """ "tiger cat", or "tiger cat + 0.5 lynx - neuron 3 of layer 'a'"."""
    words = []
    for k, (weight, target) in enumerate(one.terms):
        sign = ("- " if weight < 0 else "+ ") if k else ("-" if weight < 0 else "")
        times = "" if abs(weight) == 1 else f"{abs(weight):g} "
        words.append(f"{sign}{times}{name_of(model, target)}")
    return " ".join(words)


def name_of(model: TorchModel, target: Any) -> str:
    if callable(target):
        return str(getattr(target, "__name__", type(target).__name__))
    labels = model.labels
    return labels[target] if labels and target < len(labels) else f"class {target}"


def layers_in(aims: Sequence[Aim]) -> list[str]:
    """The layers that the aims are read from."""
    return list(dict.fromkeys(target.layer for one in aims for _, target in one.terms if isinstance(target, Inside)))


def classes_of(aims: Sequence[Aim]) -> list[int | None]:
    """The class that each aim is simply about; None for anything else."""
    return [one.terms[0][1] if len(one.terms) == 1 and one.terms[0][0] > 0 and isinstance(one.terms[0][1], int) else None for one in aims]


def raised(aims: Sequence[Aim], outputs: Any, seen: Mapping[str, Any], scale: Scale | None = None) -> list[torch.Tensor]:
    """How far each aim [1] is reached: row k of the outputs, and of what the layers gave, is about aim k. scale: of the classes' scores."""
    whole = any(not isinstance(target, Inside) for one in aims for _, target in one.terms)
    if whole and not hasattr(outputs, "shape"):
        raise TargetError(f"the model returns {contents(outputs)}, which cannot be split by item; wrap(model, output=...) says what of it to read.")
    scores = scale(outputs) if whole and scale is not None else outputs
    return [sum(weight * one_term(target, outputs, scores, seen, k) for weight, target in one.terms) for k, one in enumerate(aims)]  # type: ignore[misc]


def one_term(target: int | Callable[[Any], Any], outputs: Any, scores: Any, seen: Mapping[str, Any], row: int) -> torch.Tensor:
    own = slice(row, row + 1)
    if isinstance(target, Inside):
        return target.read(seen[target.layer][own])  # type: ignore[no-any-return]
    return pick((outputs if callable(target) else scores)[own], target)  # type: ignore[no-any-return]


def log_probability(model: TorchModel) -> Scale:
    """Scores [n, k] -> their logarithm as shares of 1; a single score stays as it is."""

    def scale(outputs: torch.Tensor) -> torch.Tensor:
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            return outputs
        return outputs.clamp(min=1e-30).log() if model.probabilities else outputs.log_softmax(1)

    return scale
