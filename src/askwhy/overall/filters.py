"""What a filter detects: the images, and the patches in them, that excite each channel of a layer most."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import versions
from askwhy.checks import is_whole
from askwhy.errors import InputError, UnsupportedError
from askwhy.game import Progress, progress_of
from askwhy.kept import Kept
from askwhy.layers import read_layers, torch_model
from askwhy.overall.excited import BY, FIELDS, Best, Found, seen_fields
from askwhy.overall.receptive import one_layer

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
else:
    torch = lazy("torch", "torch")

SHOWN = 8  # channels that are shown where nobody says which
QUANTILES = (0.5, 0.9, 0.99)
OUTSIDE = (128, 128, 128, 60)  # a veil of grey, seen on white and on black


@dataclass(frozen=True, eq=False)
class Filters(Kept):
    """The items that excite k channels of a layer most, the strongest first.

    values, items [k, top]; places [k, top, axes] in the layer's grid; boxes [k, top, 4]: top, left, bottom, right (exclusive) in
    the picture that the model saw; patches: what lies in them, uint8 [h, w, 3], row by row; words [k][top]: the same of a text.
    scores [n, k]: those of every item. active [k]: the share of items with a place above 0. dead: channels of the layer (of
    `width`) that gave one and the same number everywhere.
    """

    several = frozenset({"patches"})
    layer: str
    channels: tuple[int, ...]
    values: np.ndarray
    items: np.ndarray
    places: np.ndarray
    boxes: np.ndarray
    patches: tuple[np.ndarray, ...]
    words: tuple[tuple[str, ...], ...]
    scores: np.ndarray
    active: np.ndarray
    dead: tuple[int, ...]
    width: int
    grid: tuple[int, ...]
    picture: tuple[int, int] | None  # height and width of what the model sees
    field_size: tuple[int, int] | None  # height and width of the largest receptive field
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.channels)

    @property
    def quantiles(self) -> np.ndarray:
        """[3, k]: below which half, 90 % and 99 % of the items lie."""
        return np.quantile(self.scores.astype(np.float64), QUANTILES, axis=0)

    @property
    def stands_out(self) -> np.ndarray:
        """[k]: how many standard deviations of all items lie between their mean and that of the top; 0 where all are the same."""
        scores = self.scores.astype(np.float64)
        spread = scores.std(0)
        return np.divide(self.values.mean(1) - scores.mean(0), spread, out=np.zeros(len(self)), where=spread > 0)

    @property
    def cut(self) -> np.ndarray:
        """bool [k, top]: whether the border of the picture cuts a field off, so that its patch is smaller than the field."""
        if self.field_size is None or self.picture is None or self.params["field"] == "effective":
            return np.zeros(self.values.shape, bool)
        low, high = self.boxes[..., :2], self.boxes[..., 2:]
        return (((low == 0) | (high == self.picture)) & (high - low < self.field_size)).any(-1)  # type: ignore[no-any-return]

    def summary(self) -> str:
        """A few lines: what was seen, each channel's top beside what is usual, what the patches are, the cost."""
        n, top = len(self.scores), self.values.shape[1]
        places = self.details.get("places", f"{' x '.join(map(str, self.grid))} places")
        what = f"by the {self.params['by']} over {places}" if self.grid else "one number for each channel"
        lines = [f"layer {self.layer!r}: the {top} items of {n:,} that excite {len(self)} of {self.width} channels most, {what}"]
        middle, high, _ = self.quantiles
        for k, channel in enumerate(self.channels):
            lines.append(
                f"channel {channel}: top {brief(self.values[k, 0])} to {brief(self.values[k, -1])}, median of all {brief(middle[k])}, "
                f"90% below {brief(high[k])}; above 0 in {self.active[k]:.0%} of the items; the top lies {self.stands_out[k]:.1f} standard deviations above the mean"
            )
        return "\n".join([*lines, *self.trust(), f"{self.model_calls:,} model calls, {self.seconds:.2f} s"])

    def trust(self) -> list[str]:
        """What to keep in mind, one sentence each."""
        said = [f"the top is {self.values.shape[1] / len(self.scores):.1%} of the items: it shows the extremes, not all that a channel answers to"]
        if self.dead:
            names = ", ".join(map(str, self.dead[:12])) + (", ..." if len(self.dead) > 12 else "")
            said.append(f"dead on these items, one and the same number everywhere: {len(self.dead)} of {self.width} channels ({names})")
        if self.picture is not None and self.field_size is not None:
            whole = "all of it" if self.field_size == self.picture else f"{self.field_size[0]} x {self.field_size[1]} pixels"
            said.append(f"a place sees {whole} of {self.picture[0]} x {self.picture[1]}; {FIELDS[self.params['field']]}")
        if self.cut.any() and self.field_size != self.picture:
            said.append(f"{int(self.cut.sum())} of {self.cut.size} patches are cut off at the border of the picture, and marked so")
        return [*said, self.details["note"]] if "note" in self.details else said

    def plot(self, ax: Axes | None = None, *, portraits: Mapping[int, np.ndarray] | None = None) -> Axes:
        """A line of patches for each channel, the strongest first, the activation below; returns the axes and never shows them.

        portraits: a picture uint8 [h, w, 3] by channel, put in front. Raises InputError.
        """
        from askwhy.show.filters import patch_rows, word_rows

        names = [f"channel {channel}{' (dead)' if channel in self.dead else ''}" for channel in self.channels]
        title = f"what excites layer {self.layer!r} most, of {len(self.scores):,} items"
        if self.picture is None:
            return word_rows(self.words, self.values, names, ax, title=title)
        cut = self.cut & (self.field_size != self.picture)
        marked = f"{title} (* cut off by the border of the picture)" if cut.any() else title
        told = [
            f"{brief(value)}{'*' if mark else ''} · item {item}"
            for value, mark, item in zip(self.values.flat, cut.flat, self.items.flat, strict=True)
        ]
        shown = [self.whole(*one) for one in zip(self.patches, self.boxes.reshape(-1, 4), cut.ravel().tolist(), strict=True)]
        return patch_rows(shown, told, names, self.in_order(portraits), ax, title=marked)

    def whole(self, patch: np.ndarray, box: np.ndarray, cut: bool) -> np.ndarray:
        """A patch with nothing where the field lies outside of the picture, so that all are of one scale."""
        if not cut or self.field_size is None or self.picture is None:
            return patch
        clear = np.dstack([patch, np.full(patch.shape[:2], 255, np.uint8)])
        lack = np.array(self.field_size) - patch.shape[:2]
        lacks = np.stack([lack * (box[:2] == 0), lack * (box[2:] == self.picture)], 1)
        outside = np.pad(np.zeros(patch.shape[:2], bool), lacks, constant_values=True)
        shown = np.pad(clear, (*lacks, (0, 0)))
        shown[outside] = OUTSIDE
        return shown

    def in_order(self, portraits: Mapping[int, np.ndarray] | None) -> list[np.ndarray | None] | None:
        """A portrait for each channel that has one. Raises InputError."""
        if portraits is None:
            return None
        odd = [channel for channel in portraits if channel not in self.channels]
        if odd:
            raise InputError(f"portraits= has the channel {odd[0]!r}, and these are the channels {', '.join(map(str, self.channels[:12]))}.")
        return [portraits.get(channel) for channel in self.channels]

    def __repr__(self) -> str:
        return f"<Filters of layer {self.layer!r}, {len(self)} channels, {len(self.scores)} items>"


