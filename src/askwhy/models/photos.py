"""A batch of photos through the user's transform, with what is known about it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.models.base import Frame, check_finite, show_shape, to_numpy
from askwhy.models.pictures import ends, frame_of, from_values, grey_of, is_picture, read_picture, seen

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class Photos:
    """Inputs [n, ...] made from photos. `grey` is what grey photos of the same sizes become; None where that is unknown."""

    batch: np.ndarray
    grey: np.ndarray | None
    pictures: tuple[np.ndarray | None, ...]
    frames: tuple[Frame | None, ...]


def raw_items(x: Any, has_transform: bool) -> list[Any] | None:
    """The photos as a list, or None when x is a batch of numbers already. Byte arrays [n, d] and [n, h, w] are numbers unless a transform waits."""
    if is_picture(x) and (has_transform or np.ndim(x) != 2):
        return [x]
    if isinstance(x, np.ndarray) and x.ndim in ((3, 4) if has_transform else (4,)) and len(x) and is_picture(x[0]):
        return list(x)
    if isinstance(x, (list, tuple)) and len(x) and is_picture(x[0]) and (has_transform or np.ndim(x[0]) != 2):
        return list(x)
    return None


def through(transform: Transform, raw: list[Any], known: dict[Any, Any]) -> Photos:
    """Read each photo and transform it; `known` keeps the frame of each size."""
    photos = []
    for item in raw:
        if not is_picture(item):
            raise InputError(f"x holds a {type(item).__name__}; give pictures (a path, a PIL image, a uint8 array) or tensors.")
        photos.append(read_picture(item))
    ready = [transformed(transform, photo) for photo in photos]
    if len({one.shape for one in ready}) > 1:
        raise InputError(f"transform= gave different shapes, {show_shape(ready[0])} and others; let it resize to one size.")
    check_finite(np.stack(ready), "item")
    frames, grey = zip(*(study(transform, photo.size, known) for photo in photos), strict=True)
    fits = all(g is not None and g.shape == ready[0].shape for g in grey)
    pictures = tuple(map(view, ready, photos, frames))
    return Photos(np.stack(ready), np.stack(grey) if fits else None, pictures, frames)


def study(transform: Transform, size: tuple[int, int], known: dict[Any, Any]) -> tuple[Frame | None, np.ndarray | None]:
    """The frame and the grey input of photos of this size, found once."""
    key = ("photos of size", size)
    if key not in known:
        black_white = ends(transform, size)
        known[key] = frame_of(transform, size, black_white), grey_of(transform, size, black_white)
    return known[key]


def transformed(transform: Transform, photo: Any) -> np.ndarray:
    """One input without a batch axis."""
    out = transform(photo)
    if not hasattr(out, "shape"):
        raise InputError(f"transform= returned {type(out).__name__}; it has to return one tensor or array without a batch axis.")
    array = to_numpy(out)
    if array.ndim not in (1, 2, 3):
        raise InputError(f"transform= returned the shape {show_shape(array)}; it has to return one input without a batch axis.")
    if array.dtype.kind not in "biuf":
        raise InputError(f"transform= returned {array.dtype}; it has to return numbers.")
    return array


def view(ready: np.ndarray, photo: Any, frame: Frame | None) -> np.ndarray | None:
    """What the model sees: the photo's own pixels where the frame is known."""
    if frame is None or ready.ndim != 3:
        return from_values(ready)
    height, width = ready.shape[1:] if ready.shape[0] in (1, 3) else ready.shape[:2]
    return seen(photo, frame, height, width)
