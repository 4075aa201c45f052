"""What a probe is asked, checked, and the fits that answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from askwhy.checks import whole
from askwhy.errors import Cancelled, InputError
from askwhy.game import Progress
from askwhy.inside.probe_rows import Read, Words
from askwhy.inside.probing import MEASURES, PROBES, Measure, Rows, description_length, fold_of, lookup, measure_of, one_fold, type_labels

INPUT = "input"
READING = 5  # fits that take as long as reading the layers, for the time left
Sources = Mapping[str, np.ndarray | None]  # rows by layer; None for words that are only looked up


class Work:
    """Counts fits, and stops where the callback says so."""

    def __init__(self, tick: Progress | None, models: int) -> None:
        self.tick, self.done, self.total = tick, 0, 10 * READING
        self.read = [0.0] * models  # the share of the items

    def plan(self, sources: int, controls: int, job: Job) -> None:
        fits = job.folds * (sources + controls) + 2 * sources * bool(job.classes)  # a description takes about two
        self.total = self.done + fits * len(job.probes)

    def reading(self, k: int, done: int, total: int) -> None:
        self.read[k] = done / total
        self.show(READING * sum(self.read))

    def add(self, fits: int) -> None:
        self.done += fits
        self.show(0)

    def show(self, more: float) -> None:
        if self.tick is not None and self.tick(int(self.done + more), self.total) is False:
            raise Cancelled("stopped before all probes were fitted; the model is as it was found.")


@dataclass(frozen=True, eq=False)
class Job:
    """All fits that one question needs."""

    truth: np.ndarray
    classes: int
    groups: np.ndarray
    score: str
    types: np.ndarray | None  # of words
    work: Work
    probes: tuple[str, ...]
    folds: int
    hidden: tuple[int, ...]
    seed: int
    unsettled: list[str] = field(default_factory=list)

    @property
    def measure(self) -> Measure:
        return measure_of(self.score, self.truth)

    def table(self, sources: Sources, y: np.ndarray | None = None) -> np.ndarray:
        """The scores [layers, probes, folds] on the truth, or on other answers y."""
        fold = fold_of(self.truth, self.groups, self.folds, [self.seed, 0])
        answers = self.truth if y is None else y
        return np.array([[[self.one(X, answers, fold == f, probe, f) for f in range(self.folds)] for probe in self.probes] for X in sources.values()])

    def one(self, X: np.ndarray | None, y: np.ndarray, test: np.ndarray, probe: str, f: int) -> float:
        if X is None:
            assert self.types is not None
            found = lookup(self.types, y, self.classes, test, self.measure)
        else:
            found, settled = one_fold(Rows(X, y, self.classes, self.groups), test, probe, self.measure, self.seed + f, self.hidden)
            self.unsettled.extend([probe] * (not settled))
        self.work.add(1)
        return found

    def controls(self, sources: Sources, how: str, kinds: np.ndarray | None, beside: Read | None) -> np.ndarray | None:
        if kinds is not None and how == "types":
            return self.table(sources, type_labels(kinds, self.truth, [self.seed, 1]))
        if beside is None:
            return None
        found = self.table(beside.layers)
        nothing = np.full((len(sources) - len(found), *found.shape[1:]), np.nan)  # the input has no weights
        return np.concatenate([nothing, found])

    def lengths(self, sources: Sources) -> np.ndarray:
        """Bits [layers, probes]."""
        found = np.full((len(sources), len(self.probes)), np.nan)
        for k, X in enumerate(sources.values()):
            for p, probe in enumerate(self.probes):
                if X is not None:
                    found[k, p] = description_length(Rows(X, self.truth, self.classes, self.groups), probe, self.seed, self.hidden)
                self.work.add(2)
        return found

    def cautions(self, classes: Sequence[str], whole: str) -> list[str]:
        """What is to be said of the data and the fits."""
        said = []
        common = np.bincount(self.truth).max() / len(self.truth) if classes else 0.0
        if self.score == "accuracy" and common > 0.5:
            said.append(f"{common:.0%} of the answers are the same; score='balanced_accuracy' counts every class alike")
        rare = [name for k, name in enumerate(classes) if len(np.unique(self.groups[self.truth == k])) < self.folds]
        if rare:
            said.append(f"{len(rare)} classes occur in fewer than {self.folds} {whole}, and not in every fold: {', '.join(rare[:8])}")
        if self.unsettled:
            said.append(f"{len(self.unsettled)} fits ended before they converged ({', '.join(sorted(set(self.unsettled)))})")
        return said


# ---- what is asked --------------------------------------------------------------------------------------------------


def check(probes: Any, folds: Any, seed: Any, hidden: Any, control: Any) -> tuple[tuple[str, ...], int, tuple[int, ...], int]:
    """The probes, the folds, the MLP's units, and the seed. Raises InputError."""
    names = (probes,) if isinstance(probes, str) else tuple(probes)
    wrong = [name for name in names if name not in PROBES]
    if wrong or not names:
        raise InputError(f"probes={probes!r}: choose of {', '.join(map(repr, PROBES))}.")
    wide = tuple(hidden) if isinstance(hidden, (list, tuple)) else (hidden,)
    if not wide:
        raise InputError(f"hidden={hidden!r}: give the units of each hidden layer; without one it is the linear probe.")
    if not isinstance(control, (bool, str)) or control not in (True, False, "types", "untrained"):
        raise InputError(f"control={control!r}: choose True, 'types', 'untrained' or False.")
    return tuple(dict.fromkeys(names)), whole("folds", folds, 2), tuple(whole("hidden", units, 1) for units in wide), whole("seed", seed)


