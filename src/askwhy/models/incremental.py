"""Inputs that differ from one picture inside a small box only: the early layers are computed where something changed.

A step of the twin's graph is given, for each row of the batch, the box in which its input changed, and computes the box in
which its result changed. What it needs from outside the box lies in the item's own maps, which are kept. Where a box has
grown to most of the map, or a step looks at all of it, the box is put into the item's map, and the rest of the network
runs in full. Used only where it gives the twin's own scores on inputs of the very question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.models.fast import Twin, as_dtype, as_input
from askwhy.models.local_steps import Box, Span, Step, asks_shape, fits, hull, same_everywhere, same_place, share, step_of, weights

if TYPE_CHECKING:
    import torch
    from torch import fx
else:
    torch = lazy("torch", "torch")
    fx = lazy("torch.fx", "torch")

LARGEST_BOX = 0.6  # of a map: a larger box costs more to cut and to paste than it saves
WORTH_A_PLAN = 20  # full passes that it has to save, since to prepare and to prove it costs about ten
ALIKE = {2: 0.02, 4: 1e-5, 8: 1e-10}  # by the bytes of a number: how far a score may be off, relative to the largest


def incremental(twin: Twin, x: torch.Tensor, samples: torch.Tensor, calls: int, read: Callable[[Any], Any]) -> Callable[[torch.Tensor], Any] | None:
    """read(twin(batch)) for inputs that differ from x [c, h, w] in boxes like those of the samples.

    None where there are no such boxes, where they save too little, or where the scores of the samples are not the twin's.
    """
    if x.ndim != 3 or x.device.type != "cpu" or not x.is_floating_point() or all(torch.equal(s, x) for s in samples):
        return None
    box = changed(samples, x)
    if share(box) > LARGEST_BOX:
        return None
    try:
        plan = prepare(twin, x, box)
        if plan.saved() * calls < WORTH_A_PLAN or not all(proved(plan, s, read) for s in (samples, centred(samples, x, box))):
            return None
    except Exception:  # noqa: BLE001  whatever cannot be done in boxes, memory that is short included: the twin itself can do it
        return None
    return lambda batch: read(in_boxes(plan, batch))


def proved(plan: Plan, samples: torch.Tensor, read: Callable[[Any], Any]) -> bool:
    """Whether the scores are the twin's own."""
    got, wanted = read(in_boxes(plan, samples)), read(plan.twin(samples))
    if not isinstance(got, torch.Tensor) or not isinstance(wanted, torch.Tensor) or got.shape != wanted.shape:
        return False
    return bool(((got - wanted).abs() <= ALIKE[plan.twin.dtype.itemsize] * wanted.abs().max()).all())


# ---- what changed -------------------------------------------------------------------------------------------------


def changed(batch: torch.Tensor, x: torch.Tensor) -> Box:
    """Where the rows of a batch differ from x."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    differs = (batch.view(bits).numpy() != x.view(bits).numpy()).any(1)  # numpy is several times as quick here
    return stretch(differs.any(2)), stretch(differs.any(1))


def stretch(differs: np.ndarray) -> Span:
    """bool [m, length] -> from the first place to the last; one place of a row that differs nowhere."""
    length = differs.shape[1]
    return Span(differs.argmax(1), np.where(differs.any(1), length - differs[:, ::-1].argmax(1), 1), length)


def centred(samples: torch.Tensor, x: torch.Tensor, box: Box) -> torch.Tensor:
    """The samples with what changed moved to the middle: the first and the last sample often touch the border."""
    moved = x.repeat(len(samples), 1, 1, 1)
    rows, columns = box
    for new, old, top, bottom, left, right in zip(moved, samples, rows.low, rows.high, columns.low, columns.high, strict=True):
        down, across = (rows.length - (bottom - top)) // 2, (columns.length - (right - left)) // 2
        new[:, down : down + bottom - top, across : across + right - left] = old[:, top:bottom, left:right]
    return moved


# ---- what is known of the item, and what changed in it --------------------------------------------------------------


@dataclass
class Kept:
    """The item's own map as `rows` [h w + 2 + room, c]: its places, a zero, the lowest number, and room for a patch."""

    rows: torch.Tensor
    places: int

    def beside(self, patch: torch.Tensor) -> torch.Tensor:
        """The rows with a patch [m, c, height, width] in the room, so that one look-up finds both."""
        flat = flattened(patch)
        end = self.places + 2 + len(flat)
        if end > len(self.rows):
            self.rows = torch.cat([self.rows[: self.places + 2], flat])
        else:
            self.rows[self.places + 2 : end] = flat
        return self.rows


