"""The Open Inference Protocol, version 2, in JSON: what MLServer, Triton, KServe, OpenVINO and others speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError, ModelError, UnsupportedError

DTYPES = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object"}
DTYPES |= {f"{sign}INT{bits}": f"{sign}int{bits}".lower() for sign in ("", "U") for bits in (8, 16, 32, 64)}
DATATYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
OWN = "askwhy.remote(url, request=..., response=...) speaks to it with two functions of yours"


@dataclass(frozen=True)
class Tensor:
    """An input or output as the model's metadata describe it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Metadata:
    """What a model tells of itself. Models need not tell their inputs and outputs."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of several inputs of one number or text each."""
        return tuple(one.name for one in self.inputs) if len(self.inputs) > 1 else None

    @property
    def largest_batch(self) -> int:
        """1 where the model says that it takes one row at a time."""
        return 1 if any(len(one.shape) > 1 and one.shape[0] == 1 for one in self.inputs) else 2**31


def read_metadata(told: Any, address: str, output: str | None) -> Metadata:
    """Raises ModelError, InputError, UnsupportedError for what cannot be asked."""
    try:
        inputs, outputs = (
            tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"])) for t in told.get(which) or ()) for which in ("inputs", "outputs")
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ModelError(f"{address} does not describe a model of the Open Inference Protocol (/v2/models/NAME); {OWN}.") from error
    wide = [one.name for one in inputs if any(size not in (-1, 1) for size in one.shape[1:])]
    if len(inputs) > 1 and wide:
        raise UnsupportedError(f"the model takes several inputs, and {wide[0]!r} is more than one number for each row; {OWN}.")
    for one in inputs:
        if one.datatype not in DTYPES:
            raise UnsupportedError(f"the model's input {one.name!r} is {one.datatype}, which JSON does not carry; {OWN}.")
    if output is None and len(outputs) > 1:
        raise InputError(f"the model has the outputs {names(outputs)}; say which holds the scores, as output={outputs[0].name!r}.")
    if len(outputs) == 1 and output in (None, outputs[0].name):
        refuse_labels(outputs[0].name, outputs[0].datatype, int(np.prod([abs(size) for size in outputs[0].shape[1:]])))
    return Metadata(inputs, outputs)


def encode(rows: Any, metadata: Metadata, output: str | None) -> dict[str, Any]:
    """The body of a request: one tensor, or one for each column. Raises InputError."""
    if metadata.columns is None:
        known = metadata.inputs[0] if metadata.inputs else Tensor("input-0", "", ())
        tensors = [as_tensor(rows.to_numpy() if hasattr(rows, "to_numpy") else rows, known)]
    else:
        tensors = [as_tensor(column, one) for column, one in zip(columns_of(rows, metadata.columns), metadata.inputs, strict=True)]
    return {"inputs": tensors} | ({"outputs": [{"name": output}]} if output is not None else {})


def columns_of(rows: Any, wanted: Sequence[str]) -> list[np.ndarray]:
    """The columns of a table, in the model's order."""
    if np.ndim(rows) != 2 or rows.shape[1] != len(wanted):
        raise InputError(
            f"the model takes the columns {', '.join(wanted)}, and x has the shape {list(rows.shape)}; give a table of {len(wanted)} columns."
        )
    return [rows[name].to_numpy() for name in wanted] if hasattr(rows, "columns") else list(rows.T)


def as_tensor(values: np.ndarray, known: Tensor) -> dict[str, Any]:
    """name, shape, datatype and flat data; a column [m] becomes [m, 1] where the model describes it so."""
    array = fitted(values, known)
    shape = (len(array), 1) if array.ndim == 1 and len(known.shape) == 2 else array.shape
    return {"name": known.name, "shape": list(shape), "datatype": DATATYPES[array.dtype], "data": array.ravel().tolist()}


def fitted(values: np.ndarray, known: Tensor) -> np.ndarray:
    """Numbers or texts in the model's type. Raises InputError where that would change a value."""
    array = plain(values, known.name)
    if not known.datatype or array.dtype == DTYPES[known.datatype]:
        return array
    if object in (array.dtype, np.dtype(DTYPES[known.datatype])):
        raise InputError(f"the model's input {known.name!r} takes {known.datatype}, and x holds {DATATYPES[array.dtype]}; give x that type.")
    with np.errstate(all="ignore"):
        cast = array.astype(DTYPES[known.datatype])
    changed = ~np.isfinite(cast) if cast.dtype.kind == "f" else cast != array
    if changed.any():
        raise InputError(f"the model's input {known.name!r} takes {known.datatype}, which cannot hold x's {array[changed][0]}; give x that type.")
    return cast


def plain(values: np.ndarray, name: str) -> np.ndarray:
    """Texts as objects, numbers as numbers: a column of a mixed table is made of objects, whatever it holds."""
    if values.dtype.kind in "US":
        return values.astype(object)
    if values.dtype == object and not all(isinstance(value, str) for value in values.ravel()):
        try:
            values = np.array(values.tolist())
        except (ValueError, TypeError):
            values = np.array("mixed")
    if values.dtype not in DATATYPES:
        raise InputError(f"the model's input {name!r} is one tensor, which cannot hold x's mixture of texts, numbers or other values; {OWN}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"x holds NaN or infinite numbers in {name!r}, which JSON does not carry; replace them before asking.")
    return values


def decode(reply: Any, rows: int, metadata: Metadata, output: str | None) -> np.ndarray:
    """Scores [m, ...] of a reply. Raises ModelError."""
    try:
        held = {one["name"]: one for one in reply["outputs"]}
        name = next(iter(held)) if output is None and len(held) == 1 else output
        if name not in held:
            asked = "say which holds the scores, as output=" if output is None else "there is none called "
            raise ModelError(
                f"the reply has the outputs {', '.join(map(repr, held)) or 'none'}; {asked}{output if output is None else repr(output)}."
            )
        return scores_of(held[name], rows, next((one.shape for one in metadata.outputs if one.name == name), ()))
    except (LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"the reply is none of the Open Inference Protocol ({type(error).__name__}: {error}); {OWN}.") from error


def scores_of(one: Mapping[str, Any], rows: int, known: tuple[int, ...]) -> np.ndarray:
    """The values of one output, in the shape that the reply and the metadata tell."""
    shape, held = tuple(one["shape"]), np.array(one["data"], dtype=object).ravel()
    if len(held) != np.prod(shape) or not shape or shape[0] != rows:
        raise ModelError(
            f"output {one['name']!r} has the shape {list(shape)} and {len(held)} values for {rows} inputs; the first axis has to count the inputs, "
            "so see that the model answers a batch (or give batch=1)."
        )
    if len(known) == len(shape) and any(size not in (-1, found) for size, found in zip(known[1:], shape[1:], strict=True)):
        raise ModelError(
            f"output {one['name']!r} has the shape {list(shape)}, and the model's metadata say {list(known)}; see what the service runs."
        )
    refuse_labels(one["name"], one["datatype"], int(np.prod(shape[1:])))
    return held.reshape(shape)


def refuse_labels(name: str, datatype: str, each: int) -> None:
    """A text, or one whole number for an input, says which class, but not how sure."""
    if datatype == "BYTES" or (each == 1 and ("INT" in datatype or datatype == "BOOL")):
        raise ModelError(
            f"output {name!r} is {datatype}: labels, and a label is no score; choose an output of probabilities, as output='predict_proba', or serve one."
        )


def names(tensors: Sequence[Tensor]) -> str:
    return ", ".join(repr(one.name) for one in tensors)
