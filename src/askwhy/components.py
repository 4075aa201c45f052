"""The third noun: what an input is made of, and what "taken away" means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.models.base import Items, to_numpy


@dataclass(frozen=True, eq=False)
class Components:
    """The parts of one item. Either `labels` divide it, or `windows` (which may overlap) cover it."""

    names: tuple[str, ...]  # d
    labels: np.ndarray | None = None  # int [h, w] or [features]: the component of each position
    windows: tuple[np.ndarray, np.ndarray] | None = None  # bool [rows, h] and [columns, w]: window (i, j) is their product
    tiles: bool = False  # places on a fixed grid, which are read as a map, and not things in the picture
    channel_axis: int | None = None  # of the item: 0 for [c, h, w], 2 for [h, w, c], None where there is none

    def __len__(self) -> int:
        return len(self.names)

    def present(self, z: np.ndarray) -> np.ndarray:
        """z [m, d] -> bool, broadcastable to [m, *item]: a position is absent when any component that covers it is."""
        shown = z[:, self.labels] if self.labels is not None else self._uncovered(~z)
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
    size = (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[assignment]
    stride = size if stride is None else (stride, stride) if isinstance(stride, int) else tuple(stride)  # type: ignore[assignment]
    if min(*size, *stride) < 1:  # type: ignore[misc]
        raise InputError(f"size={size} and stride={stride} have to be at least 1 pixel.")
    return Recipe(f"patches(size={size}, stride={stride})", lambda items, i: _grid(items, i, size, stride))  # type: ignore[arg-type]


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
        return from_labels(getattr(segmentation, method)(picture, **settings), items)

    text = ", ".join(f"{k}={v}" for k, v in settings.items() if k != "start_label")
    return Recipe(f"superpixels({method!r}, {text})", make)


def features(groups: Sequence[Sequence[int | str]] | dict[str, Sequence[int | str]] | None = None) -> Recipe:
    """The columns of a table, or named groups of columns that come and go together; columns in no group stand alone."""
    return Recipe(f"features({'' if groups is None else groups})", lambda items, i: _features(items, groups))


RECIPES: dict[str, Callable[[], Recipe]] = {"pixels": pixels, "patches": patches, "superpixels": superpixels, "features": features}


def recipe(components: Any, items: Items) -> Recipe:
    """What the user named: a recipe, its name, an array of labels, or None for the usual one of this kind of input."""
    if isinstance(components, Recipe):
        return components
    if components is None:
        components = {"image": "superpixels", "table": "features"}.get(items.kind, "pixels")
    if isinstance(components, str):
        if components not in RECIPES:
            raise InputError(f"components={components!r}: choose one of {', '.join(map(repr, RECIPES))}, or give an array that numbers the regions.")
        return RECIPES[components]()
    array = np.asarray(components)
    if array.dtype.kind not in "iu":
        raise InputError(f"components= is {array.dtype} {list(array.shape)}; an array has to number the regions, int [h, w].")
    return Recipe(f"{len(np.unique(array))} given regions", lambda items, i: from_labels(array, items))


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
    if not isinstance(groups, dict):
        groups = {" + ".join(names[_column(c, names)] for c in group): group for group in groups}
    labels = np.full(grid[0], -1)
    titles: list[str] = []
    for title, members in groups.items():
        for column in members:
            k = _column(column, names)
            if labels[k] >= 0:
                raise InputError(f"groups= has the column {names[k]!r} twice.")
            labels[k] = len(titles)
        titles.append(str(title))
    for alone in np.flatnonzero(labels < 0):
        labels[alone] = len(titles)
        titles.append(names[alone])
    return Components(tuple(titles), labels)


def _column(column: int | str, names: Sequence[str]) -> int:
    if isinstance(column, str):
        if column not in names:
            raise InputError(f"groups= names the column {column!r}, which is not in the table.")
        return list(names).index(column)
    if not 0 <= int(column) < len(names):
        raise InputError(f"groups= names the column {column}, but there are {len(names)}.")
    return int(column)


# ---- what stands where a component was taken away -----------------------------------------------------------------

BASELINES = ("auto", "grey", "mean", "component_mean", "blur", "noise")


def absent(baseline: Any, items: Items, i: int, components: Components, seed: int = 0) -> tuple[np.ndarray, str]:
    """The input without anything: [k, *item], and its name. k > 1 only where `baseline` is a set of background rows.

    baseline: "grey" (a grey photo through the model's transform; 0.5 or 127 for inputs in 0..1 or 0..255), "mean" (the
        item's mean colour), "component_mean" (each component's own), "blur", "noise", a number, an array shaped like an
        item, or background rows [k, ...]. "auto" is grey where that is known, else mean.
    """
    x = to_numpy(items.batch[i])
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise InputError(f"baseline={baseline!r}: choose one of {', '.join(map(repr, BASELINES))}, a number, or an array.")
        if items.kind == "table":
            raise InputError(
                f"baseline={baseline!r} means nothing for a table; give background=rows (say 100 rows of the training data), or the values of one row as baseline=."
            )
        if baseline == "auto":
            baseline = "mean" if _grey(items, i, x) is None else "grey"
        return _whole(_named(baseline, items, i, x, components, seed), x.dtype)[None], baseline
    values = _values(baseline, items)
    if values.ndim == 0:
        return _fitted(np.broadcast_to(values, (1, *x.shape)), x, items), str(values.item())
    if values.shape == x.shape[:1] and x.ndim == 3 and components.channel_axis == 0:
        values = np.broadcast_to(values[:, None, None], x.shape)
    if values.shape == x.shape:
        return _fitted(values[None], x, items), f"given {list(x.shape)}"
    if values.shape[1:] == x.shape and len(values):
        return _fitted(values, x, items), f"{len(values)} background rows"
    raise InputError(
        f"the baseline has the shape {list(values.shape)}; give a number, an item's shape {list(x.shape)}, or background rows [k, {', '.join(map(str, x.shape))}]."
    )


def _values(baseline: Any, items: Items) -> np.ndarray:
    """The numbers of a baseline; the columns of a table have to be those of x."""
    columns = tuple(map(str, getattr(baseline, "columns", ())))
    if columns and items.names and columns != items.names:
        odd = sorted(set(columns) ^ set(items.names))
        raise InputError(f"the columns of the background are not those of x: {', '.join(odd) if odd else 'the order differs'}; give it x's columns.")
    return np.asarray(baseline.to_numpy() if hasattr(baseline, "to_numpy") else to_numpy(baseline))


def _fitted(values: np.ndarray, x: np.ndarray, items: Items) -> np.ndarray:
    """Rows [k, *item] in the type of x. Raises InputError where that would change a value."""
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            rows = values.astype(x.dtype)
        shown = items.rebuild(rows).to_numpy() if items.rebuild else rows
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"the baseline does not fit x, which is made of {x.dtype}: {error}") from error
    if x.dtype.kind == "f" and values.dtype.kind in "biuf" and items.rebuild is None:
        return rows  # a float of another precision is the same value
    changed = [at for at, (a, b) in enumerate(zip(values.ravel().tolist(), shown.ravel().tolist(), strict=True)) if not _same(a, b)]
    if changed:
        column = changed[0] % max(x.size, 1)
        name = f"column {items.names[column]!r}" if items.names else "x"
        raise InputError(
            f"the baseline's {values.ravel()[changed[0]]} does not fit {name}, which would make it {shown.ravel()[changed[0]]} "
            f"({'unknown category or whole numbers' if items.rebuild else f'whole numbers, {x.dtype}'}); give x a type that holds both."
        )
    return rows


def _same(a: Any, b: Any) -> bool:
    """Equal, or both missing (NaN, NaT and pandas.NA are not equal to themselves)."""
    return a is b or (a != a and b != b) if _missing(a) or _missing(b) else bool(a == b)


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _whole(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Computed values in the type of the input; whole numbers are rounded and kept in their range."""
    if dtype.kind in "iu":
        values = np.rint(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype, copy=False)


