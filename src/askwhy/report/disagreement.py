"""Where methods disagree: rank correlations of their maps on a common grid, and the spread of their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from askwhy.explanation import Explanation
from askwhy.report import images, words
from askwhy.show import as_data_uri
from askwhy.show.pictures import limit

GRID = 7


@dataclass(frozen=True)
class Pair:
    """How alike two methods order the parts of one input."""

    first: int
    second: int
    correlation: float  # Spearman's, NaN where one of the two is constant
    magnitudes: bool  # compared without sign, since one of the two has none

    @property
    def text(self) -> str:
        return f"{self.correlation:.2f}".replace("-", "−") if np.isfinite(self.correlation) else "–"

    @property
    def colour(self) -> str:
        """From purple (opposite) to green (alike); the darkest ends are left out so that black text is readable."""
        return images.hexed("PRGn", 0.5 + 0.3 * self.correlation) if np.isfinite(self.correlation) else "transparent"


@dataclass(frozen=True)
class Worst:
    """The part whose ranks differ most."""

    name: str
    high: str  # the method that ranks it highest, and how high
    low: str
    parts: int
    box: tuple[float, float, float, float] | None  # left, top, width, height in percent


@dataclass(frozen=True)
class Disagreement:
    names: Sequence[str]
    pairs: Sequence[Pair]
    sentence: str
    compared: str
    parts: str
    ranked: str  # what the ranks of the map and of `worst` are ranks of
    worst: Worst | None
    map: str | None  # data URI
    mapped: bool
    apart: str  # which methods speak of other parts, and are not compared

    def pair(self, a: int, b: int) -> Pair | None:
        return next((p for p in self.pairs if {p.first, p.second} == {a, b}), None)


def shares(length: int) -> np.ndarray:
    """[7, length]: how much of each cell each position fills; rows sum to 1, for lengths below 7 too."""
    edges, at = np.linspace(0, length, GRID + 1), np.arange(length)
    overlap = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    overlap = overlap.clip(min=0)
    return overlap / overlap.sum(1, keepdims=True)


def pooled(heat: np.ndarray) -> np.ndarray:
    """[h, w] -> [7, 7]: the mean of each cell."""
    rows, columns = map(shares, heat.shape)
    return rows @ heat.astype(np.float64) @ columns.T


def is_map(why: Explanation) -> bool:
    """Interactions [n, d, d] are none, though they may be about the regions of a picture."""
    return (why.regions is not None and why.values.ndim == 2) or (why.values.ndim > 2 and why.components is None)


def parts_of(why: Explanation, magnitude: bool) -> np.ndarray:
    """[49] cells of a map, or [d] features of a table. Magnitudes are taken before pooling, so that signs do not cancel."""
    values = why.map() if is_map(why) else why.values[0]
    values = np.abs(values) if magnitude else values
    return pooled(values).ravel() if is_map(why) else values.astype(np.float64)


def ranks(values: np.ndarray) -> np.ndarray:
    """1 for the largest; ties share the mean rank. Rounding makes equal what only summation told apart."""
    from scipy.stats import rankdata

    return rankdata(-np.round(values / limit(values), 10))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where a ranking is constant."""
    a, b = (r - r.mean() for r in map(ranks, (a, b)))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


def parts_in_common(why: Explanation) -> Any:
    """Equal for two explanations that speak of the same parts: maps, or values of the same components."""
    return "map" if is_map(why) else (why.values.shape, why.components)


def comparable(whys: Sequence[Explanation]) -> list[int]:
    """Which explanations speak of the same parts: the largest such group. Interactions speak of pairs, which have no order."""
    kinds = [parts_in_common(why) if is_map(why) or why.values.ndim == 2 else None for why in whys]
    groups = [[j for j, other in enumerate(kinds) if other == kind] for kind in kinds if kind is not None]
    return max(groups, key=len, default=[])


def compare(whys: Sequence[Explanation], signed: Sequence[bool], names: Sequence[str]) -> Disagreement | None:
    """None where there is nothing to compare."""
    kept = comparable(whys)
    if len(kept) < 2:
        return None
    rest = [names[k] for k in range(len(whys)) if k not in kept]
    apart = f"{words.listed(rest)} {'speaks' if len(rest) == 1 else 'speak'} of other parts, and so cannot be compared." if rest else ""
    return compared_all([whys[k] for k in kept], [signed[k] for k in kept], [names[k] for k in kept], apart)


