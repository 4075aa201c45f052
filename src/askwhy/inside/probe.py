"""What can be read from a model's layers: linear and small MLP probes, with the controls that say how much is the probe's own work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.errors import InputError
from askwhy.game import Progress, progress_of
from askwhy.inside.asked import truth_of
from askwhy.inside.probe_job import (
    INPUT,
    READING,
    Job,
    Work,
    check,
    check_folds,
    check_length,
    control_of,
    groups_of,
    types_of,
    unit_of,
)  # fmt: skip
from askwhy.inside.probe_rows import read_items, read_words, untrained, words_of
from askwhy.inside.probing import chance_of, corrected_error
from askwhy.kept import Kept
from askwhy.layers import count, torch_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOW = 0.1  # of the score: a probe that does not do so much better than on random answers says little of the layer
CONTROLS = {"types": "one random answer for each type", "untrained": "the same layers of an untrained copy"}


@dataclass(frozen=True, eq=False)
class Probe(Kept):
    """What probes read from layers. scores, control [layers, probes, folds] on unseen rows; bits [layers, probes], NaN where there is none.

    The layer "input" is the model's input itself; for words, a table of the answer that each word has most often.
    """

    layers: tuple[str, ...]
    probes: tuple[str, ...]
    scores: np.ndarray
    unit: str  # "accuracy", "balanced_accuracy" or "r2"
    chance: float
    control: np.ndarray | None = None
    control_kind: str = ""  # "types" or "untrained"
    bits: np.ndarray | None = None
    uniform_bits: float = 0.0
    classes: tuple[str, ...] = ()
    rows: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def values(self) -> np.ndarray:
        """The mean score over the folds [layers, probes]."""
        return np.asarray(self.scores.mean(-1))

    @property
    def std_error(self) -> np.ndarray:
        """Of `values`; approximate, for the folds share training rows (Nadeau & Bengio 2003)."""
        return corrected_error(self.scores)

    @property
    def selectivity(self) -> np.ndarray:
        """The score less that of the control [layers, probes] (Hewitt & Liang 2019); NaN without a control."""
        return self.values - (np.nan if self.control is None else self.control.mean(-1))

    @property
    def compression(self) -> np.ndarray:
        """The bits of a uniform code by those of the probe's [layers, probes] (Voita & Titov 2020); larger is easier to read."""
        return np.full(self.values.shape, np.nan) if self.bits is None else self.uniform_bits / self.bits

    def best(self, probe: str) -> str:
        """The layer, other than the input, that a probe reads best."""
        return self.layers[self._best(self._probe(probe))]

    def _probe(self, probe: str) -> int:
        if probe not in self.probes:
            raise InputError(f"probe={probe!r}: there are {', '.join(map(repr, self.probes))}.")
        return self.probes.index(probe)

    def _best(self, p: int) -> int:
        own = [k for k, name in enumerate(self.layers) if name != INPUT]
        return own[int(np.argmax(self.values[own, p]))]

    def table(self) -> list[dict[str, Any]]:
        """One line for each layer and probe, as `pandas.DataFrame` takes them."""
        columns = {"score": self.values, "std_error": self.std_error, "control": self.values - self.selectivity, "selectivity": self.selectivity}
        columns |= {"bits": np.full(self.values.shape, np.nan) if self.bits is None else self.bits, "compression": self.compression}
        return [
            {"layer": layer, "probe": probe, **{name: float(held[k, p]) for name, held in columns.items()}}
            for k, layer in enumerate(self.layers) for p, probe in enumerate(self.probes)
        ]  # fmt: skip

    @property
    def cautions(self) -> tuple[str, ...]:
        """Why what was read may not be the layer's: a sentence each, none where nothing speaks against it."""
        return (*(said for p in range(len(self.probes)) for said in self._cautions(p)), *self.details.get("cautions", ()))

    def _cautions(self, p: int) -> list[str]:
        """At the layer where probe p reads most."""
        at, name = self._best(p), self.probes[p]
        score = self.values[at, p]
        if score <= self.chance + 2 * self.std_error[at, p]:
            return [f"the {name} probe reads nothing at any layer: its best, {score:.3f}, is not above chance"]
        said = []
        if self.control_kind == "types" and self.selectivity[at, p] < LOW:
            said.append(
                f"the {name} probe learns random answers nearly as well ({score - self.selectivity[at, p]:.3f} beside {score:.3f}): it may learn the task by itself"
            )
        if self.control is not None and self.control_kind == "untrained" and self._as_good(self.control[at, p], at, p):
            said.append(
                f"the {name} probe reads as much from an untrained copy ({self.control[at, p].mean():.3f} beside {score:.3f}): training put nothing there that it sees"
            )
        if INPUT in self.layers and self._as_good(self.scores[self.layers.index(INPUT), p], at, p):
            said.append(
                f"the input itself gives as much ({self.values[self.layers.index(INPUT), p]:.3f} beside {score:.3f}, {name}): the model makes it no easier to read"
            )
        return said

    def _as_good(self, other: np.ndarray, at: int, p: int) -> bool:
        gain = self.scores[at, p] - other
        return bool(gain.mean() <= 2 * corrected_error(gain))

    def summary(self) -> str:
        """A few lines: the best layer of each probe, what it is worth, the cost and how far to trust it."""
        what = f"{self.rows:,} {self.details.get('of', 'rows')}" + (f" in {len(self.classes)} classes" if self.classes else "")
        lines = [
            f"what {' and '.join(self.probes)} probes read from {sum(name != INPUT for name in self.layers)} layers: {what}, {self.unit} on unseen rows, chance {self.chance:.3f}"
        ]
        lines += [self._line(p) for p in range(len(self.probes))]
        lines += [f"control: {CONTROLS[self.control_kind]}" + " (drawn once)"] if self.control is not None else []
        lines += [f"caution: {one}" for one in self.cautions]
        lines.append(
            f"standard errors over {self.scores.shape[-1]} folds are approximate, since folds share training rows; the best layer was chosen on the same rows"
        )
        return "\n".join([*lines, f"{self.model_calls} model calls, {self.seconds:.1f} s"])

    def _line(self, p: int) -> str:
        at = self._best(p)
        said = f"{self.probes[p]}: {self.values[at, p]:.3f} (standard error {self.std_error[at, p]:.3f}) at {self.layers[at]}"
        if self.control is not None:
            said += f", control {self.control[at, p].mean():.3f}, selectivity {self.selectivity[at, p]:.3f}"
        return said if self.bits is None else f"{said}, {self.bits[at, p] / 1000:.1f} kbit (compression {self.compression[at, p]:.2f})"

    def plot(self, ax: Axes | None = None, title: str = "") -> Axes:
        """The score layer by layer with 95 % bands, controls dashed, chance dotted. Returns the axes and never shows them."""
        from askwhy import show

        control = None if self.control is None else (self.control.mean(-1), corrected_error(self.control), self.control_kind)
        return show.probe_curves(
            self.layers, self.probes, self.values, self.std_error, ax, control=control, chance=self.chance, unit=self.unit, title=title
        )

    def __repr__(self) -> str:
        return f"<Probe of {len(self.layers)} layers by {', '.join(self.probes)}, {self.unit} {self.values.max():.3f}>"