def _grey(items: Items, i: int, x: np.ndarray) -> np.ndarray | None:
    if items.grey is not None:
        return to_numpy(items.grey[i])
    if x.min() < 0 or x.max() > 255:
        return None
    whole = x.dtype == np.uint8 or x.max() > 1
    return np.full_like(x, 127 if whole else 0.5)


def _named(name: str, items: Items, i: int, x: np.ndarray, components: Components, seed: int) -> np.ndarray:
    if name == "grey":
        grey = _grey(items, i, x)
        if grey is None:
            raise InputError(
                f"baseline='grey' is unknown for an input from {x.min():.3g} to {x.max():.3g}; wrap(model, transform=...) and give the photo, or give a number, or 'mean'."
            )
        return grey
    axis = components.channel_axis
    grid = tuple(k for k in range(x.ndim) if k != axis)
    if name == "mean":
        return np.broadcast_to(x.mean(grid, keepdims=True), x.shape)
    if name == "noise":
        spread, middle = x.std(grid, keepdims=True), x.mean(grid, keepdims=True)
        return middle + spread * np.random.default_rng([seed, i]).standard_normal(x.shape)
    if name == "blur":
        from scipy.ndimage import gaussian_filter

        width = max(max(x.shape[k] for k in grid) / 16, 1.0)
        return gaussian_filter(x.astype(np.float64), [0.0 if k == axis else width for k in range(x.ndim)])
    if components.labels is None:
        raise InputError("baseline='component_mean' needs components that do not overlap; use 'mean', or superpixels.")
    flat, last = components.labels.ravel(), np.moveaxis(x, axis, -1) if axis is not None else x[..., None]
    sizes = np.bincount(flat, minlength=len(components))
    means = np.stack([np.bincount(flat, c.ravel(), len(components)) / sizes for c in np.moveaxis(last, -1, 0)], -1)
    painted = means[components.labels]  # [*grid, c]
    return np.moveaxis(painted, -1, axis) if axis is not None else painted[..., 0]
