"""The items that excite a channel most, gathered piece by piece, and what of them its places see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.checks import is_whole
from askwhy.errors import AskwhyError, InputError, LayerError, ModelError, UnsupportedError
from askwhy.layers import Read, channels_of, real_places
from askwhy.models.base import Items, show_shape
from askwhy.models.torch_module import TorchModel
from askwhy.overall.footprint import smallest_box
from askwhy.overall.receptive import SHARE, check_within, energy, measured, middle, picture_axes, sides

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

BY = {"max": lambda own: own.amax(-1), "mean": lambda own: own.mean(-1)}  # [channels, places] -> [channels]
FIELDS = {
    "full": "the patches are all that can be seen from the place, which is more than what matters most",
    "effective": "the patches are the smallest boxes with 95% of the squared gradient of the channel at the place",
}
MOST_PREFIX = 8  # class and register tokens before the patches
AROUND = 3  # words of a text on either side


@dataclass(eq=False)
class Peaks:
    """Of some items: scores [m, k], the places of the maxima [m, k], the maxima [m, k], the range of the layer's channels [2, c]."""

    scores: np.ndarray
    where: np.ndarray
    highest: np.ndarray
    ends: np.ndarray


@dataclass(eq=False)
class Kept:
    """What is kept of an item as long as it is among the best."""

    picture: np.ndarray | None
    reading: Any
    row: Any  # of the batch, where a gradient is wanted


@dataclass(eq=False)
class Best:
    """The best items of each channel so far."""

    model: TorchModel
    name: str
    asked: int | Sequence[int] | None
    top: int
    by: str
    most: int
    keeps_inputs: bool
    channels: list[int] = field(default_factory=list)
    width: int = 0
    grid: tuple[int, ...] = ()
    seen: int = 0
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    items: np.ndarray = field(default_factory=lambda: np.empty((0, 0), int))
    flat: np.ndarray = field(default_factory=lambda: np.empty((0, 0), int))  # the places, counted through
    active: np.ndarray = field(default_factory=lambda: np.empty(0))
    all_scores: list[np.ndarray] = field(default_factory=list)
    ends: np.ndarray | None = None  # [2, c]: the lowest and highest number of each channel
    kept: dict[int, Kept] = field(default_factory=dict)
    first: Items | None = None

    def peaks(self, name: str, out: torch.Tensor, items: Items, own: range) -> Peaks:
        """What read_layers keeps of a piece."""
        if out.ndim < 2:
            raise LayerError(f"layer {name!r} gives {show_shape(out)}; name one that gives several channels for each item.")
        axis = channels_of(self.model, name, out)
        if not self.channels:
            self.begin(out, axis)
        if tuple(n for k, n in enumerate(out.shape) if k not in (0, axis)) != self.grid and self.first is not None and self.first.kind != "text":
            raise InputError(
                f"layer {name!r} gives {show_shape(out)} and had {' x '.join(map(str, self.grid))} places before; give X items of one size."
            )
        chosen = out.index_select(axis, torch.tensor(self.channels, device=out.device)).movedim(axis, 1).reshape(len(out), len(self.channels), -1)
        held = real_places(items, own, chosen.shape[2])
        return whole_peaks(chosen, out, axis, self.by, self.open(out)) if held is None else held_peaks(chosen, out, axis, self.by, held)

    def begin(self, out: torch.Tensor, axis: int) -> None:
        self.width = out.shape[axis]
        self.channels = chosen_channels(self.asked, self.width, self.most, self.name)
        self.grid = tuple(n for k, n in enumerate(out.shape) if k not in (0, axis))
        self.values, self.active = np.empty((len(self.channels), 0), np.float32), np.zeros(len(self.channels))
        self.items = self.flat = np.empty((len(self.channels), 0), int)

    def open(self, out: torch.Tensor) -> Any:
        """The channels that have been one number so far: only they need another look, which is dear in early layers."""
        same = np.arange(self.width) if self.ends is None else np.flatnonzero(self.ends[0] == self.ends[1])
        return torch.from_numpy(same).to(out.device)

    def add(self, read: Read) -> None:
        found = read.outs[self.name]
        bad = ~np.isfinite(found.scores).all(1)
        if bad.any():
            raise ModelError(
                f"layer {self.name!r} gives NaN or infinite numbers for item {read.which[int(bad.argmax())]}; find out where they arise."
            )
        self.first = self.first or read.items
        self.seen = read.which.stop
        self.active += (found.highest > 0).sum(0)
        self.all_scores.append(found.scores)
        self.widen(found.ends)
        self.merge(found, np.broadcast_to(np.array(read.which), found.scores.T.shape))
        self.keep(read)

    def widen(self, ends: np.ndarray) -> None:
        """NaN stands for a channel that was not looked at."""
        self.ends = ends if self.ends is None else np.stack([np.fmin(self.ends[0], ends[0]), np.fmax(self.ends[1], ends[1])])

    def merge(self, found: Peaks, which: np.ndarray) -> None:
        """Of equal ones the first stays in front, since the order is stable."""
        values = np.concatenate([self.values, found.scores.T], 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.top]
        old = (self.items, which), (self.flat, found.where.T)
        self.items, self.flat = (np.take_along_axis(np.concatenate(pair, 1), order, 1) for pair in old)
        self.values = np.take_along_axis(values, order, 1)

    def keep(self, read: Read) -> None:
        needed = set(np.unique(self.items).tolist())
        self.kept = {item: one for item, one in self.kept.items() if item in needed}
        parts: Sequence[Any] = () if read.items.arguments is None else read.items.arguments.parts
        readings = parts[0].readings if len(parts) == 1 else None
        for item in needed.intersection(read.which):
            k = read.own[item - read.which.start]
            row = read.items.batch[k : k + 1].clone() if self.keeps_inputs else None
            self.kept[item] = Kept(read.items.pictures[k], readings[k] if readings else None, row)

    def places(self) -> np.ndarray:
        """[k, top, axes]"""
        if len(self.grid) == 1:  # of texts, which may be longer than the first
            return self.flat[..., None]
        return np.array(np.unravel_index(self.flat, self.grid)).transpose(1, 2, 0) if self.grid else np.empty((*self.flat.shape, 0), int)

    def scores(self) -> np.ndarray:
        return np.concatenate(self.all_scores)

    def dead(self) -> tuple[int, ...]:
        return () if self.ends is None else tuple(np.flatnonzero(self.ends[0] == self.ends[1]).tolist())