def keep(x: torch.Tensor) -> Kept:
    """A map [1, c, h, w]."""
    flat = flattened(x)
    return Kept(torch.cat([flat, torch.zeros_like(flat[:1]), torch.full_like(flat[:1], -torch.inf)]), len(flat))


def flattened(x: torch.Tensor) -> torch.Tensor:
    """[m, c, h, w] -> [m h w, c]"""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@dataclass(frozen=True, eq=False)
class Patch:
    """What changed: values [m, c, *box], each at its box's start in the item's own map."""

    values: torch.Tensor
    box: Box
    kept: Kept | None

    @cached_property
    def whole(self) -> torch.Tensor:
        """The item's map with the patch on it."""
        assert self.kept is not None, "a map that is asked for is kept"
        rows, columns = self.box
        found = self.kept.rows[: self.kept.places].view(rows.length, columns.length, -1).repeat(len(self.values), 1, 1, 1).permute(0, 3, 1, 2)
        for new, values, r, c in zip(found, self.values, rows.starts, columns.starts, strict=True):
            new[:, r : r + rows.size, c : c + columns.size] = values
        return found

    @property
    def shape_of_whole(self) -> torch.Tensor:
        rows, columns = self.box
        return self.values[:, :, :1, :1].expand(-1, -1, rows.length, columns.length)


def cut(patch: Patch, down: tuple[np.ndarray, int], across: tuple[np.ndarray, int], around: int) -> torch.Tensor:
    """[m, c, height, width] from the first rows and columns on: of the patch, else of the item's map, else what is around it."""
    rows, columns = patch.box
    (top, height), (left, width) = down, across
    if (height, width) == patch.values.shape[2:] and same(top, rows.starts) and same(left, columns.starts):
        return patch.values
    assert patch.kept is not None, "a map that is looked at beside the box is kept"
    r, in_rows, patch_r, patch_in_rows = (v[:, :, None] for v in along(rows, top, height))
    c, in_columns, patch_c, patch_in_columns = (v[:, None, :] for v in along(columns, left, width))
    first = np.arange(len(top))[:, None, None] * rows.size
    of_patch = patch.kept.places + 2 + (first + patch_r) * columns.size + patch_c
    of_map = np.where(in_rows & in_columns, r * columns.length + c, patch.kept.places + around)
    index = torch.from_numpy(np.where(patch_in_rows & patch_in_columns, of_patch, of_map).ravel())
    found = patch.kept.beside(patch.values).index_select(0, index)
    return found.view(len(top), height, width, -1).permute(0, 3, 1, 2)


