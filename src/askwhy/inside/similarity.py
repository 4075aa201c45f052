"""How alike the layers of two networks are, or those of one: centred kernel alignment and others, on the same inputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.errors import InputError
from askwhy.game import Progress, progress_of
from askwhy.inside.alignment import Measure, compared, measures, products, rbf
from askwhy.inside.rows import pooled_rows, stacked
from askwhy.inside.stored import check_room, free_memory
from askwhy.kept import Kept
from askwhy.layers import count, loads, read_loads, torch_model
from askwhy.models.torch_module import TorchModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 8  # items: the jackknife of fewer is worth nothing
ROOM = 2**31  # bytes of representations that are held together where the free memory is not known
TITLES = {"cka": "centred kernel alignment", "procrustes": "Procrustes similarity", "knn": "shared nearest neighbours"}


@dataclass(frozen=True, eq=False)
class Similarity(Kept):
    """values [a, b]: how alike layer a of one network and layer b of the other are, 1 for the same up to rotation and scale.

    std_error [a, b] where it is known. null [shuffles, a, b]: the values when the items of one side are shuffled.
    """

    values: np.ndarray
    layers_a: tuple[str, ...]
    layers_b: tuple[str, ...]
    measure: str
    null: np.ndarray
    items: int
    std_error: np.ndarray | None = None
    itself: bool = False  # one network's layers with each other
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def match(self) -> list[tuple[str, str, float]]:
        """For each layer of a: the most similar one of b (of the same network: the most similar other one), and their similarity."""
        return [(self.layers_a[i], self.layers_b[j], float(self.values[i, j])) for i, j in self.best()]

    def best(self) -> list[tuple[int, int]]:
        """The places of the matches; none for a layer that gives the same for all items."""
        usable = np.where(np.isnan(self.values), -np.inf, self.values)
        if self.itself:
            usable[np.array([[a == b for b in self.layers_b] for a in self.layers_a])] = -np.inf
        return [(i, int(row.argmax())) for i, row in enumerate(usable) if np.isfinite(row.max())]

    def summary(self) -> str:
        """What is most similar to what, the error, what chance would give, and the cost."""
        pairs = [
            f"{self.layers_a[i] or 'output'} - {self.layers_b[j] or 'output'} {self.values[i, j]:.3f}{self.error_of(i, j)}" for i, j in self.best()
        ]
        more = f", and {len(pairs) - 8} more (match())" if len(pairs) > 8 else ""
        lines = [f"{self.title()}, {self.items} items; most similar: {', '.join(pairs[:8]) or 'none'}{more}", *self.trust()]
        return "\n".join([*lines, f"{self.model_calls} model calls, {self.seconds:.2f} s"])

    def error_of(self, i: int, j: int) -> str:
        return "" if self.std_error is None or np.isnan(self.std_error[i, j]) else f" (standard error {self.std_error[i, j]:.2g})"

    def trust(self) -> list[str]:
        """What is known of the error and of chance, one sentence each."""
        over = self.details.get("error_over")
        said = [f"standard errors are over {over}" if over else "no standard error for this measure"]
        if self.null.size and not np.isnan(self.null).all():
            said.append(
                f"with the items of one side shuffled it is {np.nanmean(self.null):.3f} on average and at most {np.nanmax(self.null):.3f} "
                f"({len(self.null)} shuffles): a value near that says nothing"
            )
        dead = [name or "output" for name, side in self.sides() if np.isnan(side).all()]
        if dead:
            apart = ", or have all items equally far apart, but for single ones" if self.params.get("debiased") else ""
            said.append(f"no value, since they give the same for every item{apart}: {', '.join(dict.fromkeys(dead))}")
        if self.std_error is not None and (np.isnan(self.std_error) & ~np.isnan(self.values)).any():
            said.append("no standard error where a value hangs on a single item")
        return said

    def sides(self) -> list[tuple[str, np.ndarray]]:
        return [*zip(self.layers_a, self.values, strict=True), *zip(self.layers_b, self.values.T, strict=True)]

    def title(self) -> str:
        told = [str(self.params["kernel"]), "debiased" if self.params["debiased"] else "biased"] if self.measure == "cka" else []
        return f"{TITLES[self.measure]} ({', '.join(told)})" if told else TITLES[self.measure]

    def plot(self, ax: Axes | None = None) -> Axes:
        """A heat map of layers by layers, 0 dark and 1 bright; frames mark the most similar. Returns the axes and never shows them."""
        from askwhy import show

        rows, columns = ([name or "output" for name in side] for side in (self.layers_a, self.layers_b))
        x, y = ("layer", "layer") if self.itself else ("layer of the second model", "layer of the first model")
        title = f"{self.title()}, {self.items} items"
        return show.cells(
            self.values, rows, columns, ax, title=title, unit="similarity (1: the same up to rotation and scale)", x=x, y=y, marked=self.best()
        )

    def __repr__(self) -> str:
        return f"<Similarity by {self.measure}, {len(self.layers_a)} x {len(self.layers_b)} layers, {self.items} items>"


def similarity(
    model_a: Any, model_b: Any, X: Any, layers_a: Any = None, layers_b: Any = None, *, measure: str = "cka", kernel: str | None = None,
    debiased: bool | None = None, neighbours: int | None = None, pool: str = "flat", seed: int = 0, batch_size: int | str = "auto",
    progress: bool | Progress | None = None,
) -> Similarity:  # fmt: skip
    """How alike each layer of model_a and each of model_b are on the same inputs X; model_b=None: the layers of one model.

    measure: "cka", centred kernel alignment <K, L> / |K| |L| (Kornblith et al. 2019), debiased by the unbiased HSIC of Song
    et al. (2012), so that few items with many features are not alike by chance; kernel: "linear" or "rbf" (the width is the
    median distance). "procrustes": 1 for what a rotation and a scale make equal. "knn": the mean share of the `neighbours`
    (10) nearest items that are the same. layers: as in `askwhy.activations`. pool: "flat" compares all numbers of a layer,
    "mean" or "max" those of its channels. All are the same under rotation and scaling, not under other linear maps.
    seed: of the shuffles that say what chance gives. Raises InputError, LayerError, UnsupportedError.
    Example: `askwhy.similarity(net, other, photos).plot()`.
    """
    began = time.perf_counter()
    told, seed = options(measure, kernel, debiased, neighbours), whole("seed", seed)
    how = measures(told.get("debiased", True), told.get("neighbours", 10))[measure]
    pieces = list(loads(X))  # held, since a loader that shuffles, or augments, would give others the next time
    items = sum(count(one) or 0 for one in pieces)
    check(items, told)
    one = model_b is None or model_b is model_a
    a = torch_model(model_a)
    with progress_of(progress, "similarity") as tick:
        both = [Read(a, layers_a), Read(a if one else torch_model(model_b), layers_a if one and layers_b is None else layers_b)]
        asked = both[:1] if one and layers_b is None else both
        read_all(asked, pieces, items, pool, how, told.get("kernel") == "rbf", batch_size, tick)
    a_side, b_side = asked[0].found, asked[-1].found
    values, error, null = compared(how, list(a_side.values()), list(b_side.values()), seed)
    return Similarity(
        values, tuple(a_side), tuple(b_side), measure, null, items, error, one, {**told, "pool": pool, "batch_size": batch_size},
        {"error_over": how.error_over}, sum(side.calls for side in asked), time.perf_counter() - began, seed, versions(),
    )  # fmt: skip


OPTIONS: dict[str, dict[str, Any]] = {"cka": {"kernel": "linear", "debiased": True}, "procrustes": {}, "knn": {"neighbours": 10}}


def options(measure: str, kernel: Any, debiased: Any, neighbours: Any) -> dict[str, Any]:
    """Those that the measure has. Raises InputError."""
    if measure not in OPTIONS:
        raise InputError(f"measure={measure!r}: choose {', '.join(map(repr, OPTIONS))}.")
    given = {"kernel": kernel, "debiased": debiased, "neighbours": neighbours}
    for name, value in given.items():
        if value is not None and name not in OPTIONS[measure]:
            raise InputError(f"{name}= means nothing for measure={measure!r}; leave it out.")
    if kernel not in (None, "linear", "rbf"):
        raise InputError(f"kernel={kernel!r}: choose 'linear' or 'rbf'.")
    return {name: usual if given[name] is None else given[name] for name, usual in OPTIONS[measure].items()}


def check(items: int, told: Mapping[str, Any]) -> None:
    """Raises InputError."""
    if items < LEAST:
        raise InputError(f"X holds {items} items; a similarity needs {LEAST} or more, better some hundred.")
    whole("neighbours", told.get("neighbours", 1), 1, items - 2, f", for {items} items")


# ---- reading, some layers at a time ---------------------------------------------------------------------------------


@dataclass(eq=False)
class Read:
    """What is known of one model's layers: the prepared matrices by layer."""

    model: TorchModel
    layers: Any
    found: dict[str, np.ndarray | None] = field(default_factory=dict)
    calls: int = 0


