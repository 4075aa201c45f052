"""Does a portrait look like its class? What another model says, how far its way through the network is from real images', and which are nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError, ModelError, TargetError, near
from askwhy.game import Progress
from askwhy.layers import pooled, read_layers
from askwhy.models import wrap
from askwhy.models.base import Model, is_out_of_memory, show_shape, to_numpy
from askwhy.models.torch_module import TorchModel

NEIGHBOURS = 5  # whose mean distance says how far out an image lies
LEAST = 20  # real images, below which a share among them says little
SHOWN = 3  # nearest images that are kept
AT_ONCE = 8


@dataclass(frozen=True)
class Verdict:
    """What a judge says of n pictures: where their class stands (1 = first), its probability, and the first five names."""

    rank: np.ndarray
    probability: np.ndarray
    top: tuple[tuple[str, ...], ...]


def judged(judge: Any, pictures: np.ndarray, inputs: Any, classes: Sequence[int | None], labels: Sequence[str] | None) -> Verdict:
    """Ask another model about the pictures uint8 [n, h, w, 3] as a screen shows them. Raises TargetError, InputError, ModelError."""
    model = wrap(judge)
    scores = probabilities_of(model, pictures, inputs)
    wanted = [own_class(model, one, labels, scores.shape[1]) for one in classes]
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.array([0 if one is None else 1 + int(np.flatnonzero(order[k] == one)[0]) for k, one in enumerate(wanted)])
    share = np.array([np.nan if one is None else scores[k, one] for k, one in enumerate(wanted)])
    top = tuple(tuple(name_of(model, int(one)) for one in row[:5]) for row in order)
    return Verdict(rank, share, top)


def probabilities_of(model: Model, pictures: np.ndarray, inputs: Any) -> np.ndarray:
    """[n, classes]. A model that reads photos is given the pictures, another one the numbers that were found."""
    reads = not isinstance(model, TorchModel) or model.transform is not None
    items = model.prepare(list(pictures) if reads else inputs)
    found = []
    with model.untouched():
        for start in range(0, len(items), AT_ONCE):
            own = range(start, min(start + AT_ONCE, len(items)))
            try:
                found.append(to_numpy(model.outputs(items, items.batch[own.start : own.stop], own)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise ModelError("the judge ran out of memory; ask about fewer portraits at once.") from error
    scores = np.concatenate(found).astype(np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(f"judge= gives {show_shape(scores)}; a judge has to give a score for each of several classes, [n, k].")
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    exact = np.exp(scores - scores.max(1, keepdims=True))
    return exact / exact.sum(1, keepdims=True)


def own_class(judge: Model, wanted: int | None, labels: Sequence[str] | None, count: int) -> int | None:
    """The judge's number of a class: by its label where both have labels, else the same number."""
    if wanted is None:
        return None
    if labels and judge.labels:
        if labels[wanted] not in judge.labels:
            raise TargetError(f"judge= knows no class {labels[wanted]!r}; {near(labels[wanted], list(judge.labels))}")
        return list(judge.labels).index(labels[wanted])
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


def beside(model: TorchModel, images: Any, inputs: Any, layers: Any, tick: Progress | None) -> Beside:
    """Follow portraits and real images through the network. Raises InputError, LayerError.

    A portrait can be made to look like anything while it takes a path that no image takes (Geirhos et al. 2023), so that
    its distance to real images is told for each layer: the mean distance to the nearest NEIGHBOURS in the channels'
    means, each in units of its spread over the images.
    """
    reals, shown = rows_of(model, images, layers, tick)
    names = list(reals)
    mine, _ = rows_of(model, inputs, names, None)
    count = len(reals[names[0]])
    if count < LEAST:
        raise InputError(f"images= holds {count} images; give at least {LEAST}, so that a portrait's place among them means something.")
    natural = np.array([shares(reals[name], mine[name]) for name in names])
    last = names[-1]
    nearest = np.argsort(distances(*scaled(reals[last], mine[last])), axis=1, kind="stable")[:, :SHOWN]
    known = all(shown[k] is not None and shown[k].shape == shown[int(nearest[0, 0])].shape for k in nearest.ravel())  # type: ignore[union-attr]
    pictures = np.stack([[np.asarray(shown[k]) for k in row] for row in nearest]) if known else None
    return Beside(tuple(names), natural, nearest, pictures, count)


def rows_of(model: TorchModel, images: Any, layers: Any, tick: Progress | None) -> tuple[dict[str, np.ndarray], list[np.ndarray | None]]:
    """The channels' means in each layer, and what the images look like."""
    found: dict[str, list[np.ndarray]] = {}
    shown: list[np.ndarray | None] = []
    keep = lambda name, out, items, own: to_numpy(pooled(model, name, out.float(), items, own, "mean"))  # noqa: E731
    for read in read_layers(model, images, layers, keep, tick=tick):
        shown += [read.items.pictures[k] for k in read.own]
        for name, rows in read.outs.items():
            found.setdefault(name, []).append(rows)
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}, shown


def scaled(reals: np.ndarray, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In units of the spread over the real images; what is equal in all of them does not count."""
    spread = reals.std(0)
    used = spread > 1e-12 * max(float(np.abs(reals).max(initial=0)), 1e-300)
    return reals[:, used] / spread[used], mine[:, used] / spread[used]


def shares(reals: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """[n]: (1 + how many real images lie at least as far out) / (1 + how many there are)."""
    reals, mine = scaled(reals, mine)
    own = distances(reals, reals)
    np.fill_diagonal(own, np.inf)
    usual, found = (np.sort(one, axis=1)[:, :NEIGHBOURS].mean(1) for one in (own, distances(reals, mine)))
    return (1 + (usual >= found[:, None]).sum(1)) / (1 + len(usual))


def distances(reals: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """[len(mine), len(reals)]"""
    from scipy.spatial.distance import cdist

    return cdist(mine, reals)
