"""What the readers share: the names of the raw scores, and small help with flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from askwhy.errors import InputError, UnsupportedError
from askwhy.models.base import first_line

Meaning = tuple[str, str]  # the unit of the raw score, and the link from it to what the library predicts

COUNT: Meaning = ("log of the expected count", "exp")
LOG_ODDS: Meaning = ("log odds", "logistic")
MARGIN: Meaning = ("margin", "identity")
MEAN: Meaning = ("log of the expected value", "exp")
OTHER: Meaning = ("margin", "another")  # a link that Forest does not name
OWN: Meaning = ("the target's own unit", "identity")
RANKING: Meaning = ("ranking score", "identity")
SOFTMAX: Meaning = ("log odds before softmax", "softmax")

BLACK_BOX = "aw.shapley(model, x, background=rows) explains the model as a black box."


def starts(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each part begins when they stand one after another."""
    return np.cumsum(sizes) - np.asarray(sizes)


def two_dimensional(scores: np.ndarray) -> np.ndarray:
    """float64 [n, k] of scores [n] or [n, k]."""
    return np.asarray(scores, np.float64).reshape(len(scores), -1)


@contextmanager
def as_it_is_known(library: str) -> Iterator[None]:
    """A file that lacks a field, or has one of another size, is of a version that is not known."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedError(
            f"{library} writes its trees in a way that askwhy does not know ({type(error).__name__}: {error}); save the model again with "
            f"a current version, or {BLACK_BOX}"
        ) from error


@contextmanager
def numbers_only() -> Iterator[None]:
    """Inside the block a table is made into numbers."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"a column of numbers holds something else: {first_line(error)}") from error
