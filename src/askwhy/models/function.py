"""Black boxes: any callable on a batch, and scikit-learn style estimators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from askwhy.errors import AskwhyError, InputError, ModelError, UnsupportedError
from askwhy.models.base import Items, as_labels, check_finite, contents, frame_kinds, is_out_of_memory, show_shape, to_numpy
from askwhy.models.forest import READERS
from askwhy.models.photos import raw_items, through
from askwhy.models.pictures import from_values

SCALERS = ("MaxAbsScaler", "MinMaxScaler", "RobustScaler", "StandardScaler")
LINEAR = ("LinearDiscriminantAnalysis", "LinearSVC", "LinearSVR")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(eq=False)
class FunctionModel:
    """What `wrap` makes of a function `batch -> scores` and of an estimator's `predict_proba`."""

    function: Callable[[Any], Any]
    labels: tuple[str, ...] | None = None
    transform: Callable[[Any], Any] | None = None
    columns: tuple[str, ...] | None = None  # what an estimator was trained on
    classes: int | None = None  # how many an estimator has
    native: Any = None  # the object of its own library, for methods that know it
    source: Any = None  # what the user wrapped
    offers: frozenset[str] = frozenset({"predictions"})
    memory: dict[Any, Any] = field(default_factory=dict)

    def prepare(self, x: Any) -> Items:
        if hasattr(x, "columns") and hasattr(x, "iloc"):
            return self._prepare_frame(x)
        texts = as_texts(x) if self.transform is None else None
        if texts is not None:
            return of_texts(texts)
        raw = raw_items(x, self.transform is not None)
        if raw is not None and (self.transform is not None or not isinstance(x, np.ndarray) or x.ndim != 4):
            made = through(as_array(self.transform or np.asarray), raw, self.memory)
            grey = None if made.grey is None else made.grey.astype(made.batch.dtype)
            return Items(made.batch, made.pictures, made.frames, grey)
        batch = as_batch(x)
        if batch.ndim < 2 or len(batch) == 0:
            raise InputError(f"x has the shape {show_shape(batch)}; its first axis counts the items, so a single one is x[None].")
        if self.columns and batch.ndim == 2 and batch.shape[1] != len(self.columns):
            raise InputError(f"x has {batch.shape[1]} columns, the model was trained on {len(self.columns)}.")
        if batch.ndim != 2:  # in a table a missing value is a value, which the model takes or not
            check_finite(batch, "item")
        pictures = tuple(from_values(item) if batch.ndim == 4 else None for item in batch)
        return Items(batch, pictures, (None,) * len(batch), names=self.columns, rebuild=frame_maker(self.columns))

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

        return Items(x.to_numpy(), (None,) * len(x), (None,) * len(x), names=columns, kinds=frame_kinds(x), rebuild=rebuild)

    def outputs(self, items: Items, batch: Any, owners: Sequence[int] | None = None) -> Any:
        try:
            out = self._passed(self.given(items, batch))
        except (AskwhyError, MemoryError):
            raise
        except Exception as error:  # whatever somebody else's function raises: say what it was given, keep the cause
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            raise ModelError(f"the model failed on an input of shape {show_shape(batch)}: {type(error).__name__}: {error}") from error
        return self._as_scores(out)

    def _passed(self, batch: Any) -> Any:
        """What the function returns; one that writes into its input, as `X -= mean` does, gets a copy of the user's data."""
        own = batch.copy() if isinstance(batch, np.ndarray) and self.memory.get("writes", True) else batch
        out = self.function(own)
        if own is not batch and "writes" not in self.memory:
            self.memory["writes"] = not np.array_equal(own, batch)
        return out

    @staticmethod
    def given(items: Items, batch: Any) -> Any:
        """What the function takes: texts in a list, a table as the model knows it."""
        return list(batch) if items.texts is not None else items.rebuild(batch) if items.rebuild else batch

    def _as_scores(self, out: Any) -> np.ndarray:
        """[m, k] from what the function returned."""
        try:
            scores = to_numpy(out)
        except ValueError as error:
            raise ModelError(f"the model returned {contents(out)}, which is no array: {error}") from error
        if (scores.dtype.kind == "O" and scores.ndim == 0) or (not hasattr(out, "shape") and scores.ndim == 0):
            raise ModelError(f"the model returned {contents(out)}; it has to return one number, or one row of scores, for each input.")
        scores = scores[:, None] if scores.ndim == 1 else scores
        if self.classes and scores.ndim == 2 and scores.shape[1] != self.classes:
            raise ModelError(
                f"the model gives {scores.shape[1]} scores for {self.classes} classes, so they cannot be named (one-vs-one margins?); "
                "use decision_function_shape='ovr', or wrap a function that gives one score a class."
            )
        return scores

    def engine(self, items: Items, item: int, samples: Any, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
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
    classes = getattr(model, "classes_", None)
    if name == "predict" and classes is not None:
        raise InputError(f"{type(model).__name__} gives only class labels, and a label is no score; wrap a function that gives probabilities.")
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
        None if classes is None else len(classes),
        source=model,
        offers=offered(model),
    )