def filters(
    model: Any, X: Any, layer: Any = None, channels: int | Sequence[int] | None = None, *, top: int = 9, by: str = "max", field: str = "full",
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Filters:  # fmt: skip
    """The images of X, and the patches in them, that excite channels of a layer most (Zeiler & Fergus 2014).

    X: photos, paths, a tensor, texts, a Dataset or DataLoader, of any size: it is streamed, and the `top` items of each
    channel are kept, one place an item; of equal ones the first. layer: by name or module; None: the last convolution.
    channels: their numbers; None: 8 spread over all. by: "max" or "mean" over the places, which orders the items.
    field: "full" cuts out all that the place can see, exactly (`askwhy.receptive_field`); "effective" the smallest box with
    95 % of the squared gradient of this channel there. A token that sees the whole picture shows the patch it stands for.
    Raises InputError, LayerError, UnsupportedError. Example: `askwhy.filters(model, photos, "layer2").plot()`.
    """
    began = time.perf_counter()
    check(top, by, field)
    wrapped = torch_model(model)
    name = one_layer(wrapped, last_convolution(wrapped.net) if layer is None else layer)
    best = Best(wrapped, name, channels, top, by, SHOWN, keeps_inputs=field == "effective")
    with progress_of(progress, "filters") as tick:
        for read in read_layers(wrapped, X, [name], best.peaks, batch_size=batch_size, tick=tick):
            best.add(read)
    found: Found = seen_fields(best, field, batch_size)
    return Filters(
        name, tuple(best.channels), best.values, best.items, best.places(), **vars(found), scores=best.scores(), active=best.active / best.seen,
        dead=best.dead(), width=best.width, grid=best.grid, params={"by": by, "top": int(top), "field": field}, seconds=time.perf_counter() - began,
        versions=versions(),
    )  # fmt: skip


def brief(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def check(top: Any, by: str, field: str) -> None:
    if not is_whole(top, 1):
        raise InputError(f"top={top!r}: give the number of items to keep for each channel, from 1 on.")
    for name, value, known in (("by", by, tuple(BY)), ("field", field, tuple(FIELDS))):
        if value not in known:
            raise InputError(f"{name}={value!r}: choose {' or '.join(map(repr, known))}.")


def last_convolution(net: torch.nn.Module) -> str:
    """The name of the last one, as they are written down. Raises UnsupportedError."""
    found = [name for name, part in net.named_modules() if isinstance(part, torch.nn.modules.conv._ConvNd)]
    if not found:
        raise UnsupportedError(
            "the model has no convolution; name a layer with layer=: its units, or the channels of its tokens, are looked at in the same way."
        )
    return found[-1]
