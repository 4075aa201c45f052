"""How alike vectors are, and whether those of one sense are more alike than those of two: with errors and a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from askwhy.errors import InputError, LayerError
from askwhy.inside.nearness import jackknife
from askwhy.inside.occurrences import Vectors
from askwhy.models.base import is_missing

SHUFFLES = 999  # of the senses


def cosines(rows: np.ndarray, layer: str) -> np.ndarray:
    """rows [m, d] -> [m, m], exactly 1 with itself. Raises LayerError."""
    lengths = np.linalg.norm(rows, axis=1)
    if (lengths == 0).any():
        raise LayerError(f"layer {layer!r} gives only zeros for occurrence {int(lengths.argmin())}, which point nowhere; name another layer.")
    found = (rows / lengths[:, None]) @ (rows / lengths[:, None]).T
    np.fill_diagonal(found, 1.0)
    return np.asarray(found.clip(-1, 1))


def shifted(vectors: Vectors, layer: str, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """The occurrences and the other tokens, without the mean of the others if asked. Raises InputError."""
    if not centred:
        return vectors.own, vectors.others
    if len(vectors.others) < 2:
        raise InputError(f"centred=True removes the mean vector of other words, and the sentences hold {len(vectors.others)}; give longer sentences.")
    mean = vectors.others.mean(0)
    return vectors.own - mean, vectors.others - mean


def baseline_of(others: np.ndarray, owners: np.ndarray) -> float:
    """The mean cosine of two tokens of different sentences; NaN where there are none."""
    lengths = np.linalg.norm(others, axis=1) if len(others) else np.zeros(0)
    held = lengths > 0
    units, apart = others[held] / lengths[held, None], owners[held, None] != owners[held]
    return float((units @ units.T)[apart].mean()) if apart.any() else float("nan")


# ---- senses ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Senses:
    """Mean similarity of pairs of one sense and of two, and the difference."""

    same: float
    different: float
    gap: float
    same_error: float
    different_error: float
    gap_error: float
    p_value: float  # of a gap as large where senses mean nothing


def read_groups(groups: Any, owners: np.ndarray, sentences: int) -> tuple[str, ...] | None:
    """The sense of each occurrence. Raises InputError."""
    if groups is None:
        return None
    given = list(groups.tolist() if hasattr(groups, "tolist") else groups) if not isinstance(groups, str) else []
    if len(given) not in (sentences, len(owners)):
        raise InputError(
            f"groups= names {len(given)} senses for {sentences} sentences with {len(owners)} occurrences; give a list with one for each."
        )
    missing = [k for k, one in enumerate(given) if is_missing(one)]
    if missing:
        raise InputError(f"groups[{missing[0]}] is {given[missing[0]]}; name the sense, or leave that sentence out.")
    each = [str(given[k]) for k in owners] if len(given) == sentences else list(map(str, given))
    one_sense, beside = pairs_of(np.array(each), owners)
    if not one_sense.any() or not beside.any():
        what = "no two sentences share a sense" if not one_sense.any() else "all sentences have one sense"
        raise InputError(f"groups={each[:6]}: {what}, so there is nothing to compare; give two sentences or more of one sense, and one of another.")
    return tuple(each)


def pairs_of(groups: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different sentences, bool [m, m]: of one sense, of two. What stands in one sentence is alike for that reason."""
    apart, alike = owners[:, None] != owners, groups[:, None] == groups
    return apart & alike, apart & ~alike


def one_each(groups: Sequence[str], owners: np.ndarray) -> bool:
    """Whether all occurrences in a sentence have one sense."""
    return len(set(zip(groups, owners.tolist(), strict=True))) == len(set(owners.tolist()))


def senses(similarity: np.ndarray, groups: Sequence[str], owners: np.ndarray, seed: int) -> Senses:
    """The errors are those of a jackknife over sentences; the p-value of a permutation test of the senses over sentences (or occurrences)."""
    names, rng = np.array(groups), np.random.default_rng(seed)
    found = means(similarity, names, owners)
    sentences = np.unique(owners)
    without = [means(similarity[np.ix_(rest, rest)], names[rest], owners[rest]) for one in sentences for rest in [np.flatnonzero(owners != one)]]
    same, different, gap = map(jackknife, np.array(without).T)
    unit = np.searchsorted(sentences, owners) if one_each(groups, owners) else np.arange(len(owners))
    of_unit = names[np.unique(unit, return_index=True)[1]]
    gaps = np.array([means(similarity, rng.permutation(of_unit)[unit], owners)[2] for _ in range(SHUFFLES)])
    gaps = gaps[~np.isnan(gaps)]  # some shuffles leave no pair of one sense, or of two
    return Senses(*found, same, different, gap, float(1 + (gaps >= found[2] - 1e-12).sum()) / (1 + len(gaps)))


def means(similarity: np.ndarray, groups: np.ndarray, owners: np.ndarray) -> tuple[float, float, float]:
    """Of pairs of one sense, of two, and the difference; NaN without such pairs."""
    same, different = (float(similarity[which].mean()) if which.any() else float("nan") for which in pairs_of(groups, owners))
    return same, different, same - different


def gathered(found: Sequence[Senses]) -> dict[str, np.ndarray]:
    """By layer."""
    rows = list(map(asdict, found))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