def offered(model: Any) -> frozenset[str]:
    """What an estimator has beside its predictions, by the name of its class."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    found = {"trees"} if names & READERS.keys() else set()
    found |= {"path"} if "sklearn.tree._classes.BaseDecisionTree" in names else set()
    found |= {"coefficients"} if is_linear(model) else set()
    return frozenset({"predictions"} | found)


def is_linear(model: Any) -> bool:
    """A linear model of scikit-learn, alone or behind scalers."""
    steps = [step for _, step in model.steps if step not in (None, "passthrough")] if hasattr(model, "steps") else [model]
    if not steps or any(type(step).__name__ not in SCALERS for step in steps[:-1]):
        return False
    place, name = type(steps[-1]).__module__, type(steps[-1]).__name__
    return name in LINEAR or (place.startswith("sklearn.linear_model") and "_glm" not in place and hasattr(steps[-1], "coef_"))


def as_array(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same transform, which may give a PIL image or a list too."""

    def turned(photo: Any) -> Any:
        out = transform(photo)
        return out if hasattr(out, "shape") else np.asarray(out)

    return turned


def as_texts(x: Any) -> list[str] | None:
    """One text or a batch of them; None for anything else, and for the names of pictures."""
    if hasattr(x, "tolist") and getattr(x, "ndim", 0) == 1 and getattr(x.dtype, "kind", "O") in "OUST":  # an array, or a column of a table
        x = x.tolist()
    texts = [x] if isinstance(x, str) else x
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        return None
    return None if any(map(names_picture, texts)) else texts


def names_picture(text: str) -> bool:
    return len(text) < 1024 and text.lower().endswith(PICTURES)


def of_texts(texts: list[str]) -> Items:
    for k, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {k} is empty; there is no word in it that could be explained.")
    return Items(np.array([*texts, None], object)[:-1], (None,) * len(texts), (None,) * len(texts), texts=tuple(texts))


def as_batch(x: Any) -> np.ndarray:
    """Numbers or texts [n, ...]. Raises InputError."""
    try:
        batch = to_numpy(x)
    except ValueError as error:
        raise InputError(f"x cannot be read as one array: {error}") from error
    if batch.dtype.kind in "US":
        return batch.astype(object)  # numpy would cut longer texts of the background
    return batch.astype(batch.dtype.newbyteorder("="), copy=False)  # XGBoost takes bytes in another order for other numbers


def frame_maker(columns: tuple[str, ...] | None) -> Callable[[np.ndarray], Any] | None:
    """Rows of an array as the table that an estimator was trained on, which scikit-learn finds by its column names."""
    try:
        import pandas
    except ImportError:  # the estimator came from another machine; it takes arrays too, with scikit-learn's own warning
        return None
    return None if columns is None else lambda values: pandas.DataFrame(values, columns=list(columns))
