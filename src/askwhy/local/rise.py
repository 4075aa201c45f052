"""RISE: which pixels are shown when the score is high?"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from askwhy.answer import answer
from askwhy.components import absent, grid_of, undivided
from askwhy.errors import InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, batch_size_for, deviation_of, in_chunks, over_items, progress_of, roughness
from askwhy.registry import method
from askwhy.score import Score, ask

Masks = tuple[np.ndarray, np.ndarray]  # bool [samples, cells, cells], and shifts [samples, 2] in pixels


@method(
    title="RISE",
    needs="predictions",
    inputs=("image",),
    asks="When random soft parts of the picture are hidden, which pixels are shown when the score is high?",
    reads="positive: the score is above its mean when the pixel is shown; negative: below",
    paper="Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421",
)
def rise(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, samples: int = 1000, cells: int = 7, shown: float = 0.5, baseline: Any = "auto",
    precision: str = "float32", seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """E[f(x M) | pixel shown] - E[f(x M)] = cov(f, M) / E[M] at each pixel, [n, h, w], with standard errors.

    M are soft masks: grids of `cells` x `cells`, each cell shown with probability `shown`, enlarged bilinearly and shifted
    at random; what is hidden fades to `baseline`. The paper's map is this plus the constant E[f].
    Petsiuk et al. 2018. Example: `askwhy.rise(model, photo, samples=2000).plot()`.
    """
    check_settings(samples, cells, shown)
    score = ask(model, x, target, versus)
    grid = picture_of(score)
    score.predict()
    maps, errors, names, deviations = [], [], set(), []
    with progress_of(progress, "rise") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            hidden, name = absent(baseline, score.items, i, undivided(score.items), seed)
            if len(hidden) > 1:
                raise InputError(f"baseline= holds {len(hidden)} rows; rise fades to one reference, give a single one.")
            drawn = draw(samples, cells, shown, grid, np.random.default_rng([seed, i]))
            scores, off = answers(score, i, drawn, hidden[0], grid, precision, batch_size, count)
            value, error = conditional_mean(scores, drawn, grid)
            maps.append(value)
            errors.append(error)
            deviations.append(off)
            names.add(name)
    return answer(score, np.stack(maps), std_error=np.stack(errors), params={"baseline": ", ".join(sorted(names))}, details=roughness(deviations))


def check_settings(samples: int, cells: int, shown: float) -> None:
    if samples < 10:
        raise InputError(f"samples={samples}: give at least 10 masks, better a thousand.")
    if cells < 2:
        raise InputError(f"cells={cells}: a grid of masks needs at least 2 cells a side; 7 is usual.")
    if not 0 < shown < 1:
        raise InputError(f"shown={shown}: the share of cells that are shown lies between 0 and 1.")


def picture_of(score: Score) -> tuple[int, int]:
    grid, _ = grid_of(score.items)
    if len(grid) != 2 or score.items.kind != "image":
        raise UnsupportedError(
            f"rise hides soft parts of a picture, but an item has the shape {list(score.items.batch.shape[1:])}; use shapley or ablation."
        )
    return grid[0], grid[1]


def draw(samples: int, cells: int, shown: float, grid: tuple[int, int], rng: np.random.Generator) -> Masks:
    steps = [-(-length // cells) for length in grid]  # pixels of a cell
    return rng.random((samples, cells + 1, cells + 1)) < shown, np.stack([rng.integers(0, step, samples) for step in steps], 1)


def masks(drawn: Masks, at: range, grid: tuple[int, int]) -> np.ndarray:
    """float32 [len(at), h, w], 0 to 1: the cells enlarged and cut out where the shift says."""
    found = np.empty((len(at), *grid), np.float32)
    steps = [-(-length // (drawn[0].shape[1] - 1)) for length in grid]
    for k, j in enumerate(at):
        rows, columns = (weights(grid[a], steps[a], int(drawn[1][j, a]), drawn[0].shape[1]) for a in (0, 1))
        found[k] = np.einsum("hc,cd,wd->hw", rows, drawn[0][j].astype(np.float32), columns, optimize=True)
    return found


def weights(length: int, step: int, shift: int, cells: int) -> np.ndarray:
    """float32 [length, cells]: how much of each cell a pixel takes, by bilinear interpolation between their centres."""
    place = np.clip((np.arange(length) + shift + 0.5) / step - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0).astype(np.float32)


def answers(
    score: Score, i: int, drawn: Masks, hidden: np.ndarray, grid: tuple[int, int], precision: str, batch_size: int | str, tick: Progress | None
) -> tuple[np.ndarray, float | None]:
    """The scores [samples] of item i behind each mask, and how far another precision is off."""
    _, axis = grid_of(score.items)
    total = len(drawn[0])

    def show(start: int, stop: int) -> Any:
        return faded(score.items.batch[i], hidden, masks(drawn, range(start, stop), grid), axis)

    with score.model.untouched():
        engine, name = score.engine(i, show(0, 4), total, precision)
        off = None if precision == "float32" else deviation_of(score, i, engine, show(0, 4))
        return in_chunks(total, lambda a, b: score.evaluate(show(a, b), i, engine), batch_size_for(score, batch_size, name), tick), off


def faded(x: Any, hidden: np.ndarray, masks: np.ndarray, axis: int | None) -> Any:
    """hidden + mask (x - hidden), in the type of x; whole numbers are rounded."""
    shown = masks if axis is None else np.expand_dims(masks, axis + 1)
    if hasattr(x, "detach"):
        torch = sys.modules["torch"]
        absent = torch.as_tensor(np.ascontiguousarray(hidden)).to(x)
        return absent + torch.as_tensor(shown).to(x) * (x - absent)
    mixed = hidden + shown * (x.astype(np.float32) - hidden)
    return (np.rint(mixed) if x.dtype.kind in "iu" else mixed).astype(x.dtype)


def conditional_mean(scores: np.ndarray, drawn: Masks, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """[h, w]: cov(f, M) / E[M] and its standard error, in two passes over the masks, which are made anew."""
    n, block = len(scores), 64
    off = scores - scores.mean()
    blocks = [range(start, min(start + block, n)) for start in range(0, n, block)]
    level = sum(masks(drawn, at, grid).sum(0, dtype=np.float64) for at in blocks) / n
    first, second = np.zeros(grid), np.zeros(grid)
    for at in blocks:
        pull = off[list(at), None, None] * (masks(drawn, at, grid) - level)
        first, second = first + pull.sum(0), second + (pull**2).sum(0)
    value = first / n
    return value / level, np.sqrt(np.maximum(second / n - value**2, 0) / n) / level
