"""The third noun: what an input is made of, and what "taken away" means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.absence import absent as absent
from askwhy.checks import is_whole
from askwhy.errors import InputError
from askwhy.models.base import Items
from askwhy.reading import Reading, whole
from askwhy.tables import one_hot_groups, place_of_column


@dataclass(frozen=True, eq=False)
class Components:
    """The parts of one item. Either `labels` divide it, or `windows` (which may overlap) cover it."""

    names: tuple[str, ...]  # d
    labels: np.ndarray | None = None  # int [h, w] or [features]: the component of each position
    windows: tuple[np.ndarray, np.ndarray] | None = None  # bool [rows, h] and [columns, w]: window (i, j) is their product
    tiles: bool = False  # places on a fixed grid, which are read as a map, and not things in the picture
    channel_axis: int | None = None  # of the item: 0 for [c, h, w], 2 for [h, w, c], None where there is none
    write: Callable[[np.ndarray, str], list[str]] | None = None  # of a text: (z [m, d], what stands for the absent) -> m texts
    reading: Reading | None = None  # of a text: where its components stand

    def __len__(self) -> int:
        return len(self.names)

    def present(self, z: np.ndarray) -> np.ndarray:
        """z [m, d] -> bool, broadcastable to [m, *item]: a position is absent when any component that covers it is."""
        shown = np.take(z, self.labels, axis=1) if self.labels is not None else self._uncovered(~z)
        return shown if self.channel_axis is None else np.expand_dims(shown, self.channel_axis + 1)

    def _uncovered(self, gone: np.ndarray) -> np.ndarray:
        """gone [m, d] -> bool [m, h, w]: the positions that no absent window covers.

        A matrix product would be shorter than the loop, but its threads would fight with those of the model.
        """
        assert self.windows is not None
        (top, bottom), (left, right) = ((w.argmax(1), w.shape[1] - w[:, ::-1].argmax(1)) for w in self.windows)
        shown = np.ones((len(gone), *(w.shape[1] for w in self.windows)), dtype=bool)
        for k, r, c in zip(*np.nonzero(gone.reshape(len(gone), len(top), len(left))), strict=True):
            shown[k, top[r] : bottom[r], left[c] : right[c]] = False
        return shown

    def paint(self, values: np.ndarray) -> np.ndarray:
        """values [d] -> the item's grid; where windows overlap, the mean of those that cover the position."""
        if self.labels is not None:
            return values[self.labels]
        assert self.windows is not None
        rows, columns = (w.astype(np.float64) for w in self.windows)
        total = rows.T @ values.reshape(len(rows), len(columns)) @ columns  # [h, w]
        return total / np.outer(rows.sum(0), columns.sum(0))


@dataclass(frozen=True)
class Recipe:
    """How to find the components of an item; its text goes into the result."""

    text: str
    make: Callable[[Items, int], Components]

    def __str__(self) -> str:
        return self.text


def pixels() -> Recipe:
    """Each pixel is a component (all its channels together). Example: `occlusion(model, x, components=pixels())`."""
    return Recipe("pixels()", lambda items, i: _grid(items, i, (1, 1), (1, 1)))


def patches(size: int | tuple[int, int] = 32, stride: int | tuple[int, int] | None = None) -> Recipe:
    """Square windows of `size` pixels, every `stride` pixels (default: side by side); the last ones are cut at the border."""
    size = _pair(size, "size")
    stride = size if stride is None else _pair(stride, "stride")
    if min(*size, *stride) < 1:
        raise InputError(f"size={size} and stride={stride} have to be at least 1 pixel.")
    return Recipe(f"patches(size={size}, stride={stride})", lambda items, i: _grid(items, i, size, stride))


def _pair(length: Any, what: str) -> tuple[int, int]:
    """Rows and columns from one number or two."""
    both = tuple(length) if isinstance(length, (tuple, list)) else (length, length)
    if len(both) != 2 or not all(map(is_whole, both)):
        raise InputError(f"{what}={length!r}: give a whole number of pixels, or (rows, columns).")
    return int(both[0]), int(both[1])