def chosen_channels(asked: int | Sequence[int] | None, width: int, most: int, name: str) -> list[int]:
    """Raises InputError."""
    if asked is None:
        return np.unique(np.linspace(0, width - 1, min(most, width)).round().astype(int)).tolist()  # type: ignore[no-any-return]
    given = list(dict.fromkeys([asked] if np.ndim(asked) == 0 else asked))  # type: ignore[arg-type]
    for channel in given:
        if not is_whole(channel, 0, width - 1):
            raise InputError(f"channels= has {channel!r}: layer {name!r} has {width} channels, counted from 0 to {width - 1}.")
    if not given:
        raise InputError(f"channels=[] names none of the {width} channels of layer {name!r}; leave it out for {most} of them.")
    return [int(channel) for channel in given]  # type: ignore[arg-type]


def whole_peaks(chosen: torch.Tensor, out: torch.Tensor, axis: int, by: str, still: torch.Tensor) -> Peaks:
    """chosen [m, k, places], all of which count; still: the channels whose range is wanted."""
    highest, where = chosen.max(2)
    scores = highest if by == "max" else chosen.float().mean(2)
    ends = np.full((2, out.shape[axis]), np.nan, np.float32)
    if len(still):
        flat = (out if len(still) == out.shape[axis] else out.index_select(axis, still)).movedim(axis, 0).flatten(1)
        ends[:, still.cpu().numpy()] = torch.stack([flat.amin(1), flat.amax(1)]).float().cpu().numpy()
    return Peaks(numbers(scores), where.cpu().numpy(), numbers(highest), ends)


def held_peaks(chosen: torch.Tensor, out: torch.Tensor, axis: int, by: str, held: list[list[int]]) -> Peaks:
    """The same of texts, of which only the tokens that are no padding count."""
    own = [one[:, at] for one, at in zip(chosen, held, strict=True)]
    where = [np.array(at)[one.argmax(1).cpu().numpy()] for one, at in zip(own, held, strict=True)]
    real = torch.cat([one.reshape(-1, out.shape[axis])[at] for one, at in zip(out.movedim(axis, -1), held, strict=True)])  # [tokens, c]
    ends = torch.stack([real.amin(0), real.amax(0)])
    scores, highest = (torch.stack([BY[how](one.float()) for one in own]) for how in (by, "max"))
    return Peaks(numbers(scores), np.stack(where), numbers(highest), numbers(ends))


def numbers(found: torch.Tensor) -> np.ndarray:
    return found.float().cpu().numpy()  # type: ignore[no-any-return]


# ---- what the places see --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Found:
    """Fields of the result."""

    boxes: np.ndarray
    patches: tuple[np.ndarray, ...]
    words: tuple[tuple[str, ...], ...]
    picture: tuple[int, int] | None
    field_size: tuple[int, int] | None
    details: dict[str, Any]
    model_calls: int