def probe(
    model: Any, X: Any, y: Any, layer: Any = None, *, probes: Sequence[str] = ("linear", "mlp"), pool: str = "mean", pieces: str = "mean",
    control: bool | str = True, types: Any = None, score: str | None = None, task: str | None = None, folds: int = 5, groups: Any = None,
    seed: int = 0, hidden: int | Sequence[int] = 256, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Probe:  # fmt: skip
    """How well y can be read from frozen layers, on rows that the probe has not seen: accuracy, or R² of numbers.

    y: one answer for each item of X; or, with X a list of sentences (lists of words), a list of tags for each, where a word is
    its `pieces` ("mean", "first", "last") and sentences stay whole; groups: one for each item or sentence, kept together.
    control: "types", each type (word, or types= [n]) has one random answer, the default where there are types (Hewitt & Liang
    2019); or "untrained", the same layers with random weights; False. score: "accuracy", "balanced_accuracy", "r2" (1 - mean
    squared error of a fold / variance of y, so that folds of equal answers have one too).
    Also the description length (Voita & Titov 2020). hidden: units of the MLP's layers. layer, pool: as `activations` has them.
    Raises InputError, LayerError, UnsupportedError. Example: `askwhy.probe(model, X, y).plot()`.
    """
    began = time.perf_counter()
    asked = check(probes, folds, seed, hidden, control)
    seed = asked[-1]
    wrapped, words = torch_model(model), words_of(X, y)
    n = count(X) if words is None else len(words.texts)
    truth, classes = truth_of(y if words is None else [tag for tags in y for tag in tags], task)
    if words is None:
        check_length("y", len(truth), len(truth) if n is None else n)
    group = groups_of(groups, n or len(truth), words)
    check_folds(truth, classes, group, folds, words is not None)
    kinds = None if types is None else types_of(types, len(truth))
    how = control_of(control, words is not None or kinds is not None)
    models = [wrapped, untrained(wrapped, seed)] if how == "untrained" else [wrapped]
    with progress_of(progress, "probe") as tick:
        work = Work(tick, len(models))
        ticks = [partial(work.reading, k) for k in range(len(models))]
        if words is None:
            read = read_items(models, X, layer, pool, batch_size, ticks)
        else:
            read = [read_words(of, words, layer, pieces, batch_size, one) for of, one in zip(models, ticks, strict=True)]
        work.add(READING * len(models))
        found, beside = read[0], read[1] if len(read) > 1 else None
        check_length("y", len(truth), found.rows)
        kinds = found.types if kinds is None else kinds
        job = Job(truth, len(classes), group, unit_of(score, classes), found.types, work, *asked)
        sources = found.sources
        work.plan(len(sources), len(sources if how == "types" else beside.layers if beside else ()), job)
        scores = job.table(sources)
        other = job.controls(sources, how, kinds, beside)
        bits = job.lengths(sources) if classes else None
    said = job.cautions(classes, "sentences" if words is not None else "groups")
    return Probe(
        tuple(sources), job.probes, scores, job.score, chance_of(truth, len(classes), job.score), other, how, bits,
        len(truth) * float(np.log2(max(len(classes), 1))), classes, len(truth),
        {"pool": pool if words is None else pieces, "folds": folds, "hidden": list(job.hidden), "groups": groups is not None},
        {"of": "words" if words is not None else "items", "cautions": said},
        sum(one.calls for one in read), time.perf_counter() - began, seed, versions(),
    )  # fmt: skip