def read_all(
    asked: Sequence[Read], pieces: list[Any], items: int, pool: str, how: Measure, curved: bool, batch_size: Any, tick: Progress | None
) -> None:
    """Fill `found`: as many layers in one pass over the items as fit into memory."""
    widths = [widths_of(side, pieces, pool) for side in asked]
    matrices = sum(map(len, widths))
    check_room(
        2.0 * 8 * items**2 * matrices, f"{matrices} layers on {items:,} items, each a matrix of {items:,} x {items:,}", "give fewer items or layers"
    )
    passes = [(side, group) for side, sizes in zip(asked, widths, strict=True) for group in groups(sizes, items)]
    for k, (side, group) in enumerate(passes):
        rows: dict[str, list[np.ndarray]] = {name: [] for name in group}
        own_tick = None if tick is None else (lambda done, total, k=k: tick(k * items + done, len(passes) * items))  # type: ignore[misc]
        for read in read_loads(side.model, pieces, items, group, keeper(side.model, pool), batch_size=batch_size, tick=own_tick):
            side.calls += len(read.own) + (read.items.calls if read.own.start == 0 else 0)
            for name, one in read.outs.items():
                rows[name].append(one)
        for name in group:
            found = products(stacked(name, rows.pop(name)))
            side.found[name] = None if found is None else how.prepare(rbf(found) if curved else found)


def keeper(model: TorchModel, pool: str) -> Any:
    return lambda name, out, items, own: pooled_rows(model, name, out, items, own, pool)


def widths_of(side: Read, pieces: list[Any], pool: str) -> dict[str, int]:
    """The bytes of one item in each layer, from a pass of one."""
    first = next(read_loads(side.model, pieces, None, side.layers, keeper(side.model, pool)))
    side.calls += 1 + first.items.calls
    return {name: one.nbytes for name, one in first.outs.items()}


def groups(sizes: Mapping[str, int], items: int) -> list[list[str]]:
    """Layers that are read in one pass."""
    free = free_memory()
    room = (ROOM if free is None else free / 4) / items
    found: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        check_room(2.0 * size * items, f"layer {name!r} of {items:,} items", "give fewer items, or pool='mean'")
        if found[-1] and held + size > room:
            found, held = [*found, []], 0
        found[-1].append(name)
        held += size
    return found
