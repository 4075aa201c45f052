"""Results as files, and back: frozen values of arrays, tuples of arrays, and what JSON can hold."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from askwhy.errors import FileError
from askwhy.files import read_archive, write_file
from askwhy.saved import FORMAT, plain, tuples

T = TypeVar("T")


class Kept:
    """What all results that are not an Explanation share: equal when they hold the same, a file, and a card in a notebook."""

    several: frozenset[str] = frozenset()  # fields that are tuples of arrays
    plot: Callable[..., Any]
    summary: Callable[[], str]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one file (a NumPy archive with JSON in it, no pickle). Raises FileError."""
        return write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote. Raises FileError for anything else."""
        return read(cls, path, cls.several)

    def _repr_html_(self) -> str:
        from askwhy.show import as_data_uri

        return f'<div><img alt="{escape(repr(self))}" src="{as_data_uri(self.plot())}"><pre>{escape(self.summary())}</pre></div>'


def write(result: Any, path: str | os.PathLike[str]) -> Path:
    """One NumPy archive with JSON in it, and no pickle. Raises FileError."""
    arrays: dict[str, np.ndarray] = {}
    rest: dict[str, Any] = {}
    for f in fields(result):
        value = getattr(result, f.name)
        if isinstance(value, np.ndarray):
            arrays[f.name] = value
        elif isinstance(value, tuple) and any(isinstance(one, np.ndarray) for one in value):
            kept = {f"{f.name}.{k}": one for k, one in enumerate(value) if one.dtype != object}
            arrays |= kept
            rest[f.name] = [None if f"{f.name}.{k}" in kept else one.tolist() for k, one in enumerate(value)]
        else:
            rest[f.name] = value
    buffer = io.BytesIO()
    told = json.dumps({**rest, "askwhy": FORMAT, "kind": type(result).__name__}, default=plain)
    np.savez_compressed(buffer, json=np.array(told), **arrays)  # type: ignore[arg-type]
    return write_file(path, buffer.getvalue())


def read(kind: type[T], path: str | os.PathLike[str], of_arrays: frozenset[str] = frozenset()) -> T:
    """What `write` wrote of a result of this kind. Raises FileError for anything else."""
    held, told = read_archive(path, kind.__name__)
    version, found = told.pop("askwhy", None), told.pop("kind", "Explanation")
    if found != kind.__name__ or not isinstance(version, int):
        raise FileError(f"{path} holds no saved {kind.__name__}, but {found}; load it with askwhy.{found}.load.")
    if version > FORMAT:
        raise FileError(f"{path} was written by a newer askwhy (format {version}); update askwhy.")
    try:
        several = {name: joined(told.pop(name), held, name) for name in of_arrays}
        kept = {name: value if isinstance(value, dict) else tuples(value) for name, value in told.items()}
        return kind(**held, **kept, **several)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is no saved {kind.__name__} ({error}).") from error


def joined(told: list[Any], held: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    """A tuple of arrays; levels stand in the JSON."""
    return tuple(held.pop(f"{name}.{k}") if one is None else np.array([*one, None], object)[:-1] for k, one in enumerate(told))


def same(a: Any, b: Any) -> bool:
    """Whether two results hold the same."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fM")
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    a, b = (one.item() if isinstance(one, np.generic) else one for one in (a, b))  # a file holds Python's numbers
    return type(a) is type(b) and bool(a == b)
