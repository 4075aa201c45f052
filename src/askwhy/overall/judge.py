"""Does a portrait look like its class? What another model says, how far its way through the network is from real images', and which are nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import AskwhyError, InputError, ModelError, TargetError, near
from askwhy.layers import Read, is_batch_of_batches, piece, pooled, read_layers
from askwhy.models.base import Items, Model, is_out_of_memory, show_shape, to_numpy
from askwhy.models.torch_module import TorchModel

NEIGHBOURS = 5  # whose mean distance says how far out an image lies
LEAST = 20  # real images, below which a share among them says little
SHOWN = 3  # nearest images that are kept
AT_ONCE = 8
HELD = 2**28  # bytes of pictures that are kept of images that come only once
BLOCK = 2**25  # bytes of distances that are computed together


@dataclass(frozen=True)
class Verdict:
    """What a judge says of n pictures: where their class stands (1 = first), its probability, and the first five names."""

    rank: np.ndarray
    probability: np.ndarray
    top: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Jury:
    """Another model, and what it is asked about: the class of each portrait, by the labels of the model that was searched."""

    model: Model
    labels: Sequence[str] | None
    classes: Sequence[int | None]

    def wanted(self, count: int) -> list[int | None]:
        """The numbers of these classes in the judge's own scores [n, count]. Raises TargetError."""
        return [own_class(self.model, one, self.labels, count) for one in self.classes]


def check_jury(jury: Jury, pictures: np.ndarray, inputs: Any) -> None:
    """Whether it can be asked about pictures like these. Raises TargetError, InputError, ModelError."""
    jury.wanted(probabilities_of(jury.model, pictures, inputs).shape[1])


def judged(jury: Jury, pictures: np.ndarray, inputs: Any) -> Verdict:
    """Ask another model about the pictures uint8 [n, h, w, 3] as a screen shows them. Raises TargetError, InputError, ModelError."""
    scores = probabilities_of(jury.model, pictures, inputs)
    wanted = jury.wanted(scores.shape[1])[: len(scores)]
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.array([0 if one is None else 1 + int(np.flatnonzero(order[k] == one)[0]) for k, one in enumerate(wanted)])
    share = np.array([np.nan if one is None else scores[k, one] for k, one in enumerate(wanted)])
    top = tuple(tuple(name_of(jury.model, int(one)) for one in row[:5]) for row in order)
    return Verdict(rank, share, top)


def probabilities_of(model: Model, pictures: np.ndarray, inputs: Any) -> np.ndarray:
    """[n, classes]. A model that reads photos is given the pictures, another one the numbers that were found."""
    reads = not isinstance(model, TorchModel) or model.transform is not None
    items = model.prepare(list(pictures) if reads else inputs)
    with model.untouched():
        scores = np.concatenate([to_numpy(out) for out in answers(model, items)]).astype(np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(f"judge= gives {show_shape(scores)}; a judge has to give a score for each of several classes, [n, k].")
    if not np.isfinite(scores).all():
        raise ModelError(f"judge= answers {scores[~np.isfinite(scores)][0]}, which is no score; check its weights and what its inputs have to be.")
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    exact = np.exp(scores - scores.max(1, keepdims=True))
    return exact / exact.sum(1, keepdims=True)


def answers(model: Model, items: Items) -> Iterator[Any]:
    """A few at a time, and fewer where they do not fit into memory. Raises ModelError."""
    start, size = 0, AT_ONCE
    while start < len(items):
        own = range(start, min(start + size, len(items)))
        try:
            out = model.outputs(items, items.batch[own.start : own.stop], own)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, AskwhyError) or not is_out_of_memory(error):
                raise
            if len(own) == 1:
                raise ModelError("judge= ran out of memory on a single picture; give a smaller one, or ask on a machine with more memory.") from error
            size = len(own) // 2
            continue
        yield out
        start = own.stop


def own_class(judge: Model, wanted: int | None, labels: Sequence[str] | None, count: int) -> int | None:
    """The judge's number of a class: by its label where both have labels of their own, else the same number. Raises TargetError."""
    if wanted is None:
        return None
    known = list(judge.labels or ())
    if labels and known and list(labels) != known and wanted < len(labels):
        label = labels[wanted]
        if label not in known:
            raise TargetError(f"judge= knows no class {label!r}; {near(label, known)}")
        if known.count(label) > 1:
            raise TargetError(
                f"judge= has {known.count(label)} classes {label!r}; give its labels= in the order of the model's, or each its own name."
            )
        return known.index(label)
    if wanted >= count:
        raise TargetError(f"judge= has {count} classes and none with the number {wanted}; wrap both models with labels=.")
    return wanted


def name_of(model: Model, one: int) -> str:
    return model.labels[one] if model.labels and one < len(model.labels) else f"class {one}"


# ---- next to real images --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """layers; natural [layers, n]: the share of real images that lie as far from the others as the portrait does; the nearest real ones."""

    layers: tuple[str, ...]
    natural: np.ndarray
    nearest: np.ndarray  # [n, SHOWN]: which of the images, in the last layer
    pictures: np.ndarray | None  # uint8 [n, SHOWN, h, w, 3]
    count: int