def superpixels(method: str = "slic", n: int = 60, **options: Any) -> Recipe:
    """Regions of similar colour, by scikit-image: "slic" (about `n` regions), "quickshift" or "felzenszwalb".

    `options` go to scikit-image's function of that name. Achanta et al. 2012; Vedaldi & Soatto 2008; Felzenszwalb 2004.
    """
    if method not in ("slic", "quickshift", "felzenszwalb"):
        raise InputError(f"superpixels({method!r}): choose 'slic', 'quickshift' or 'felzenszwalb'.")
    defaults: dict[str, dict[str, Any]] = {
        "slic": {"n_segments": n, "compactness": 10.0, "start_label": 0},
        "quickshift": {"kernel_size": 4, "max_dist": 200, "ratio": 0.2},  # the settings of LIME's authors
        "felzenszwalb": {"scale": 100, "sigma": 0.5, "min_size": 50},
    }
    settings = {**defaults[method], **options}

    def make(items: Items, i: int) -> Components:
        from skimage import segmentation

        picture = items.pictures[i]
        if picture is None:
            raise InputError(f"superpixels need a picture, but an item has the shape {list(items.batch.shape[1:])}.")
        try:
            return from_labels(getattr(segmentation, method)(picture, **settings), items)
        except TypeError as error:
            raise InputError(f"superpixels({method!r}) with {options}: {error}") from error

    text = ", ".join(f"{k}={v}" for k, v in settings.items() if k != "start_label")
    return Recipe(f"superpixels({method!r}, {text})", make)


def features(groups: Sequence[Sequence[int | str]] | dict[str, Sequence[int | str]] | str | None = None) -> Recipe:
    """The columns of a table, or named groups of columns that come and go together; columns in no group stand alone.

    groups="one-hot" finds the groups: columns whose names begin alike ("colour_red", "colour_blue"; also with "=" or ":"
    for "_"), of which every row has exactly one 1 among 0s. Example: `askwhy.shapley(model, X, background=X, components=askwhy.features("one-hot"))`.
    """
    return Recipe(f"features({'' if groups is None else groups})", lambda items, i: _features(items, groups))


def tokens() -> Recipe:
    """Each token of a text that a torch model looks up in an embedding."""
    return Recipe("tokens()", lambda items, i: _tokens(items, i))


def _tokens(items: Items, i: int) -> Components:
    if items.kind != "text" or items.arguments is None:
        what = "the model takes texts and shows no tokens; choose 'words'" if items.texts else f"an item has the shape {list(items.batch.shape[1:])}"
        raise InputError(f"components='tokens' needs a torch model's tokens, but {what}.")
    (part,) = items.arguments.parts
    size = int(np.prod(part.places))
    names = whole(part.readings[i], size).tokens if part.readings else tuple(f"token {k}" for k in range(size))
    return Components(names, part.owner.reshape(part.shape))


def from_labels(labels: np.ndarray, items: Items) -> Components:
    """Number the regions of a segmentation 0, 1, ... and name each by its place."""
    grid, axis = grid_of(items)
    if labels.shape != grid:
        raise InputError(f"the regions have the shape {list(labels.shape)}, the input's grid is {list(grid)}.")
    found, numbered = np.unique(labels, return_inverse=True)
    numbered = numbered.reshape(grid).astype(np.intp)
    if len(grid) == 2:
        names = tuple(f"region {k} ({place_of(numbered == k)})" for k in range(len(found)))
    else:
        names = tuple(f"region {k}" for k in range(len(found)))
    return Components(names, numbered, channel_axis=axis)


def undivided(items: Items) -> Components:
    """An item as one component."""
    grid, axis = grid_of(items)
    return Components(("all",), np.zeros(grid, int), channel_axis=axis)