def control_of(control: bool | str, typed: bool) -> str:
    if control == "types" and not typed:
        raise InputError("control='types' needs the type of each item, types=, of which many items are; or take control='untrained'.")
    return ("types" if typed else "untrained") if control is True else control or ""


def unit_of(score: str | None, classes: Sequence[str]) -> str:
    known = [name for name in MEASURES if (name == "r2") != bool(classes)]
    if score is not None and score not in known:
        raise InputError(f"score={score!r}: y holds {'classes' if classes else 'numbers'}; choose {', '.join(map(repr, known))}.")
    return score or known[0]


def check_length(name: str, given: int, n: int) -> None:
    if given != n:
        raise InputError(f"{name} holds {given} answers for {n} items; give one for each.")


def types_of(types: Any, n: int) -> np.ndarray:
    """The number of each row's type. Raises InputError."""
    flat = np.asarray(types).astype(str)
    if flat.shape != (n,):
        raise InputError(f"types= has the shape {list(flat.shape)} for {n} rows; give one type for each.")
    kinds = np.unique(flat, return_inverse=True)[1]
    if kinds.max() + 1 > n / 2:
        raise InputError(f"types= names {kinds.max() + 1} types for {n} rows; a random answer can only be learned for types that come several times.")
    return kinds


def groups_of(groups: Any, n: int, words: Words | None) -> np.ndarray:
    """The group of each row; words of a sentence, and of equal sentences, go together. Raises InputError."""
    if groups is not None and len(groups) != n:
        raise InputError(f"groups= has {len(groups)} entries for {n} {'items' if words is None else 'sentences'}; give one for each.")
    if words is None:
        return np.arange(n) if groups is None else np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    return words.groups_in(groups)


def check_folds(truth: np.ndarray, classes: Sequence[str], groups: np.ndarray, folds: int, of_words: bool) -> None:
    """Raises InputError where there are too few rows or groups for so many folds."""
    count = len(np.unique(groups))
    if count < 2 * folds:
        raise InputError(f"{count} {'sentences' if of_words else 'items or groups'} are too few for folds={folds}; give more, or fewer folds.")
    for k, name in enumerate(classes if not of_words else ()):  # of words some tags are always rare; the summary names them
        held = len(np.unique(groups[truth == k]))
        if held < folds:
            raise InputError(
                f"class {name!r} has {held} {'groups' if count < len(truth) else 'items'}, and folds={folds}; give more of them, leave the class out, or take fewer folds (2 or more)."
            )
