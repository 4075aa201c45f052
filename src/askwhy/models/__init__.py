"""`wrap` makes one kind of model out of anything that predicts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from askwhy.errors import InputError
from askwhy.models.base import Items, Model, as_labels, contents

__all__ = ["Items", "Model", "wrap"]


def wrap(
    model: Any,
    *,
    labels: Sequence[str] | dict[int, str] | None = None,
    transform: Callable[[Any], Any] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
    seed: int | None = None,
    tokenizer: Any = None,
) -> Model:
    """Make a model that can be asked why. Wrap once, ask often: what is measured and prepared stays with it.

    model: a torch `nn.Module` in eval mode; an estimator with `predict_proba`, `decision_function` or `predict`;
        the path of a saved one (.onnx, or what XGBoost, LightGBM and CatBoost save); an address of the Open Inference
        Protocol (https://.../v2/models/NAME); or a function `batch [n, ...] -> scores [n, k] or [n]`.
    labels: names of the outputs, in order.
    transform: raw item (RGB PIL image) -> model input without batch axis.
    output: which number is explained. "logits" (torch: as returned; estimator: `decision_function`) or "probabilities"
        (torch: softmax, or sigmoid of a single output); for a model that returns a tuple or dict, its index, key or a
        function that picks the scores.
    seed: for a torch module that draws random numbers: every input is run alone, from this seed.
    tokenizer: for a torch module that reads text: one of the library transformers, or a function text -> ids.

    Raises InputError for what cannot be asked. Example: `askwhy.wrap(net, labels=names, transform=to_tensor)`.
    """
    if isinstance(model, Model):
        if any(given is not None for given in (labels, transform, output, seed, tokenizer)):
            raise InputError("this model is wrapped already; give labels=, transform=, output=, seed= and tokenizer= where it is wrapped first.")
        return model
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        return _wrap_torch(model, labels, transform, output, seed, tokenizer)
    if torch is not None and isinstance(getattr(model, "model", None), torch.nn.Module) and hasattr(model, "tokenizer"):
        return wrap(model.model, labels=labels, transform=transform, output=output, seed=seed, tokenizer=tokenizer or model.tokenizer)
    if tokenizer is not None:
        raise InputError(f"tokenizer= is for a torch module; let your {type(model).__name__} take the texts themselves.")
    if seed is not None:
        raise InputError(f"seed={seed!r} is for a torch module; let your {type(model).__name__} draw its random numbers from a seed of its own.")
    if isinstance(model, type):
        raise InputError(f"{model.__name__} is a class and cannot be asked: give an nn.Module or estimator made from it, with its weights.")
    if isinstance(model, str) and model.startswith(("http://", "https://")):
        return _wrap_remote(model, labels, transform, output)
    if isinstance(model, (str, os.PathLike)):
        return _wrap_file(model, labels, transform, output)
    if any(hasattr(model, name) for name in ("predict_proba", "decision_function", "predict")):
        from askwhy.models.boosters import from_booster, reader
        from askwhy.models.function import from_estimator

        make = from_estimator if reader(model) is None else from_booster
        return make(model, labels, output, transform)  # type: ignore[arg-type]
    if callable(model):
        if output not in (None, "probabilities", "logits"):
            raise InputError("output= chooses among the outputs of a torch module; let your function return the scores itself.")
        from askwhy.models.function import FunctionModel

        return FunctionModel(model, as_labels(labels), transform)
    raise InputError(
        f"{type(model).__name__} cannot be asked: give an nn.Module, an estimator with predict_proba or predict, or a function on a batch."
    )


def _wrap_torch(net: Any, labels: Any, transform: Any, output: Any, seed: Any, tokenizer: Any) -> Model:
    from askwhy.models.torch_module import TorchModel

    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"seed={seed!r}: give a whole number.")

    net = getattr(net, "_orig_mod", net)  # torch.compile: the same weights, and operations that can be seen
    select = None
    if callable(output):
        select = output
    elif output not in (None, "logits", "probabilities"):
        key = output

        def select(out: Any) -> Any:
            return part(out, key)

    if tokenizer is not None and not callable(tokenizer):
        raise InputError(f"tokenizer= is a {type(tokenizer).__name__}; give one of the library transformers, or a function text -> ids.")
    own = configured_labels(net) if labels is None else labels
    return TorchModel(net, as_labels(own), transform, select, output == "probabilities", seed, tokenizer)


def _wrap_remote(url: str, labels: Any, transform: Any, output: Any) -> Model:
    from askwhy.models.remote import remote

    return remote(url, labels=labels, transform=transform, output=output)


def _wrap_file(path: str | os.PathLike[str], labels: Any, transform: Any, output: Any) -> Model:
    from askwhy.models.boosters import from_file

    return from_file(path, labels, output, transform)


def configured_labels(net: Any) -> Any:
    """The names of the classes that a classifier of the library transformers carries."""
    return getattr(getattr(net, "config", None), "id2label", None) if "Classification" in type(net).__name__ else None


def part(out: Any, key: Any) -> Any:
    """What the model returned under an index, key or attribute."""
    try:
        if hasattr(out, "shape"):  # the first row of a tensor is no output of its own
            raise TypeError("one tensor has no parts")
        return out[key] if not isinstance(key, str) or isinstance(out, Mapping) else getattr(out, key)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"output={key!r}: the model returns {contents(out)}.") from error
