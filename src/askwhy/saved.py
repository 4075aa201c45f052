"""An Explanation as a file, and back."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import FileError, UnsupportedError
from askwhy.files import read_archive, write_file
from askwhy.reading import Reading, Shown

FORMAT = 1
TUPLES = {"target", "versus", "components", "data", "frames", "outputs"}


def write_fields(found: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the fields of an Explanation to one NumPy archive with JSON in it. Raises FileError."""
    pictures, inputs = found["pictures"], found["inputs"]
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)} | pictures_of(pictures, "picture")
    for k, one in enumerate(inputs):
        arrays |= pictures_of(one.pictures, f"input_{k}_picture")
    rest = {name: value for name, value in found.items() if name not in arrays}
    rest |= {"pictures": len(pictures), "readings": list(map(asdict, found["readings"]))}
    rest["inputs"] = [{**asdict(one), "pictures": len(one.pictures)} for one in inputs]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, json=np.array(json.dumps({"askwhy": FORMAT, **rest}, default=plain)), **arrays)
    return write_file(path, buffer.getvalue())


def pictures_of(pictures: tuple[np.ndarray | None, ...], name: str) -> dict[str, np.ndarray]:
    return {f"{name}_{i}": p for i, p in enumerate(pictures) if p is not None}


def read_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that `write_fields` wrote. Raises FileError for anything else."""
    held, text = read_archive(path, "Explanation")
    version = text.pop("askwhy", None)
    if not isinstance(version, int):
        raise FileError(f"{path} is no saved Explanation (it names no format).")
    if version > FORMAT:
        raise FileError(f"{path} was written by a newer askwhy (format {version}); update askwhy.")
    try:
        special = {
            "pictures": take(held, "picture", text.pop("pictures")),
            "inputs": tuple(shown(one, held, k) for k, one in enumerate(text.pop("inputs", ()))),
            "readings": tuple(map(reading, text.pop("readings", ()))),
            "details": {k: tuple(v) if isinstance(v, list) else v for k, v in text.pop("details").items()},
        }
        return {**held, **{name: tuples(value) if name in TUPLES else value for name, value in text.items()}, **special}
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is no saved Explanation ({error}).") from error


def take(held: dict[str, Any], name: str, count: int) -> tuple[np.ndarray | None, ...]:
    return tuple(held.pop(f"{name}_{i}", None) for i in range(count))


def shown(one: dict[str, Any], held: dict[str, Any], k: int) -> Shown:
    """One of several inputs."""
    return Shown(one["name"], tuple(one["shape"]), tuple(map(reading, one["readings"])), take(held, f"input_{k}_picture", one["pictures"]))


def reading(one: dict[str, Any]) -> Reading:
    return Reading(**{name: tuples(value) for name, value in one.items()})


def plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise UnsupportedError(f"a {type(value).__name__} among the parameters or details cannot be saved; leave it out, or give its name.")


def tuples(value: Any) -> Any:
    return tuple(map(tuples, value)) if isinstance(value, list) else value
