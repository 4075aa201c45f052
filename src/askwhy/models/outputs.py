"""What a torch model returned, and the scores in it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import InputError, UnsupportedError
from askwhy.models.base import contents

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

SCORE_NAMES = ("logits", "output", "out", "scores", "prediction_logits")


def parts_of(out: Any) -> dict[Any, Any]:
    """What a model returned, by name or place; empty for a single thing."""
    if isinstance(out, dict):
        return dict(out)
    if is_dataclass(out) and not isinstance(out, type):
        return {f.name: getattr(out, f.name) for f in fields(out)}
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return dict(zip(out._fields, out, strict=True))
    return dict(enumerate(out)) if isinstance(out, (tuple, list)) else {}


def find_scores(out: Any) -> Any:
    """The tensor [m, k] of scores in a tuple, dict or dataclass, if there is just one that can be meant."""
    parts = parts_of(out)
    named = next((parts[name] for name in SCORE_NAMES if isinstance(parts.get(name), torch.Tensor)), None)
    if named is not None:
        return named
    found = [t for t in parts.values() if isinstance(t, torch.Tensor) and t.is_floating_point() and t.ndim == 2]
    return found[0] if len(found) == 1 else out


def probabilities(out: Any) -> torch.Tensor:
    """The model's own where it returns some under that name; else the softmax, or the sigmoid of a single score."""
    own = parts_of(out).get("probabilities")
    if isinstance(own, torch.Tensor):
        return as_column(own)
    found = as_column(find_scores(out))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise InputError(
            f"output='probabilities' needs scores [n, classes], but the model returns {contents(out)}; give output= a function that makes them."
        )
    return found.softmax(-1) if found.shape[1] > 1 else found.sigmoid()


def as_column(out: Any) -> Any:
    """One score an input, [m], is [m, 1]."""
    return out[:, None] if isinstance(out, torch.Tensor) and out.ndim == 1 else out


def joined(outs: list[Any]) -> Any:
    """What a model returned for single inputs, as for a batch of them."""
    if isinstance(outs[0], torch.Tensor):
        return torch.cat(outs)
    if isinstance(outs[0], dict):
        return {key: joined([out[key] for out in outs]) for key in outs[0]}
    if isinstance(outs[0], (tuple, list)):
        return [joined([out[k] for out in outs]) for k in range(len(outs[0]))]
    raise UnsupportedError(
        f"seed= runs each input alone and joins the outputs, but the model returns a {type(outs[0]).__name__}; wrap(model, output=...) chooses the scores."
    )