def seen_fields(best: Best, how: str, batch_size: int | str) -> Found:
    """Boxes and patches of the best items; the whole item where there are no fields."""
    items: Any = best.first
    picture = tuple(items.pictures[0].shape[:2]) if items.pictures[0] is not None else None
    shape = best.values.shape
    none = Found(
        np.zeros((*shape, 4), int),
        (),
        words_of(best),
        picture,
        None,
        {"places": "the tokens"} if items.kind == "text" else {},
        best.seen + items.calls,
    )
    try:
        space, _ = picture_axes(items)
    except InputError:
        refuse_effective(how, "the inputs are no pictures")
        return none
    found = Found(np.broadcast_to([0, 0, *space], (*shape, 4)).copy(), (), none.words, picture, space, {}, none.model_calls)
    try:
        set_boxes(best, found, how, space, batch_size)
    except (UnsupportedError, LayerError) as error:
        refuse_effective(how, str(error), error)
        found.details["note"] = f"the whole pictures are shown, since the field is not known: {error}"
    pictures = [best.kept[item].picture for item in best.items.flat]
    found.patches = tuple(cut_out(one, box, space) for one, box in zip(pictures, found.boxes.reshape(-1, 4), strict=True)) if picture else ()
    return found


def refuse_effective(how: str, why: str, error: AskwhyError | None = None) -> None:
    if how == "effective":
        raise UnsupportedError(f"field='effective' cannot be had ({why}); leave field out.") from error


def set_boxes(best: Best, found: Found, how: str, space: tuple[int, int], batch_size: int | str) -> None:
    """The boxes of the places, from the measured footprint; both ways of measuring have to agree on one item."""
    items: Any = best.first
    if not best.grid:
        return effective(best, found) if how == "effective" else None
    boxes, calls = measured(best.model, best.name, items, batch_size)
    centre = middle(best.grid)
    check_within(energy(best.model, best.name, items, range(1), [centre], None), boxes[centre][None], best.name)
    found.model_calls += calls + 1
    found.field_size = sides(boxes)
    found.boxes = boxes[tuple(np.moveaxis(best.places(), -1, 0))]
    if how == "effective":
        return effective(best, found)
    if len(best.grid) == 1 and space[0] > 1 and found.field_size == space:
        found.boxes = np.stack([[own_patch(int(place), best.grid[0], space) for place in row] for row in best.flat])
        found.details["note"] = "every token sees the whole picture; shown is the patch that it stands for"
    return None


def effective(best: Best, found: Found) -> None:
    """The smallest boxes with most of the squared gradient, one backward pass for each."""
    places = best.places()
    for k, t in np.ndindex(best.values.shape):
        row = best.kept[int(best.items[k, t])].row
        squared = energy(best.model, best.name, Items(row, (None,), (None,)), range(1), [places[k, t].tolist()], [best.channels[k]])
        found.boxes[k, t] = smallest_box(squared[0], SHARE)
    found.model_calls += best.values.size


def own_patch(place: int, tokens: int, space: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square patch of a token, if only one grid of squares fits with a few tokens before it; else the whole picture."""
    h, w = space
    cuts = [s for s in range(2, min(h, w)) if h % s == 0 == w % s]
    fits = [(tokens - (h // s) * (w // s), s) for s in cuts if 0 <= tokens - (h // s) * (w // s) <= MOST_PREFIX]
    if len(fits) != 1 or place < fits[0][0]:
        return 0, 0, h, w
    before, side = fits[0]
    row, column = divmod(place - before, w // side)
    return row * side, column * side, (row + 1) * side, (column + 1) * side


def cut_out(picture: np.ndarray | None, box: np.ndarray, space: tuple[int, int]) -> np.ndarray:
    """The patch of a picture of the model's own size."""
    if picture is None:
        return np.zeros((0, 0, 3), np.uint8)
    top, left, bottom, right = box if picture.shape[:2] == space and box[2] > box[0] else (0, 0, *picture.shape[:2])
    return np.ascontiguousarray(picture[top:bottom, left:right])


def words_of(best: Best) -> tuple[tuple[str, ...], ...]:
    """The token in its sentence, or the number of the item."""
    return tuple(
        tuple(in_context(best, int(item), int(at)) for item, at in zip(*row, strict=True)) for row in zip(best.items, best.flat, strict=True)
    )


def in_context(best: Best, item: int, place: int) -> str:
    reading = best.kept[item].reading
    if reading is None or not best.grid:
        return f"item {item}" + (f", place {place}" if best.grid and best.kept[item].picture is None else "")
    names = dict(zip(reading.places, reading.tokens, strict=True))
    around = [names[k] if k != place else f"«{names[k]}»" for k in range(place - AROUND, place + AROUND + 1) if k in names]
    return f"item {item}: {' '.join(around)}"
