"""What stands where a component was taken away: grey, a mean, blur, noise, given values, rows of background data."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError, near
from askwhy.models.base import Items, is_missing, to_numpy
from askwhy.tables import Background, plain

if TYPE_CHECKING:
    from askwhy.components import Components

BASELINES = ("auto", "grey", "mean", "component_mean", "blur", "noise", "zero")


def absent(baseline: Any, items: Items, i: int, components: Components, seed: int = 0, *, weighted: bool = False) -> tuple[np.ndarray, str]:
    """The input without anything: [k, *item], and its name. k > 1 only where `baseline` is a set of background rows.

    baseline: "grey" (a grey photo through the model's transform; 0.5 or 127 for inputs in 0..1 or 0..255), "mean" (the
        item's mean colour), "component_mean" (each component's own), "blur", "noise", "zero", a number, an array shaped like an
        item, or background rows [k, ...]. "auto" is grey where that is known, else mean.
    weighted: whether the caller heeds the weights of a summarised background.
    """
    if isinstance(baseline, Background):
        if not weighted and np.ptp(baseline.weights) > 1e-12:
            raise InputError("this method counts every background row alike, and these have weights; use askwhy.background(..., how='sample').")
        rows, _ = absent(baseline.rows, items, i, components, seed)
        return rows, baseline.text
    if components.write is not None:
        return without_words(baseline, items)
    if items.arguments is not None and (items.kind == "several" or items.kind == "text"):
        return absent_inputs(baseline, items, i, seed)
    x = to_numpy(items.batch[i])
    if isinstance(baseline, str) and baseline == "zero":
        baseline = 0
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
    axis = components.channel_axis
    if axis is not None and values.shape == (x.shape[axis],):  # one value a channel
        values = np.broadcast_to(values[:, None, None] if axis == 0 else values, x.shape)
    if values.shape == x.shape:
        return _fitted(values[None], x, items), f"given {list(x.shape)}"
    if values.shape[1:] == x.shape and len(values):
        return _fitted(values, x, items), f"{len(values)} background rows"
    raise InputError(
        f"the baseline has the shape {list(values.shape)}; give a number, an item's shape {list(x.shape)}, or background rows [k, {', '.join(map(str, x.shape))}]."
    )


def without_words(baseline: Any, items: Items) -> tuple[np.ndarray, str]:
    """What stands for a word that is absent: nothing, or another."""
    if not isinstance(baseline, str) or baseline in BASELINES[1:]:
        raise InputError(f"baseline={baseline!r} means nothing for words; leave it out to remove them, or give what stands for them, as '[MASK]'.")
    if baseline in ("mask", "pad"):
        raise InputError(f"baseline={baseline!r} is for components='tokens'; for words give what stands for them itself, as '[MASK]'.")
    gone = "" if baseline == "auto" else baseline
    return np.array([gone], object), f"replaced by {gone!r}" if gone else "removed"


def absent_inputs(baseline: Any, items: Items, i: int, seed: int) -> tuple[np.ndarray, str]:
    """The same for tokens, or for several inputs, each with a baseline of its own in a dict or tuple."""
    from askwhy.components import undivided
    from askwhy.models.inputs import alone, without_tokens

    parts = items.arguments.parts
    found = []
    for part, choice in zip(parts, one_each(baseline, [part.name for part in parts]), strict=True):
        if part.lookups:
            found.append(without_tokens(items, part, i, choice))
        else:
            own = alone(items, part, i)
            rows, name = absent(choice, own, 0, undivided(own), seed)
            found.append((rows, name))
    if len(parts) == 1:
        return found[0]
    count = max(len(rows) for rows, _ in found)
    if any(len(rows) not in (1, count) for rows, _ in found):
        raise InputError(f"the baselines have {', '.join(str(len(rows)) for rows, _ in found)} rows; give every input as many, or one.")
    together = [np.broadcast_to(rows.reshape(len(rows), -1), (count, rows[0].size)) for rows, _ in found]
    return np.concatenate(together, 1), ", ".join(f"{part.name}: {name}" for part, (_, name) in zip(parts, found, strict=True))


def one_each(baseline: Any, names: list[str]) -> list[Any]:
    """A baseline for each input. Raises InputError."""
    if isinstance(baseline, dict):
        odd = [name for name in baseline if name not in names]
        if odd:
            raise InputError(f"baseline= names the input {odd[0]!r}; {near(odd[0], names)}")
        return [baseline.get(name, "auto") for name in names]
    if isinstance(baseline, tuple):
        if len(baseline) != len(names):
            raise InputError(f"baseline= has {len(baseline)} entries for the inputs {', '.join(names)}; give one for each.")
        return list(baseline)
    if len(names) > 1 and not isinstance(baseline, str):
        raise InputError(f"the model takes {', '.join(names)}; give each its own baseline, as baseline={{{names[0]!r}: ...}}.")
    return [baseline] * len(names)


def _values(baseline: Any, items: Items) -> np.ndarray:
    """The numbers of a baseline; the columns of a table have to be those of x."""
    columns = tuple(map(str, getattr(baseline, "columns", ())))
    if columns and items.names and columns != items.names:
        odd = sorted(set(columns) ^ set(items.names))
        raise InputError(f"the columns of the background are not those of x: {', '.join(odd) if odd else 'the order differs'}; give it x's columns.")
    return np.asarray(baseline.to_numpy() if hasattr(baseline, "to_numpy") else to_numpy(baseline))


def _fitted(values: np.ndarray, x: np.ndarray, items: Items) -> np.ndarray:
    """Rows [k, *item] in the type of x. Raises InputError where that would change a value."""
    gaps = items.kind == "table" and isinstance(items.batch, np.ndarray)  # a missing value is a value of a table
    if values.dtype.kind == "f" and items.rebuild is None and not (np.isfinite(values) | (gaps & np.isnan(values))).all():
        raise InputError("the baseline holds NaN or infinite numbers; replace them before asking.")
    try:
        with np.errstate(invalid="ignore", over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what numpy and pandas only warn about is refused below
            rows = values.astype(x.dtype)
            shown = items.rebuild(rows).to_numpy() if items.rebuild else rows
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"the baseline does not fit x, which is made of {x.dtype}: {error}") from error
    if x.dtype.kind == "f" and values.dtype.kind in "biuf" and items.rebuild is None:
        return rows  # a float of another precision is the same value
    first, second = values.ravel(), shown.ravel()
    unequal = [at for at, same in enumerate(np.equal(first, second, dtype=object).tolist()) if same is not True]  # pandas.NA is neither
    changed = [at for at in unequal if not _same(plain(first[at]), plain(second[at]))]
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
    return is_missing(a) and is_missing(b) if is_missing(a) or is_missing(b) else bool(a == b)


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
