"""Layers as pictures: each item a point, so that groups are seen to come together or apart; with what the picture keeps of the layer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.errors import InputError, LayerError, near
from askwhy.game import Progress, counted, progress_of
from askwhy.inside.asked import listed, truth_of
from askwhy.inside.placing import METHODS, WIDE, View, gathered, load_umap, viewed
from askwhy.inside.rows import read_rows
from askwhy.kept import Kept
from askwhy.layers import count, torch_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURED = 2000  # items of which everything is compared with everything
TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
NO_MEANING = (
    "the distances between groups, the sizes of groups and the axes of this picture mean nothing; only who is near whom does, and not all of it"
)


@dataclass(frozen=True, eq=False)
class Projection(Kept):
    """Where each item lies in each layer: points [layers, n, dims], also as projection["layer"] -> [n, dims].

    By layer: the numbers of an item (widths), the share of the variance on the first principal axes [layers, dims], what the picture
    keeps (trustworthiness, continuity, lost), and how far labels are apart in the layer itself: told (share that the nearest others
    tell right, or R^2), silhouette, their standard errors, and chance. labels [n]: places in `classes`, or numbers.
    """

    points: np.ndarray
    layers: tuple[str, ...]
    method: str
    widths: np.ndarray
    explained: np.ndarray
    trustworthiness: np.ndarray
    continuity: np.ndarray
    lost: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    told: np.ndarray | None = None
    told_error: np.ndarray | None = None
    chance: np.ndarray | None = None
    silhouette: np.ndarray | None = None
    silhouette_error: np.ndarray | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.points.shape[1]

    def __getitem__(self, layer: str) -> np.ndarray:
        return self.points[self.place(layer)]

    def place(self, layer: str) -> int:
        if layer not in self.layers:
            raise LayerError(f"layer {layer!r} is not among those of this projection; {near(str(layer), self.layers)}")
        return self.layers.index(layer)

    def summary(self) -> str:
        """A line for each layer, then how the numbers are meant, the cost and how far to trust the picture."""
        lines = [f"{TITLES[self.method]} of {len(self)} items in {len(self.layers)} layers", *map(self.line, range(len(self.layers)))]
        return "\n".join([*lines, *self.trust(), f"{self.model_calls} model calls, {self.seconds:.2f} s"])

    def line(self, k: int) -> str:
        """What is known of one layer."""
        near_by = self.params["neighbours"]
        found = f"{self.layers[k]} ({self.widths[k]} numbers): trustworthiness {self.trustworthiness[k]:.3f}, continuity {self.continuity[k]:.3f}; "
        found += f"the picture loses {self.lost[k]:.0%} of the {near_by} nearest neighbours"
        if self.method == "pca":
            found += f" and {1 - self.explained[k].sum():.0%} of the variance"
        if self.told is None or self.told_error is None or self.chance is None:
            return found
        found += f"; in the layer {near_by} neighbours tell {'the label right' if self.classes else 'the number, R²'}: {self.told[k]:.3f} (standard error {self.told_error[k]:.3f}"
        found += f", chance {self.chance[k]:.3f})"
        if self.silhouette is None or self.silhouette_error is None:
            return found
        return f"{found}, silhouette {self.silhouette[k]:.3f} (standard error {self.silhouette_error[k]:.3f})"

    def measure(self) -> str:
        return "right" if self.classes else "R²"

    def trust(self) -> list[str]:
        """How the numbers are meant, one sentence each."""
        said = [NO_MEANING] if self.method != "pca" else []
        if self.method != "pca" and self.widths.max() > WIDE:
            said.append(f"{TITLES[self.method]} was given the first {WIDE} principal axes of wider layers; the numbers compare with the whole layer")
        if self.told is not None:
            said.append(
                "labels are compared in the whole layer, not in the picture; standard errors are over items, and take those that share neighbours to go together"
            )
            said.append("chance: the same with shuffled labels")
        if self.params["pooled"]:
            said.append(
                f"{', '.join(self.params['pooled'])}: pool={self.params['pool']!r} over the places, which forgets where something is; pool='flat' keeps it"
            )
        if self.params["measured"] < len(self):
            said.append(f"the numbers compare {self.params['measured']} of the {len(self)} items, drawn by the seed")
        if len(self.layers) > 1:
            said.append("each layer is turned and mirrored onto the one before it (Procrustes), never stretched, and drawn on its own scale")
        return said

    def plot(self, layers: Any = None, ax: Axes | None = None, how: str = "points", columns: int = 4) -> Axes:
        """how="points": a panel for each layer, or some; "layers": how well the nearest neighbours tell the label in each of them."""
        if how not in ("points", "layers"):
            raise InputError(f"how={how!r}: choose 'points' or 'layers'.")
        asked = self.layers if layers is None else [layers] if isinstance(layers, str) else layers
        which = [self.place(layer) for layer in asked]
        return self.panels(which, ax, columns) if how == "points" else self.curves(which, ax)

    def panels(self, which: list[int], ax: Axes | None, columns: int) -> Axes:
        from askwhy import show

        if self.points.shape[2] != 2:
            raise InputError("the points have three coordinates, and paper has two; ask for dims=2, or draw .points yourself.")
        names, captions = [self.layers[k] for k in which], list(map(self.caption, which))
        title = f"{TITLES[self.method]} of {len(self)} items"
        note = NO_MEANING if self.method != "pca" else "each on its own scale, turned onto the one before it"
        return show.scatter_groups(
            self.points[which], names, ax, labels=self.labels, classes=self.classes, captions=captions, title=title, note=note, columns=columns
        )

    def caption(self, k: int) -> str:
        """What stands beneath a panel."""
        lines = [f"trustworthiness {self.trustworthiness[k]:.2f}, {self.lost[k]:.0%} of neighbours lost"]
        if self.method == "pca":
            lines.insert(0, f"{self.explained[k].sum():.0%} of the variance; panel {np.ptp(self.points[k], 0).max() / 0.9:.3g} wide")
        if self.told is not None and self.told_error is not None and self.chance is not None:
            sure = f" ± {1.96 * self.told_error[k]:.2f}" if np.isfinite(self.told_error[k]) else ""
            lines.append(f"{self.params['neighbours']} neighbours tell: {self.measure()} {self.told[k]:.2f}{sure} (chance {self.chance[k]:.2f})")
        return "\n".join(lines)

    def curves(self, which: list[int], ax: Axes | None) -> Axes:
        from askwhy import show

        if self.told is None or self.told_error is None or self.chance is None:
            raise InputError("without labels there is nothing to tell from layer to layer; give projection(..., labels=...).")
        lines: list[tuple[str, np.ndarray, np.ndarray | None]] = [
            (f"{'share right' if self.classes else 'R²'}, told by {self.params['neighbours']} neighbours", self.told[which], self.told_error[which])
        ]
        if self.silhouette is not None and self.silhouette_error is not None:
            lines.append(("silhouette", self.silhouette[which], self.silhouette_error[which]))
        lines.append(("chance, labels shuffled", self.chance[which], None))
        return show.over_layers(
            lines,
            [self.layers[k] for k in which],
            ax,
            title="how far the labels are apart in each layer",
            unit="share, or silhouette (-1 to 1)" if self.classes else "R²",
        )

    def __repr__(self) -> str:
        return f"<Projection by {TITLES[self.method]}, {len(self)} items, {', '.join(self.layers[:4])}{', ...' if len(self.layers) > 4 else ''}>"


def projection(
    model: Any, X: Any, layer: Any = None, *, method: str = "pca", labels: Any = None, pool: str = "mean", dims: int = 2, perplexity: float | None = None,
    neighbours: int | None = None, seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Projection:  # fmt: skip
    """Each of X as a point in a picture of each layer, and how far the labels are apart in the layer itself.

    layer: names, modules, "input", or None for the input and the main stages. method: "pca"; "tsne" (van der Maaten & Hinton
    2008; perplexity 30, less of few items); "umap" (McInnes et al. 2018; needs umap-learn). labels [n]: classes, or floats for
    numbers. pool: as `askwhy.activations` has it, "mean" over pixels or tokens, "flat", ...; the input is taken flat, of a
    text the mean of its word vectors. neighbours: k of all measures and of UMAP (10, less of few items). Every row [n, d] is held.
    Raises InputError, LayerError, MissingPackageError. Example: `askwhy.projection(net, X, labels=y).plot()`.
    """
    began = time.perf_counter()
    check(method, dims, perplexity)
    seed = whole("seed", seed)
    wrapped, n = torch_model(model), count(X)
    if n is not None:
        settled(n, method, neighbours, perplexity)  # before any work
        read_labels(labels, n)
    with progress_of(progress, "projection") as tick:
        rows, over_places, calls = read_rows(wrapped, X, layer, pool, batch_size, tick)
        n = len(next(iter(rows.values())))
        k, perplexity = settled(n, method, neighbours, perplexity)
        draw, (codes, classes) = partial(METHODS[method], dims=dims, k=k, perplexity=perplexity, seed=seed), read_labels(labels, n)
        some = np.sort(np.random.default_rng(seed).permutation(n)[:MEASURED])
        views: list[View] = []
        for name in list(rows):
            views.append(viewed(name, rows.pop(name), draw, views[-1].points if views else None, codes, some, k, seed))
            counted(tick, n * (1 + len(views)), n * (1 + len(views) + len(rows)))
    params = {"pool": pool, "pooled": over_places, "dims": dims, "neighbours": k, "measured": len(some)} | (
        {"perplexity": perplexity} if method == "tsne" else {}
    )
    return Projection(
        **gathered(views), method=method, labels=codes, classes=classes, params=params, model_calls=calls,
        seconds=time.perf_counter() - began, seed=seed, versions=versions(),
    )  # fmt: skip


# ---- what is asked --------------------------------------------------------------------------------------------------


def check(method: Any, dims: Any, perplexity: Any) -> None:
    if method not in METHODS:
        raise InputError(f"method={method!r}: choose {', '.join(map(repr, METHODS))}.")
    if method == "umap":
        load_umap()  # before any work
    if perplexity is not None and method != "tsne":
        raise InputError(f"perplexity= means nothing for method={method!r}; leave it out.")
    if isinstance(dims, bool) or dims not in (2, 3):
        raise InputError(f"dims={dims!r}: give 2, or 3 for a picture of your own.")


def settled(n: int, method: str, neighbours: Any, perplexity: Any) -> tuple[int, float | None]:
    """The number of neighbours and t-SNE's perplexity for n items."""
    if n < 3:
        raise InputError(f"X holds {n} item{'s' * (n != 1)}; a picture of who is near whom needs 3 or more, and says something from dozens on.")
    k = min(10, (n - 1) // 2) if neighbours is None else neighbours
    least = 2 if method == "umap" and neighbours is not None else 1
    k = whole("neighbours", k, least, (n - 1) // 2, f", less than half of the {n} items")
    if method != "tsne":
        return k, None
    wide = min(30.0, (n - 1) / 3) if perplexity is None else perplexity
    if isinstance(wide, bool) or not isinstance(wide, (int, float, np.number)) or not 0 < wide < n:
        raise InputError(
            f"perplexity={perplexity!r}: t-SNE needs more than 0 and less than the {n} items, usually 5 to 50; leave it out, or give more items."
        )
    return k, float(wide)


def read_labels(labels: Any, n: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """float64 numbers, or int64 codes with the names of the classes. Raises InputError."""
    if labels is None:
        return None, ()
    flat = listed(labels, "labels")
    if len(flat) != n:
        raise InputError(f"labels= holds {len(flat)} answers for {n} items; give one for each.")
    found, classes = truth_of(flat, "numbers" if any(isinstance(one, float) for one in flat) else "classes", "labels")
    if len(classes) == n:
        raise InputError(f"labels= has {n} different values for {n} items; give classes that items share, or floats for numbers.")
    return found, classes
