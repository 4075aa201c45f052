"""The first noun: what an explainer may ask of a model, and what an input is once it is ready for the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from askwhy.errors import AskwhyError, InputError, ModelError

NUMERIC, CATEGORICAL, DATE = "numeric", "categorical", "date"  # what a column of a table holds


@dataclass(frozen=True)
class Frame:
    """Which part of the original photo the model sees: [left, top, right, bottom] in the photo's pixels."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]  # width, height of the original photo


@dataclass(frozen=True)
class Items:
    """Inputs ready for the model. `batch` is [n, ...]; the rest is what the explanation needs to show them."""

    batch: Any  # tensor or array [n, ...]
    pictures: tuple[np.ndarray | None, ...]  # uint8 [h, w, 3], what the model sees
    frames: tuple[Frame | None, ...]
    grey: Any = None  # [n, ...]: the model's input for a grey picture of the same size, where that is known
    names: tuple[str, ...] | None = None  # column names of a table
    kinds: tuple[str, ...] | None = None  # what each column of a table holds: "numeric", "categorical" or "date"
    rebuild: Callable[[np.ndarray], Any] | None = None  # array -> what the estimator was trained on (DataFrame)
    texts: tuple[str, ...] | None = None  # what was asked, where it was text
    arguments: Any = None  # Arguments of a torch model that takes several inputs, or token ids
    calls: int = 0  # inputs that the model was asked about to prepare these

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def kind(self) -> str:
        """ "image" for [n, c, h, w] and [n, h, w, c], "table" for [n, d], "text" for tokens, "several" inputs, else "other"."""
        parts = () if self.arguments is None else self.arguments.parts
        if len(parts) > 1:
            return "several"
        if self.texts is not None or (parts and parts[0].lookups):
            return "text"
        return {4: "image", 2: "table"}.get(np.ndim(self.batch), "other")

    def shown(self, values: np.ndarray, how: str = "sum") -> np.ndarray:
        """values [k, *batch] -> [k, *result]: a token is made of many numbers, whose values are summed, or their "length" is taken."""
        return values if self.arguments is None else self.arguments.shown(values, how)

    def beside(self, owners: Sequence[int]) -> Any:
        """What the model is given beside the batch in rows that belong to items `owners`; None for most models."""
        return None if self.arguments is None else self.arguments.rows(owners)


@runtime_checkable
class Model(Protocol):
    """What `askwhy.wrap` returns, whatever the model is made of."""

    labels: tuple[str, ...] | None
    offers: frozenset[str]  # of "predictions", "gradients", "layers", "trees", "path", "coefficients"
    memory: dict[Any, Any]  # what was prepared for this model: batch sizes, a folded network

    def prepare(self, x: Any) -> Items:
        """Raw items -> inputs on the model's device, in its dtype."""
        ...

    def outputs(self, items: Items, batch: Any, owners: Sequence[int] | None = None) -> Any:
        """One forward pass, no gradient: scores [m, k], or whatever a callable target is to read; row j is item owners[j], perturbed."""
        ...

    def engine(self, items: Items, item: int, samples: Any, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
        """A faster way to `outputs` for so many perturbed inputs of an item, with its name; None for the ordinary way. `samples` are to prove it."""
        ...

    def compose(self, present: np.ndarray, x: Any, absent: Any) -> Any:
        """Inputs [m, ...] that show x where `present` and `absent` elsewhere."""
        ...

    def untouched(self) -> AbstractContextManager[None]:
        """Inside the block the model may be used; after it, it is exactly as it was found."""
        ...


def as_labels(labels: Sequence[str] | dict[int, str] | None) -> tuple[str, ...] | None:
    """Class names in the order of the model's outputs."""
    if labels is None:
        return None
    if isinstance(labels, str):
        raise InputError(f"labels={labels!r}: give a list with one name for each output.")
    if isinstance(labels, dict):
        if set(labels) != set(range(len(labels))):
            raise InputError(f"labels= as a dict needs the keys 0..{len(labels) - 1}, but has {list(labels)[:5]} ...")
        labels = [labels[i] for i in range(len(labels))]
    return tuple(str(label) for label in labels)


def contents(out: Any) -> str:
    """What a model returned, in words."""
    if isinstance(out, dict):
        return f"a dict with the keys {list(out)}"
    if isinstance(out, (tuple, list)):
        return f"a {type(out).__name__} of {len(out)}"
    return f"a tensor of shape {show_shape(out)}" if hasattr(out, "shape") else f"a {type(out).__name__}"


def show_shape(x: Any) -> str:
    """[1, 3, 224, 224] for error messages."""
    return str(list(getattr(x, "shape", ())))


def to_numpy(x: Any) -> np.ndarray:
    """A tensor or array as float32, float64 or what it is; numpy knows no bfloat16."""
    if not hasattr(x, "detach"):
        return np.asarray(x)
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() and x.element_size() == 2 else x).numpy()


def is_missing(value: Any) -> bool:
    """None, NaN, NaT or pandas.NA."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def frame_kinds(frame: Any) -> tuple[str, ...]:
    """What the columns of a DataFrame hold."""
    letters = [getattr(dtype, "kind", "O") for dtype in frame.dtypes]
    named = [str(dtype) for dtype in frame.dtypes]
    return tuple(
        CATEGORICAL if name == "category" or kind in "ObSU" or name.startswith("str") else DATE if kind == "M" else NUMERIC
        for kind, name in zip(letters, named, strict=True)
    )


def check_finite(batch: Any, what: str) -> None:
    """Refuse NaN and infinite numbers in an input, naming the first item that has one."""
    array = to_numpy(batch)
    if array.size == 0:
        raise InputError(f"{what} is empty: x has the shape {show_shape(array)}.")
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        raise InputError(f"{what} {int(bad.argmax())} holds NaN or infinite numbers; replace them before asking.")


def is_out_of_memory(error: BaseException) -> bool:
    """Memory ran out, as numpy, torch on a CPU or torch on a GPU say it."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


@contextmanager
def said_clearly(shape: str) -> Iterator[None]:
    """What a model raises inside the block, as one ModelError."""
    try:
        yield
    except AskwhyError:
        raise
    except Exception as error:  # whatever the user's own code raises
        usual = isinstance(error, (RuntimeError, ValueError, TypeError, IndexError))
        if is_out_of_memory(error) or (not usual and is_own_fault(error)):
            raise
        kind = "" if usual or not str(error) else f"{type(error).__name__}: "  # a KeyError says the key and nothing else
        raise ModelError(f"the model failed on an input of shape {shape}: {kind}{first_line(error)}") from error


def is_own_fault(error: Exception) -> bool:
    """Whether the code that raised it is askwhy's, which may run inside the model."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and str(at.tb_frame.f_globals.get("__name__", "")).startswith("askwhy.")


def first_line(error: BaseException) -> str:
    """What the library said, cut to one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