@dataclass(frozen=True, eq=False)
class Reals:
    """Real images on their way through the network."""

    rows: dict[str, np.ndarray]  # [images, channels] by layer
    images: Any
    pictures: list[np.ndarray | None]  # the first ones, where the images come only once

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))


def reals_of(model: TorchModel, images: Any, like: Any, layers: Any) -> Reals:
    """Read the channels' means of real images once; like: an input as it is sought. Raises InputError, LayerError."""
    pictures: list[np.ndarray | None] = []

    def look(read: Read) -> None:
        if sum(one.nbytes for one in pictures[:1] if one is not None) * len(pictures) < HELD:
            pictures.extend(read.items.pictures[k] for k in read.own)

    rows = rows_of(model, images, layers, look if is_batch_of_batches(images) else None)
    found = Reals(rows, images, pictures)
    if len(found) < LEAST:
        raise InputError(f"images= holds {len(found)} images; give at least {LEAST}, so that a portrait's place among them means something.")
    for name, own in rows_of(model, like, list(rows)).items():
        if own.shape[1] != rows[name].shape[1]:
            raise InputError(
                f"images= gives {rows[name].shape[1]} numbers in layer {name!r}, and a portrait {own.shape[1]}; give images of the portraits' size."
            )
    return found


def beside(model: TorchModel, reals: Reals, inputs: Any) -> Beside:
    """Follow portraits through the network beside real images.

    A portrait can be made to look like anything while it takes a path that no image takes (Geirhos et al. 2023), so that
    its distance to real images is told for each layer: the mean distance to the nearest NEIGHBOURS in the channels'
    means, each in units of its spread over the images.
    """
    names = list(reals.rows)
    mine = rows_of(model, inputs, names)
    natural = np.array([shares(reals.rows[name], mine[name]) for name in names])
    known, own = scaled(reals.rows[names[-1]], mine[names[-1]])
    nearest = np.concatenate([np.argsort(far, axis=1, kind="stable")[:, :SHOWN] for _, far in distances(known, own)])
    return Beside(tuple(names), natural, nearest, pictures_of(model, reals, nearest), len(reals))


def pictures_of(model: TorchModel, reals: Reals, which: np.ndarray) -> np.ndarray | None:
    """uint8 [n, SHOWN, h, w, 3] of these images; None where they are not known, or differ in size."""
    shown = {int(k): picture_of(model, reals, int(k)) for k in np.unique(which)}
    if any(one is None for one in shown.values()) or len({one.shape for one in shown.values() if one is not None}) != 1:
        return None
    return np.stack([[np.asarray(shown[int(k)]) for k in row] for row in which])


def picture_of(model: TorchModel, reals: Reals, k: int) -> np.ndarray | None:
    if is_batch_of_batches(reals.images):
        return reals.pictures[k] if k < len(reals.pictures) else None
    return model.prepare(piece(reals.images, k, k + 1)).pictures[0]


def rows_of(model: TorchModel, images: Any, layers: Any, look: Callable[[Read], None] | None = None) -> dict[str, np.ndarray]:
    """The channels' means in each layer; look(piece) sees what was read."""
    found: dict[str, list[np.ndarray]] = {}
    keep = lambda name, out, items, own: to_numpy(pooled(model, name, out.float(), items, own, "mean"))  # noqa: E731
    for read in read_layers(model, images, layers, keep):
        if look is not None:
            look(read)
        for name, rows in read.outs.items():
            found.setdefault(name, []).append(rows)
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}


def scaled(reals: np.ndarray, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In units of the spread over the real images; what is equal in all of them does not count."""
    spread = reals.std(0)
    used = spread > 1e-12 * max(float(np.abs(reals).max(initial=0)), 1e-300)
    return reals[:, used] / spread[used], mine[:, used] / spread[used]


def shares(reals: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """[n]: (1 + how many real images lie at least as far out) / (1 + how many there are)."""
    reals, mine = scaled(reals, mine)
    usual, found = far_out(reals, reals, without_own=True), far_out(reals, mine)
    return (1 + (usual >= found[:, None]).sum(1)) / (1 + len(usual))


def far_out(reals: np.ndarray, mine: np.ndarray, without_own: bool = False) -> np.ndarray:
    """[len(mine)]: the mean distance to the nearest real images; without_own: mine are these, and each leaves itself out."""
    means = []
    for start, far in distances(reals, mine):
        if without_own:
            np.fill_diagonal(far[:, start:], np.inf)
        means.append(np.sort(np.partition(far, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS], axis=1).mean(1))
    return np.concatenate(means)


def distances(reals: np.ndarray, mine: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Where a block of mine begins, and its distances [rows of the block, len(reals)]; a block has its limit of bytes."""
    from scipy.spatial.distance import cdist

    rows = max(1, BLOCK // (8 * len(reals)))
    for start in range(0, len(mine), rows):
        yield start, cdist(mine[start : start + rows], reals)
