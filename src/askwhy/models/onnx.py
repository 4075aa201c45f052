"""ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from askwhy._lazy import load
from askwhy.errors import FileError, InputError, near
from askwhy.models.base import as_labels, first_line, show_shape
from askwhy.models.function import FunctionModel

TYPES: dict[str, Any] = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(string)": np.object_,
    "tensor(uint8)": np.uint8,
}


def from_onnx(path: Path, labels: Any, output: Any, transform: Any) -> FunctionModel:
    """The scores that the model's output `output` (a name or an index) gives. Raises FileError, InputError."""
    session = open_session(path)
    inputs = session.get_inputs()
    check_inputs(inputs)
    wanted = chosen(session.get_outputs(), output)
    named = as_labels(zipped_labels(path, wanted) if labels is None else labels)
    columns = tuple(one.name for one in inputs) if len(inputs) > 1 else None
    return FunctionModel(lambda rows: scores(answers(session, wanted, feed(inputs, rows))), named, transform, columns, native=session)


def open_session(path: Path) -> Any:
    runtime = load("onnxruntime", "onnx")
    try:
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen kinds, with no base of their own
        raise FileError(
            f"{path} is no ONNX model that onnxruntime {runtime.__version__} can run, or is damaged ({first_line(error)}); export it again."
        ) from error


# ---- what goes in -------------------------------------------------------------------------------------------------


def check_inputs(inputs: list[Any]) -> None:
    """Either one input, or one for each column of a table."""
    for one in inputs:
        if one.type not in TYPES:
            raise InputError(f"the model's input {declared(one)} is {one.type}, which askwhy cannot make; wrap a function that asks it.")
    if len(inputs) > 1 and not all(len(one.shape) in (1, 2) and (*one.shape, 1)[1] == 1 for one in inputs):
        raise InputError(
            f"the model has the inputs {', '.join(map(declared, inputs))}, which are no columns of a table; "
            "wrap a function of the one that is to be explained, which asks the model."
        )


def declared(one: Any) -> str:
    """'x' [n, 3, 32, 32] for error messages."""
    sizes = [str(size) if isinstance(size, int) else "n" if k == 0 else "any" for k, size in enumerate(one.shape)]
    return f"{one.name!r} [{', '.join(sizes)}]"


def feed(inputs: list[Any], rows: Any) -> dict[str, np.ndarray]:
    """A batch as what the model declares, by the names of its inputs."""
    array = rows.to_numpy() if hasattr(rows, "to_numpy") else np.asarray(rows)
    if len(inputs) == 1:
        return {inputs[0].name: fitted(array, inputs[0])}
    return {one.name: fitted(array[:, k], one) for k, one in enumerate(inputs)}


def fitted(values: np.ndarray, one: Any) -> np.ndarray:
    """Values in the declared type and shape. Raises InputError where that would change them."""
    if values.ndim == 1 and len(one.shape) == 2:
        values = values[:, None]
    if one.shape and (
        len(one.shape) != values.ndim or any(isinstance(a, int) and a != b for a, b in zip(one.shape[1:], values.shape[1:], strict=True))
    ):
        hint = "; wrap(..., transform=...) makes it of a photo" if len(one.shape) == 4 else ""
        raise InputError(f"x has the shape {show_shape(values)}, and the model's input is {declared(one)}{hint}.")
    wanted = TYPES[one.type]
    if wanted is np.object_:
        return as_strings(values, one)
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            cast = values.astype(wanted)
    except (TypeError, ValueError) as error:
        raise InputError(f"the model's input {declared(one)} takes numbers, {one.type}: {first_line(error)}.") from error
    changed = cast != values if np.dtype(wanted).kind in "iub" else np.zeros(1, bool)
    if changed.any():
        raise InputError(f"the model's input {declared(one)} takes {one.type}, which {values[changed][0]} is not; give values of this type.")
    return cast


def as_strings(values: np.ndarray, one: Any) -> np.ndarray:
    odd = [value for value in values.ravel().tolist() if not isinstance(value, str)]
    if odd:
        raise InputError(f"the model's input {declared(one)} takes texts, and {odd[0]!r} is none.")
    return values.astype(object)


# ---- what comes out -----------------------------------------------------------------------------------------------


def chosen(outputs: list[Any], output: Any) -> Any:
    """The output that holds the scores. Raises InputError."""
    names = [one.name for one in outputs]
    if isinstance(output, str):
        if output not in names:
            raise InputError(f"output={output!r} is none of the model's; {near(output, names)}")
        output = names.index(output)
    if output is None:
        found = [k for k, one in enumerate(outputs) if "float" in one.type or "double" in one.type]
        if len(found) != 1:
            raise InputError(undecided(names, [names[k] for k in found]))
        output = found[0]
    if isinstance(output, bool) or not isinstance(output, int) or not 0 <= output < len(outputs):
        raise InputError(f"output={output!r}: give the name or the index of an output, of {', '.join(names)}.")
    if outputs[output].type == "tensor(string)":
        raise InputError(f"the output {names[output]!r} gives labels, and a label is no score; choose another, of {', '.join(names)}.")
    return outputs[output]


def undecided(names: list[str], found: list[str]) -> str:
    if found:
        return f"the model gives several scores, {', '.join(found)}; output= chooses one by its name or index."
    return f"the model gives no scores but {', '.join(names)}, and a label is no score; export it with its probabilities, or insist with output=."


def answers(session: Any, output: Any, fed: dict[str, np.ndarray]) -> Any:
    """The output for a batch. A model of a fixed batch size is asked piece by piece, the last one filled up."""
    total = len(next(iter(fed.values())))
    fixed = next((one.shape[0] for one in session.get_inputs() if one.shape and isinstance(one.shape[0], int)), total)
    rows = [np.minimum(np.arange(at, at + fixed), total - 1) for at in range(0, total, fixed)]
    parts = [session.run([output.name], {name: values[some] for name, values in fed.items()})[0] for some in rows]
    if "map" in output.type:
        return [row for part in parts for row in part][:total]
    return np.concatenate(parts)[:total]


def scores(out: Any) -> np.ndarray:
    """[n, k] of a dict for each row too, as scikit-learn's exporter writes probabilities; in the order of the sorted classes."""
    return np.array([[row[name] for name in sorted(row)] for row in out]) if isinstance(out, list) else out


# ---- the names of the classes, which onnxruntime does not tell ----------------------------------------------------


def zipped_labels(path: Path, output: Any) -> list[Any] | None:
    """The sorted classes of the file's node ZipMap, which makes a dict for each row. https://onnx.ai/onnx/api/classes.html has the field numbers."""
    if "map" not in output.type:
        return None
    (graph,) = (value for number, value in fields(path.read_bytes()) if number == 7)
    for number, value in fields(graph):
        node = list(fields(value)) if number == 1 else []
        if (4, b"ZipMap") in node:
            held = [one for kind, attribute in node if kind == 5 for one in fields(attribute)]
            return sorted(value.decode() if number == 9 else value for number, value in held if number in (8, 9))
    return None


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: whole numbers and bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value: Any
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of 7 bits, the lowest first, and where it ends."""
    end = next(k for k in range(at, len(data)) if data[k] < 128) + 1
    value = sum((byte & 127) << 7 * k for k, byte in enumerate(data[at:end]))
    return value - 2**64 if value >> 63 else value, end