def grid_of(items: Items) -> tuple[tuple[int, ...], int | None]:
    """The positions of an item without its channel axis, and where that axis is."""
    shape = tuple(items.batch.shape[1:])
    if len(shape) != 3:
        return shape, None
    if shape[0] in (1, 3, 4) or shape[2] not in (1, 3, 4):
        return shape[1:], 0
    return shape[:2], 2


def place_of(mask: np.ndarray) -> str:
    """Where a region lies, in words: "upper left", "middle", ..."""
    h, w = mask.shape
    y, x = (c.mean() for c in np.nonzero(mask))
    words = [("upper", "", "lower")[min(int(3 * y / h), 2)], ("left", "", "right")[min(int(3 * x / w), 2)]]
    return " ".join(filter(None, words)) or "middle"


def _grid(items: Items, i: int, size: tuple[int, int], stride: tuple[int, int]) -> Components:
    grid, axis = grid_of(items)
    if size == stride == (1, 1):
        labels = np.arange(int(np.prod(grid))).reshape(grid)
        return Components(tuple(f"pixel {', '.join(map(str, at))}" for at in np.ndindex(grid)), labels, tiles=True, channel_axis=axis)
    if len(grid) != 2:
        raise InputError(f"patches need a picture, but an item has the shape {list(items.batch.shape[1:])}.")
    if size[0] > grid[0] or size[1] > grid[1]:
        raise InputError(f"patches of {size[0]} x {size[1]} do not fit into an input of {grid[0]} x {grid[1]}; choose a smaller size=.")
    rows, columns = (_windows(length, s, t) for length, s, t in zip(grid, size, stride, strict=True))
    names = tuple(f"rows {_span(r)}, columns {_span(c)}" for r in rows for c in columns)
    return Components(names, None, (rows, columns), tiles=True, channel_axis=axis)


def _windows(length: int, size: int, stride: int) -> np.ndarray:
    """bool [count, length]: windows at 0, stride, ... until the last position is covered."""
    starts = np.arange(0, max(length - size, 0) + stride, stride)
    starts = starts[starts < length]
    at = np.arange(length)
    cover = (at >= starts[:, None]) & (at < starts[:, None] + size)
    if not cover.any(0).all():
        raise InputError(f"stride={stride} is larger than size={size}: part of the picture would never be covered.")
    return cover


def _span(window: np.ndarray) -> str:
    at = np.flatnonzero(window)
    return f"{at[0]}-{at[-1]}"


def _features(items: Items, groups: Any) -> Components:
    grid, _ = grid_of(items)
    if len(grid) != 1:
        raise InputError(f"features need a table [n, d], but an item has the shape {list(grid)}.")
    names = items.names or tuple(f"feature {k}" for k in range(grid[0]))
    if groups is None:
        return Components(names, np.arange(grid[0]))
    if isinstance(groups, str):
        if groups != "one-hot":
            raise InputError(f"groups={groups!r}: give 'one-hot', a dict of names and columns, or a list of lists of columns.")
        groups = one_hot_groups(items.batch, names)
    for members in groups.values() if isinstance(groups, dict) else groups:
        if isinstance(members, str) or not hasattr(members, "__len__"):
            raise InputError(f"groups= has {members!r} where a list of columns belongs.")
    if not isinstance(groups, dict):
        groups = {" + ".join(names[place_of_column(c, names)] for c in group): group for group in groups}
    labels = np.full(grid[0], -1)
    titles: list[str] = []
    for title, members in groups.items():
        if len(members) == 0:
            raise InputError(f"the group {title!r} is empty; give it columns, or leave it out.")
        for column in members:
            k = place_of_column(column, names)
            if labels[k] >= 0:
                raise InputError(f"groups= has the column {names[k]!r} twice.")
            labels[k] = len(titles)
        titles.append(str(title))
    for alone in np.flatnonzero(labels < 0):
        labels[alone] = len(titles)
        titles.append(names[alone])
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise InputError(f"{twice!r} names two components; give the group another name than the columns outside it.")
    return Components(tuple(titles), labels)