def along(span: Span, first: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Places [m, count], whether they are on the axis, the same seen from the patch, and whether they are in it."""
    at = first[:, None] + np.arange(count)
    inside = at - span.starts[:, None]
    return at, (at >= 0) & (at < span.length), inside, (inside >= 0) & (inside < span.size)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or np.array_equal(a, b)


# ---- running ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plan:
    """Which steps of the twin are computed in boxes, and what they need to know of the item."""

    twin: Twin
    x: torch.Tensor  # [c, h, w]
    caller: fx.Interpreter
    constants: dict[fx.Node, Any] = field(default_factory=dict)
    steps: dict[fx.Node, Step] = field(default_factory=dict)
    kept: dict[fx.Node, Kept] = field(default_factory=dict)
    work: list[tuple[float, float]] = field(default_factory=list)  # multiplications of each convolution, and the share that is saved

    def saved(self) -> float:
        """The share of all multiplications."""
        return sum(whole * share for whole, share in self.work) / max(sum(whole for whole, _ in self.work), 1)


def in_boxes(plan: Plan, batch: torch.Tensor) -> Any:
    """The twin's outputs."""
    box = changed(batch, plan.x)
    if share(box) > LARGEST_BOX:
        return plan.twin(batch)
    found: dict[fx.Node, Any] = dict(plan.constants)

    def whole(node: fx.Node) -> Any:
        return found[node].whole if isinstance(found[node], Patch) else found[node]

    for node in plan.twin.graph.graph.nodes:
        if node.op == "output":
            return as_dtype(fx.node.map_arg(node.args[0], whole), batch)
        if node.op == "placeholder":
            found[node] = Patch(taken(batch, box).to(plan.twin.dtype), box, plan.kept.get(node))
        elif asks_shape(node):
            found[node] = perform(plan, node, lambda n: found[n].shape_of_whole if isinstance(found[n], Patch) else found[n])
        elif node not in found:
            found[node] = patched(plan, node, found) or perform(plan, node, whole)
        forget(plan, node, found)
    raise AssertionError("a graph ends with its output")


def taken(batch: torch.Tensor, box: Box) -> torch.Tensor:
    """The boxes of a batch."""
    rows, columns = box
    cuts = [x[:, r : r + rows.size, c : c + columns.size] for x, r, c in zip(batch, rows.starts, columns.starts, strict=True)]
    return torch.stack(cuts)


def patched(plan: Plan, node: fx.Node, found: dict[fx.Node, Any]) -> Patch | None:
    """A step done in boxes; None where it has to be done in full."""
    step = plan.steps.get(node)
    if step is None or not all(isinstance(found[n], Patch) for n in step.inputs):
        return None
    box = reached(step, [found[n].box for n in step.inputs])
    if share(box) > LARGEST_BOX:
        return None
    down, across = (axis.window(span) for axis, span in zip(step.axes, box, strict=True))
    read = {n: cut(found[n], down, across, step.around) for n in step.inputs}
    return Patch(perform(plan, step, lambda n: read[n] if n in read else found[n]), box, plan.kept.get(node))


def reached(step: Step, boxes: list[Box]) -> Box:
    """The box of a step's result."""
    rows, columns = (axis.reached(span, length) for axis, span, length in zip(step.axes, hull(boxes), step.size, strict=True))
    return rows, columns


def perform(plan: Plan, step: Any, look: Callable[[fx.Node], Any]) -> Any:
    """Call a step of the graph, with what `look` finds for the steps before it."""
    return getattr(plan.caller, step.op)(step.target, fx.node.map_arg(step.args, look), fx.node.map_arg(step.kwargs, look))


def forget(plan: Plan, node: fx.Node, found: dict[fx.Node, Any]) -> None:
    """What nobody asks for after this step."""
    for past in plan.caller.user_to_last_uses.get(node, ()):
        found.pop(past, None)


# ---- preparing ----------------------------------------------------------------------------------------------------


def prepare(twin: Twin, x: torch.Tensor, box: Box) -> Plan:
    """Run the item itself, and keep what is needed to compute what changes in such boxes."""
    plan = Plan(twin, x, fx.Interpreter(twin.graph))
    found: dict[fx.Node, Any] = {}
    boxes: dict[fx.Node, Box] = {}
    for node in list(twin.graph.graph.nodes)[:-1]:  # without the output
        found[node] = as_input(x[None], twin.dtype) if node.op == "placeholder" else perform(plan, node, found.__getitem__)
        if node.op == "get_attr":
            plan.constants[node] = found[node]
        boxed = box if node.op == "placeholder" else planned(plan, node, found, boxes)
        if boxed is not None:
            boxes[node] = boxed
        if boxed is not None and not all(same_place(twin.graph, user) for user in node.users):
            plan.kept[node] = keep(found[node])
        weight = weights(node)
        if weight is not None:
            plan.work.append((found[node].numel() * found[weight].numel() / len(found[weight]), 0 if boxed is None else 1 - share(boxed)))
        forget(plan, node, found)
    return plan


def planned(plan: Plan, node: fx.Node, found: dict[fx.Node, Any], boxes: dict[fx.Node, Box]) -> Box | None:
    """Note how a step is done in boxes, where it can be and pays; the box of its result."""
    step, inputs = step_of(plan.twin.graph, node), tuple(n for n in node.all_input_nodes if n in boxes)
    others = [n for n in node.all_input_nodes if n not in boxes]
    if step is None or not inputs or found[node].ndim != 4 or not all(fits(step, found[n], found[node]) for n in inputs):
        return None
    if weights(node) is None and not all(n in plan.constants and same_everywhere(found[n]) for n in others):
        return None
    step = replace(step, inputs=inputs, size=tuple(found[node].shape[2:]))
    box = reached(step, [boxes[n] for n in inputs])
    if share(box) > LARGEST_BOX:
        return None
    plan.steps[node] = step
    return box
