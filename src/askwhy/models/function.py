"""Black boxes: any callable on a batch, and scikit-learn style estimators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from askwhy.errors import AskwhyError, InputError, ModelError, UnsupportedError
from askwhy.models.base import Items, as_labels, check_finite, show_shape
from askwhy.models.pictures import from_values, is_picture, read_picture


@dataclass(eq=False)
class FunctionModel:
    """What `wrap` makes of a function `batch -> scores` and of an estimator's `predict_proba`."""

    function: Callable[[Any], Any]
    labels: tuple[str, ...] | None = None
    transform: Callable[[Any], Any] | None = None
    columns: tuple[str, ...] | None = None  # what an estimator was trained on
    offers: frozenset[str] = frozenset({"predictions"})
    memory: dict[Any, Any] = field(default_factory=dict)

    def prepare(self, x: Any) -> Items:
        if hasattr(x, "columns") and hasattr(x, "iloc"):
            return self._prepare_frame(x)
        if is_picture(x) or (isinstance(x, (list, tuple)) and len(x) and is_picture(x[0])):
            return self._prepare_pictures([x] if is_picture(x) else list(x))
        if isinstance(x, str) or (isinstance(x, (list, tuple)) and len(x) and isinstance(x[0], str)):
            raise InputError("x is text; askwhy explains pictures and tables for now.")
        batch = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
        if batch.ndim < 2 or len(batch) == 0:
            raise InputError(f"x has the shape {show_shape(batch)}; its first axis counts the items, so a single one is x[None].")
        if self.columns and batch.ndim == 2 and batch.shape[1] != len(self.columns):
            raise InputError(f"x has {batch.shape[1]} columns, the model was trained on {len(self.columns)}.")
        check_finite(batch, "item")
        pictures = tuple(from_values(item) if batch.ndim == 4 else None for item in batch)
        return Items(batch, pictures, (None,) * len(batch), names=self.columns)

    def _prepare_frame(self, x: Any) -> Items:
        columns = tuple(map(str, x.columns))
        if self.columns and columns != self.columns:
            missing = [c for c in self.columns if c not in columns]
            extra = [c for c in columns if c not in self.columns]
            raise InputError(
                f"the table's columns are not the model's: missing {missing}, unknown {extra}"
                + ("" if missing or extra else ", and the order differs")
                + "."
            )
        if len(x) == 0:
            raise InputError("the table has no rows.")
        dtypes, original = x.dtypes, x.columns

        def rebuild(values: np.ndarray) -> Any:
            return type(x)(values, columns=original).astype(dtypes)

        return Items(x.to_numpy(), (None,) * len(x), (None,) * len(x), names=columns, rebuild=rebuild)

    def _prepare_pictures(self, raw: list[Any]) -> Items:
        from PIL import Image

        photos = [read_picture(item) for item in raw]
        turn = self.transform or np.asarray
        ready = [np.asarray(turn(photo)) for photo in photos]
        if len({item.shape for item in ready}) > 1:
            raise InputError(f"the pictures have different shapes, {show_shape(ready[0])} and others; wrap(..., transform=) can resize them.")
        grey = [np.asarray(turn(Image.new("RGB", photo.size, (127, 127, 127)))) for photo in photos]
        return Items(np.stack(ready), tuple(map(from_values, ready)), (None,) * len(raw), np.stack(grey))

    def outputs(self, items: Items, batch: Any) -> Any:
        try:
            out = self.function(items.rebuild(batch) if items.rebuild else batch)
        except (AskwhyError, MemoryError):
            raise
        except Exception as error:  # whatever somebody else's function raises: say what it was given, keep the cause
            raise ModelError(f"the model failed on an input of shape {show_shape(batch)}: {type(error).__name__}: {error}") from error
        out = np.asarray(out.detach().cpu() if hasattr(out, "detach") else out)
        return out[:, None] if out.ndim == 1 else out

    def engine(self, items: Items, samples: Any, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
        if precision != "float32":
            raise UnsupportedError(f"precision={precision!r} is for torch models; a black box computes as it does. Leave precision out.")
        return None, "forward"

    def compose(self, present: np.ndarray, x: Any, absent: Any) -> Any:
        return np.where(present, x, np.asarray(absent, dtype=x.dtype))

    @contextmanager
    def untouched(self) -> Iterator[None]:
        yield


def from_estimator(model: Any, labels: Any, output: str | None, transform: Any) -> FunctionModel:
    """`predict_proba` if there is one, else `decision_function`, else `predict`; `output` can insist."""
    wanted = {"probabilities": ("predict_proba",), "logits": ("decision_function",), None: ("predict_proba", "decision_function", "predict")}
    if output not in wanted:
        raise InputError(f"output={output!r}: for an estimator it is 'probabilities' or 'logits'.")
    name = next((n for n in wanted[output] if hasattr(model, n)), None)
    if name is None:
        raise InputError(f"output={output!r} needs {wanted[output][0]}, which {type(model).__name__} has not.")
    classes = getattr(model, "classes_", None) if name != "predict" else None
    function = getattr(model, name)
    binary = name == "decision_function" and classes is not None and len(classes) == 2

    def both_sides(batch: Any) -> np.ndarray:
        margin = np.asarray(function(batch))  # [n]: the margin of the second class
        return np.stack([-margin, margin], 1)

    columns = getattr(model, "feature_names_in_", None)
    return FunctionModel(
        both_sides if binary else function,
        as_labels(labels if labels is not None else classes),
        transform,
        None if columns is None else tuple(map(str, columns)),
    )
