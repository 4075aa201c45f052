"""What comes out: a frozen value that knows its question, its method, its cost, and how far to trust it."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import FileError, InputError, UnsupportedError, near
from askwhy.reading import Reading, Shown, in_words
from askwhy.saved import read_fields, write_fields

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model answered as it did. `why[i]` is one item; values are raw, scaling happens only for display.

    values: [n, ...]: shaped like the input; [n, h, w] for maps; [n, d] for components, which `components` names.
    target, versus: the names of what was asked, one per item. prediction [n]: the score of each item as it is.
    unit: of the values. base_value [n]: the score, or the surrogate's intercept, with everything absent, where the method has one.
    residual [n]: the completeness gap over the change of the score, where the method promises completeness.
    std_error: like values, where the method samples; NaN for a component that was not selected.
    details: what the method found out beside the values (fidelity, the layer, ...): text, a number, or a tuple with one for each item.
    """

    values: np.ndarray
    method: str = ""
    unit: str = "score units"
    params: Mapping[str, Any] = field(default_factory=dict)
    target: tuple[str, ...] = ()
    versus: tuple[str, ...] | None = None
    prediction: np.ndarray = field(default_factory=lambda: np.empty(0))
    base_value: np.ndarray | None = None
    residual: np.ndarray | None = None
    std_error: np.ndarray | None = None
    components: tuple[tuple[str, ...], ...] | None = None
    data: tuple[tuple[str, ...], ...] | None = None  # what a table holds in each component, in words; held(i) reads many rows of numbers
    regions: np.ndarray | None = None  # int [n, h, w]: the component of each pixel, for values [n, d] of pictures
    readings: tuple[Reading, ...] = ()  # the texts whose tokens the components are
    inputs: tuple[Shown, ...] = ()  # of a model of several: `why[name]` explains one; here their values lie side by side, [n, d]
    details: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[np.ndarray | None, ...] = ()
    numbers: np.ndarray | None = None  # [n, d]: the same as numbers; a category as the place of its level, a missing value as NaN
    outputs: tuple[str, ...] = ()  # of values [n, d, k] for all outputs at once: `why[name]` explains one
    frames: tuple[tuple[float, ...] | None, ...] = ()  # left, top, right, bottom of the part that the model sees, photo's width, height
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | str | slice | Sequence[int] | np.ndarray) -> Explanation:
        """One item, still with its leading axis of length 1; some, by a slice, numbers or a mask; one of several inputs or outputs by its name.

        The cost is that of the whole call.
        """
        if isinstance(index, (slice, list, np.ndarray)):
            return self._items(np.arange(len(self))[np.asarray(index, int) if isinstance(index, list) and not index else index])
        if isinstance(index, str) and (self.inputs or self.outputs):
            return self._input(index) if self.inputs else self._output(index)
        if not isinstance(index, (int, np.integer)):
            raise InputError(f"why[{index!r}]: an Explanation is indexed by item, 0 to {len(self) - 1}, a slice, a list of items or a mask.")
        i = range(len(self))[index]  # raises IndexError, and counts -1 from the end
        return self._items(np.array([i]))._without_padding()

    def _without_padding(self) -> Explanation:
        """One item with as many values as it has components."""
        if not self.components or self.values.ndim not in (2, 3):
            return self
        d = len(self.components[0])
        if self.values.ndim == 3:
            return self if self.outputs else replace(self, values=self.values[:, :d, :d])
        return replace(self, values=self.values[:, :d], std_error=None if self.std_error is None else self.std_error[:, :d])

    def _items(self, chosen: np.ndarray) -> Explanation:
        if not len(chosen):
            raise InputError(f"why[...] chooses none of its {len(self)} items.")
        cut = {f.name: _pick(getattr(self, f.name), chosen) for f in fields(self) if f.name in PER_ITEM}
        details = {k: _pick(v, chosen) if isinstance(v, tuple) and len(v) == len(self) else v for k, v in self.details.items()}
        inputs = tuple(replace(one, readings=_pick(one.readings, chosen), pictures=_pick(one.pictures, chosen)) for one in self.inputs)
        return replace(self, **cut, details=details, inputs=inputs)

    def _input(self, name: str) -> Explanation:
        start, names = 0, [one.name for one in self.inputs]
        for one in self.inputs:
            stop = start + one.size
            if one.name == name:
                values = self.values[:, start:stop].reshape(len(self), *one.shape)
                error = None if self.std_error is None else self.std_error[:, start:stop].reshape(values.shape)
                alone = replace(self, values=values, std_error=error, inputs=(), pictures=one.pictures)
                return in_words(alone, one.readings) if one.readings else alone
            start = stop
        raise InputError(f"why[{name!r}]: {near(name, names)}")

    def _output(self, name: str) -> Explanation:
        if name not in self.outputs:
            raise InputError(f"why[{name!r}]: {near(name, self.outputs)}")
        k = self.outputs.index(name)
        one: dict[str, Any] = {
            f: None if getattr(self, f) is None else getattr(self, f)[..., k] for f in ("values", "prediction", "base_value", "residual")
        }
        return replace(self, **one, outputs=(), target=(name,) * len(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanation):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def map(self, i: int = 0) -> np.ndarray:
        """[h, w]: what is drawn over the picture of item i. Channels are summed, components painted."""
        one = self[i].values[0]
        if self.regions is not None:
            return one[self.regions[i]]
        if self.components is not None and one.ndim == 2:
            raise UnsupportedError("interactions are no map of a picture; use plot() or top().")
        if one.ndim == 3:
            return one.sum(0 if one.shape[0] in (1, 3, 4) or one.shape[2] not in (1, 3, 4) else 2)
        if one.ndim != 2:
            raise UnsupportedError(f"values of shape {list(one.shape)} are no map; use top() or plot().")
        return one

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k strongest parts of the first item as (name, value), largest magnitude first.

        A map is read on a 7 x 7 grid, by mean; of several inputs each is one part, by its sum.
        """
        if k < 0:
            raise InputError(f"k={k}: give the number of parts to name.")
        names, values = self._parts()
        order = np.argsort(-np.abs(values), kind="stable")[:k]
        return [(names[j], float(values[j])) for j in order]

    def _parts(self) -> tuple[tuple[str, ...], np.ndarray]:
        if self.outputs:
            raise UnsupportedError(f"these are the values of {len(self.outputs)} outputs; choose one, as why[{self.outputs[0]!r}].")
        if self.inputs:
            return tuple(one.name for one in self.inputs), np.array([self[one.name].values[0].sum() for one in self.inputs])
        if self.components is not None and self.values.ndim == 3:
            return _pairs(self.components[0], self.values[0])
        if self.components is not None:
            return self.components[0], self[0].values[0]
        if self.values.ndim == 2:
            return tuple(f"feature {k}" for k in range(self.values.shape[1])), self.values[0]
        heat = self.map()
        rows, columns = (np.array_split(np.arange(length), min(7, length)) for length in heat.shape)
        cells = [(r, c) for r in rows for c in columns]
        names = tuple(f"rows {r[0]}-{r[-1]}, columns {c[0]}-{c[-1]}" for r, c in cells)
        return names, np.array([heat[np.ix_(r, c)].mean() for r, c in cells])

    def boxes(self, threshold: float = 0.15, i: int = 0, *, largest: bool = False) -> list[tuple[list[float], float]]:
        """Where the map of item i reaches `threshold` times its maximum: ([x0, y0, x1, y1], mean value), strongest sum first.

        One box around each connected region, or largest=True: only the one with the most pixels (Zhou et al. 2016).
        In the original photo's pixels where they are known, else in the input's. Raises InputError for a bad threshold.
        """
        from skimage.measure import label, regionprops

        heat = self.map(i)
        if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
            raise InputError(f"threshold={threshold!r}: give a share of the maximum, above 0 and at most 1.")
        if heat.max() <= 0:
            return []
        found = regionprops(label(heat >= threshold * heat.max()), intensity_image=heat)
        found.sort(key=lambda r: -r.area * r.intensity_mean)
        kept = [max(found, key=lambda r: r.area)] if largest else found
        return [(self._to_photo(r.bbox, heat.shape, i), float(r.intensity_mean)) for r in kept]

    def _to_photo(self, bbox: tuple[int, ...], shape: tuple[int, ...], i: int) -> list[float]:
        y0, x0, y1, x1 = bbox
        frame = self.frames[i] if self.frames else None
        picture = self.pictures[i] if self.pictures else None
        height, width = shape if picture is None else picture.shape[:2]  # a map may be coarser than the input
        left, top, right, bottom = (0.0, 0.0, float(width), float(height)) if frame is None else frame[:4]
        sx, sy = (right - left) / shape[1], (bottom - top) / shape[0]
        return [left + x0 * sx, top + y0 * sy, left + x1 * sx, top + y1 * sy]

    def held(self, i: int = 0) -> tuple[str, ...] | None:
        """What a table holds in each component of item i, in words; None where this is not known."""
        if self.data is not None:
            return self.data[i] if self.data else None
        if self.numbers is None or self.components is None or self.numbers.shape[1] != len(self.components[i]):
            return None
        return tuple("missing" if number != number else f"{number:.6g}" for number in self.numbers[i])

    def question(self, i: int = 0) -> str:
        """ "tiger cat", or "tiger cat rather than lynx"."""
        if not self.target:
            return "the score"
        return self.target[i] + (f" rather than {self.versus[i]}" if self.versus else "")

    def summary(self) -> str:
        """A few lines of text: the question, the answer, its cost and how far to trust it."""
        lines = []
        items = [self[i] for i in range(min(len(self), SUMMED_UP))]
        for one in [item[name] for item in items for name in self.outputs] if self.outputs else items:
            parts = ", ".join(f"{name}: {value:+.3g}" for name, value in one.top(3))
            score = f" (score {one.prediction[0]:.4g})" if len(one.prediction) else ""
            lines.append(f"{self.method}: why {one.question()}?{score} strongest: {parts}")
        if len(self) > len(items):
            lines.append(f"... and {len(self) - len(items):,} more items; why[i] is one of them")
        lines.append(f"{self.model_calls} model calls, {self.seconds:.2f} s; " + "; ".join(self.trust()))
        return "\n".join(lines)

    def trust(self) -> list[str]:
        """What is known about the error, one sentence each."""
        said = []
        if self.residual is not None:
            unruled = self.details.get("without_rule")
            why = f"; no rule is known for {unruled}" if unruled else ""
            said.append(f"completeness gap {np.abs(self.residual).max():.2g} of the change in the score{why}")
        if "bias_share" in self.details:
            said.append(f"the model's constants (biases) hold {', '.join(f'{b:.3g}' for b in self.details['bias_share'])} of the score")
        if self.std_error is not None and np.isfinite(self.std_error).any():
            errors = np.concatenate([one.std_error.ravel() for one in self if one.std_error is not None])  # without the padding
            said.append(f"standard error {np.nanmedian(errors):.2g} (median), largest value {np.abs(self.values).max():.2g}")
        if "fidelity" in self.details:
            said.append(f"the surrogate explains {min(self.details['fidelity']):.0%} of the variance near the input (R2)")
        if "bfloat16_deviation" in self.details:
            said.append(f"computed in bfloat16: scores deviate from float32 by up to {self.details['bfloat16_deviation']:.2g}")
        if "note" in self.details:
            said.append(self.details["note"])
        return said or ["no error bars: this method does not sample, and its values promise no sum that could be checked"]

    def plot(self, ax: Axes | None = None, i: int = 0, how: str = "auto", **options: Any) -> Axes:
        """Draw item i and return the axes, which are never shown. how: "map", "regions" (the strongest, outlined), "text", "bars",
        "waterfall" (from the base value to the score), "force", "matrix" (interactions), "rule" (anchors), or "auto": what suits the values.

        Of all rows of a table: "beeswarm" (most, order), "importance" (cohorts, most), "dependence" (feature, partner), "scatter" (feature),
        "interactions" (most), "decision" (highlight, most). Example: `why.plot(how="dependence", feature="age")`.
        """
        from askwhy.plots import draw

        return draw(self, ax, i, how, options)

    def to_svg(self, i: int | None = None, *, order: str = "auto") -> str:
        """The force picture as one SVG that needs no script: of row i, or of all rows of a table side by side.

        order: "similarity", "prediction", "given", or "auto" (similarity up to 2,000 rows). Raises InputError where the values sum
        to no score. Example: `Path("forces.svg").write_text(why.to_svg(), "utf-8")`.
        """
        from askwhy.plots import forces

        return forces(self, i, order)

    def _repr_html_(self) -> str:
        from askwhy.show import as_data_uri

        first = [self[i] for i in range(min(4, len(self)))]
        shown = [one[part.name] for one in first for part in one.inputs] if self.inputs else [self] if self.outputs else first
        pictures = "".join(f'<img alt="{html.escape(self.method)}" src="{as_data_uri(one.plot())}">' for one in shown[:4])
        return f"<div>{pictures}<pre>{html.escape(self.summary())}</pre></div>"

    def to_html(self) -> str:
        """A self-contained fragment of HTML: the picture and the summary."""
        return self._repr_html_()

    def __repr__(self) -> str:
        return f"<Explanation by {self.method}, values {list(self.values.shape)}, {', '.join(self.question(i) for i in range(min(len(self), 3)))}>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one file (a NumPy archive with JSON in it, no pickle). Raises FileError."""
        return write_fields({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote. Raises FileError for anything else."""
        try:
            return cls(**read_fields(path))
        except TypeError as error:
            raise FileError(f"{path} is no saved Explanation ({error}).") from error


SUMMED_UP = 10  # items in a summary
PER_ITEM = {
    "values",
    "target",
    "versus",
    "prediction",
    "base_value",
    "residual",
    "std_error",
    "components",
    "data",
    "numbers",
    "regions",
    "readings",
    "pictures",
    "frames",
}


def _pairs(names: tuple[str, ...], values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """What each pair adds together (both halves), then what each component adds alone."""
    first, second = np.triu_indices(len(names), 1)
    named = tuple(f"{names[a]} x {names[b]}" for a, b in zip(first, second, strict=True))
    return (*named, *names), np.concatenate([2 * values[first, second], np.diag(values)[: len(names)]])


def _pick(value: Any, chosen: np.ndarray) -> Any:
    if value is None or len(value) == 0:
        return value
    return value[chosen] if isinstance(value, np.ndarray) else tuple(value[i] for i in chosen)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Shown) and isinstance(b, Shown):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return type(a) is type(b) and bool(a == b)