def compared_all(whys: Sequence[Explanation], signed: Sequence[bool], names: Sequence[str], apart: str) -> Disagreement:
    """Of explanations that all speak of the same parts."""
    mapped = is_map(whys[0])
    pairs = [pair(whys, signed, i, j) for i, j in combinations(range(len(whys)), 2)]
    magnitude = not all(signed)
    stack = np.stack([ranks(parts_of(why, magnitude)) for why in whys])  # [methods, parts]
    kept = [k for k, row in enumerate(stack) if np.ptp(row) > 0]  # a constant map ranks nothing
    spread = stack[kept].std(0) if len(kept) > 1 else np.zeros(stack.shape[1])
    found = bool(spread.max() > 0)
    return Disagreement(
        names=names,
        pairs=pairs,
        sentence=sentence(pairs, names, "a map that is the same everywhere" if mapped else "a method that finds all parts alike"),
        compared=compared(signed, names),
        parts=counted(whys[0], stack.shape[1]),
        ranked="magnitude" if magnitude else "signed value",
        worst=worst(spread, stack[kept], [names[k] for k in kept], whys[0]) if found else None,
        map=as_data_uri(images.spread(spread.reshape(GRID, GRID))) if mapped and found else None,
        mapped=mapped,
        apart=apart,
    )


def counted(why: Explanation, count: int) -> str:
    """How many parts are ranked, and of what."""
    if is_map(why):
        return f"the {GRID * GRID} cells of a {GRID} × {GRID} grid"
    return f"the {count} parts of the text" if why.readings else f"the {count} features"


def pair(whys: Sequence[Explanation], signed: Sequence[bool], i: int, j: int) -> Pair:
    magnitude = not (signed[i] and signed[j])
    return Pair(i, j, spearman(parts_of(whys[i], magnitude), parts_of(whys[j], magnitude)), magnitude)


def sentence(pairs: Sequence[Pair], names: Sequence[str], constant: str) -> str:
    """Which two agree most and which least."""
    known = sorted((p for p in pairs if np.isfinite(p.correlation)), key=lambda p: -p.correlation)
    if not known:
        return f"No two methods can be compared: {constant} ranks nothing."
    if len(known) == 1:
        return f"{both(known[0], names)} {strength(known[0].correlation)} (rank correlation {known[0].text})."
    most, least = known[0], known[-1]
    return f"Most alike are {both(most, names)} (rank correlation {most.text}); least alike are {both(least, names)} ({least.text}), which {strength(least.correlation)}."


def both(pair: Pair, names: Sequence[str]) -> str:
    return f"{names[pair.first]} and {names[pair.second]}"


def strength(correlation: float) -> str:
    """A correlation in plain words."""
    if correlation <= -0.2:
        return "tend to rank the parts the other way round"
    steps = [(0.8, "largely agree"), (0.5, "agree in part"), (0.2, "agree a little")]
    return next((words for least, words in steps if correlation >= least), "hardly agree")


def compared(signed: Sequence[bool], names: Sequence[str]) -> str:
    """Which pairs were compared with their signs, and which by magnitude."""
    unsigned = [name for name, has in zip(names, signed, strict=True) if not has]
    if not unsigned:
        return "All of these methods tell for from against, so signed values are compared."
    be = "has" if len(unsigned) == 1 else "have"
    start = f"{words.listed(unsigned)} {be} no sign (nothing speaks against), so magnitudes are compared in every pair with {'it' if len(unsigned) == 1 else 'them'} (marked *)"
    return start + ("; all other pairs are compared with their signs." if len(signed) - len(unsigned) > 1 else ".")


def worst(spread: np.ndarray, ranked: np.ndarray, names: Sequence[str], why: Explanation) -> Worst:
    """Name the part with the largest spread of ranks, and who ranks it how."""
    at = int(spread.argmax())
    high, low = (int(k) for k in (ranked[:, at].argmin(), ranked[:, at].argmax()))
    said = [f"{names[k]} ranks it {words.ordinal(ranked[k, at])}" for k in (high, low)]
    return Worst(part_name(why, at), said[0], said[1], ranked.shape[1], cell_box(at) if is_map(why) else None)


def part_name(why: Explanation, at: int) -> str:
    if not is_map(why):
        return why.components[0][at] if why.components else f"feature {at}"
    row, column = divmod(at, GRID)
    where = words.place((row + 0.5) / GRID, (column + 0.5) / GRID)
    return f"row {row + 1} from the top, column {column + 1} from the left ({where})"


def cell_box(at: int) -> tuple[float, float, float, float]:
    row, column = divmod(at, GRID)
    return (100 * column / GRID, 100 * row / GRID, 100 / GRID, 100 / GRID)
