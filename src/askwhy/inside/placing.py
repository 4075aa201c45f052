"""From the rows of a layer to points: principal axes, t-SNE, UMAP; with what the points keep of the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.errors import LayerError, MissingPackageError
from askwhy.inside.nearness import Apart, apart, coordinates, distances_of, kept_of

WIDE = 50  # principal axes that t-SNE and UMAP are given


@dataclass(frozen=True, eq=False)
class View:
    """One layer."""

    name: str
    width: int
    points: np.ndarray
    explained: np.ndarray
    kept: tuple[float, float, float]
    apart: Apart | None


def viewed(
    name: str, rows: np.ndarray, draw: Callable[[np.ndarray], np.ndarray], before: np.ndarray | None, labels: np.ndarray | None, some: np.ndarray, k: int, seed: int
) -> View:  # fmt: skip
    found = coordinates(rows)
    spread = (found**2).sum(0)
    if spread.sum() <= 1e-13 * (rows.astype(np.float64) ** 2).sum():
        raise LayerError(f"layer {name!r} gives the same for all {len(rows)} items, so there is nothing to draw; leave it out.")
    points = draw(found)
    dims = points.shape[1]
    near_by = found[some]
    held = kept_of(near_by, points[some], min(k, (len(some) - 1) // 2))
    told = None if labels is None else apart(distances_of(near_by), labels[some], min(k, (len(some) - 1) // 2), seed)
    shares = np.zeros(dims)
    shares[: len(spread)] = spread[:dims] / spread.sum()
    return View(name, rows.shape[1], turned(points, before), shares, held, told)


def turned(points: np.ndarray, onto: np.ndarray | None) -> np.ndarray:
    """Centred, then turned and mirrored as near as possible to other points of the same items (Procrustes); distances stay."""
    from scipy.linalg import orthogonal_procrustes

    centred = points - points.mean(0)
    return centred if onto is None else centred @ orthogonal_procrustes(centred, onto)[0]


def gathered(views: Sequence[View]) -> dict[str, Any]:
    """The fields of a Projection."""
    trust, continuity, lost = np.array([view.kept for view in views]).T
    found: dict[str, Any] = {
        "points": np.stack([view.points for view in views]), "layers": tuple(view.name for view in views), "widths": np.array([view.width for view in views]),
        "explained": np.stack([view.explained for view in views]), "trustworthiness": trust, "continuity": continuity, "lost": lost,
    }  # fmt: skip
    told = [view.apart for view in views if view.apart is not None]
    if not told:
        return found
    found |= {"told": [one.score for one in told], "told_error": [one.score_error for one in told], "chance": [one.chance for one in told]}
    if not np.isnan(told[0].silhouette):
        found |= {"silhouette": [one.silhouette for one in told], "silhouette_error": [one.silhouette_error for one in told]}
    return {name: np.array(value) if isinstance(value, list) else value for name, value in found.items()}


# ---- methods: coordinates [n, r] on principal axes -> [n, dims] -----------------------------------------------------


def by_pca(found: np.ndarray, dims: int, k: int, perplexity: float | None, seed: int) -> np.ndarray:
    return np.pad(found[:, :dims], [(0, 0), (0, max(dims - found.shape[1], 0))])  # of a single number, all on a line


def by_tsne(found: np.ndarray, dims: int, k: int, perplexity: float | None, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows, start = prepared(found, dims)
    with threadpool_limits(1):  # threads add up in the order in which they end, and the picture would change from run to run
        return np.asarray(TSNE(dims, perplexity=perplexity, init=1e-4 * start, random_state=seed).fit_transform(rows), np.float64)


def by_umap(found: np.ndarray, dims: int, k: int, perplexity: float | None, seed: int) -> np.ndarray:
    rows, start = prepared(found, dims)
    return np.asarray(load_umap()(k, dims, init=start, random_state=seed, n_jobs=1).fit_transform(rows), np.float64)


def load_umap() -> Any:
    """The class UMAP. Raises MissingPackageError."""
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        if error.name != "umap":
            raise
        raise MissingPackageError("umap-learn is needed for method='umap': pip install umap-learn") from error
    return UMAP


def prepared(found: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of few axes on a usual scale, and where their points start: the principal axes keep the large shape (Kobak & Linderman 2021)."""
    start = by_pca(found, dims, 0, None, 0)
    return (found[:, :WIDE] / found.std(0)[0]).astype(np.float32), (start / start.std(0)[0]).astype(np.float32)


METHODS: dict[str, Callable[..., np.ndarray]] = {"pca": by_pca, "tsne": by_tsne, "umap": by_umap}
